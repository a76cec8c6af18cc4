"""What the pure cores cost: from Evidence to verdict, certificate and key, without a server and without a database."""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from attestation.core.appraise import appraise
from attestation.core.certificate import HealthClaims, Signer, build_health_certificate, build_signer
from attestation.core.checks import DEFAULT
from attestation.core.claims import BANK, Claims, Evidence, SentLogs, read_boot, verify_evidence
from attestation.core.credential import make_credential
from attestation.core.eventlog import parse_event_log
from attestation.core.policy import AppraisalPolicy
from attestation.core.quote import BOOT_PCRS, QUOTED_PCRS
from attestation.core.reference import ReferenceValues, by_value
from attestation.core.replay import LOG_PCRS, replay, replay_values
from attestation.core.signature import verify_signature
from attestation.core.tpm import TpmPublic, parse_public
from bench.figures import Figure, Item, measure
from kps.core.chain import SHIELDED
from kps.core.guardian import GuardianKeys
from kps.core.jose import Json
from kps.core.protector import create_protector, open_protector, roll_protector, verify_protector
from kps.core.wrap import ReleasedKeys, wrap
from tests.boot_logs import COLLECTION, boot
from tests.machines import Machine
from tests.tpm_lab import Key

RUNS = 15
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SIGNATURE = "one P-256 signature"


@dataclass(frozen=True, slots=True)
class Sample:
    """Genuine Evidence of a software TPM, and what is needed to verify it."""

    evidence: Evidence
    log: bytes
    ak: TpmPublic
    nonce: bytes

    def verify(self) -> Claims:
        return verify_evidence(self.evidence, ak=self.ak, nonce=self.nonce, logs=SentLogs(self.log))

    def verify_signatures(self) -> None:
        """Do only what no implementation can leave out."""
        evidence = self.evidence
        verify_signature(self.ak, evidence.quote, evidence.signature)
        verify_signature(self.ak, evidence.transport_certify, evidence.transport_signature)


def sample(machine: Machine, ak: Key) -> Sample:
    nonce = secrets.token_bytes(32)
    quote, signature = machine.tpm.quote(ak, nonce, QUOTED_PCRS)
    certify, certify_signature = machine.tpm.certify(machine.transport, ak, nonce)
    evidence = Evidence(
        quote=quote,
        signature=signature,
        pcr_values=machine.tpm.pcrs(QUOTED_PCRS),
        transport_public=machine.transport.public,
        transport_certify=certify,
        transport_signature=certify_signature,
    )
    return Sample(evidence, machine.log, parse_public(ak.public), nonce)


def core_figures(machine: Machine) -> list[Figure]:
    """Measure everything, on this machine's Evidence."""
    rsa_ak = machine.tpm.primary("rsa2048:rsassa-sha256:null")
    samples = {"P-256": sample(machine, machine.ak), "RSA-2048": sample(machine, rsa_ak)}
    machine.tpm.forget(rsa_ak)
    key = ec.generate_private_key(ec.SECP256R1())
    items = [Item(SIGNATURE, lambda: key.sign(b"x" * 64, ec.ECDSA(hashes.SHA256())), SIGNATURE)]
    items += log_items(f"{len(machine.log) / 1000:.0f} KB log", machine.log)
    for large in COLLECTION.glob("*keylime-perf-tests/uefi_log.bin"):
        items += log_items("73 KB log", large.read_bytes())
    for kind, each in samples.items():
        floor = f"its two {kind} signatures verified"
        items += [Item(floor, each.verify_signatures, floor), Item(f"Evidence verified, {kind} AK", each.verify, floor)]
    items += [*appraisal_items(samples["P-256"].verify()), *credential_items(machine, samples["P-256"].ak)]
    items += [certificate_item(samples["P-256"].verify()), *release_items(samples["P-256"].verify())]
    return measure(items, runs=RUNS)


def log_items(name: str, content: bytes) -> list[Item]:
    log = parse_event_log(content)
    values = replay_values(log, BANK)
    quoted: Mapping[int, bytes] = {pcr: values.get(pcr, bytes(32)) for pcr in LOG_PCRS}
    floor = f"{name}: only its SHA-256 work"

    def only_hashing() -> None:
        for event in log.events:
            hashlib.sha256(event.untrusted_data).digest()
            hashlib.sha256(bytes(64)).digest()

    return [
        Item(floor, only_hashing, floor),
        Item(f"{name}: parsed and replayed", lambda: replay(parse_event_log(content), quoted=quoted, bank=BANK), floor),
    ]


def appraisal_items(claims: Claims) -> list[Item]:
    """Appraise a boot against itself, and against one whose kernel command line was another."""
    pinned = by_value({pcr: claims.pcrs[pcr] for pcr in BOOT_PCRS})
    policy = AppraisalPolicy(1, (ReferenceValues("1", "trixie", BANK, pinned, claims.boot.events),), DEFAULT)
    other = boot("cmdline-drift")
    drifted = replace(claims, pcrs=other.pcrs, boot=read_boot(other.log, other.pcrs))
    passes = "appraised: passes"
    return [
        Item(passes, lambda: appraise(claims, policy, host="", now=NOW), passes),
        Item("appraised: another kernel command line", lambda: appraise(drifted, policy, host="", now=NOW), passes),
    ]


def credential_items(machine: Machine, ak: TpmPublic) -> list[Item]:
    ek, name, secret, seed = parse_public(machine.ek.public), ak.name, bytes(32), bytes(32)
    assert isinstance(ek.key, rsa.RSAPublicKey)
    public = ek.key
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), label=b"IDENTITY\0")
    floor = "one RSA-2048 OAEP encryption"
    return [
        Item(floor, lambda: public.encrypt(seed, oaep), floor),
        Item("credential made", lambda: make_credential(ek, name, secret, seed=seed, ephemeral=None), floor),
    ]


def certificate_item(claims: Claims) -> Item:
    key, end = ec.generate_private_key(ec.SECP256R1()), NOW + timedelta(hours=8)
    der = build_signer(key, number=1, fabric="bench", not_before=NOW, not_after=NOW + timedelta(days=30))
    signer, who = Signer(key, x509.load_der_x509_certificate(der)), HealthClaims(str(uuid4()), "nbg-a01", "tpm")

    def build() -> bytes:
        return build_health_certificate(
            claims=who,
            transport_spki=claims.transport.spki,
            serial=secrets.randbits(127) | 1,
            not_before=NOW,
            not_after=end,
            signer=signer,
        )

    return Item("health certificate built", build, SIGNATURE)


def release_items(claims: Claims) -> list[Item]:
    """Release a key under a protector of one owner and one guardian, step by step and whole."""
    owner, guardian = (
        GuardianKeys(name, ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1()))
        for name in ("tenant", "fabric")
    )
    document: Json = create_protector(
        owner, [guardian.guardian], protector_id=uuid4(), level=SHIELDED, key=bytes(32), now=NOW
    )
    protector = verify_protector(document)
    keys = ReleasedKeys(protector.id, protector.level, 1, ingress=bytes(32), egress=bytes(32))

    def whole() -> None:
        verified = verify_protector(document)
        ingress = open_protector(verified, guardian.encryption)
        released = ReleasedKeys(verified.id, verified.level, verified.roll + 1, ingress=ingress, egress=bytes(32))
        wrap(released, transport_spki=claims.transport.spki)
        roll_protector(verified, verified.chain, key=released.egress, signer=guardian.signing)

    return [
        Item("key released: whole", whole, SIGNATURE),
        Item("  protector verified", lambda: verify_protector(document), SIGNATURE),
        Item("  protector opened", lambda: open_protector(protector, guardian.encryption), SIGNATURE),
        Item("  keys wrapped", lambda: wrap(keys, transport_spki=claims.transport.spki), SIGNATURE),
        Item(
            "  rolled",
            lambda: roll_protector(protector, protector.chain, key=bytes(32), signer=guardian.signing),
            SIGNATURE,
        ),
    ]
