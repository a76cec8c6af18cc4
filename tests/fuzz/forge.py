"""What a host sends that measures, certifies and signs whatever an attacker likes: no signature stops it."""

import hashlib
import io
from dataclasses import replace
from functools import cache
from struct import unpack_from

from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jws
from joserfc.jwk import ECKey

from attestation.core import claims
from attestation.core.appraise import AttestationResult, appraise
from attestation.core.assessment import Assessed, assess_bundle
from attestation.core.bundle import read_bundle
from attestation.core.cabinet import PackedFile, read_cabinet
from attestation.core.certificate_reader import Tolerance, certificate_key, name_key, parse_certificate
from attestation.core.checks import CHECKS
from attestation.core.claims import Boot, Claims, Evidence, SentLogs, verify_evidence
from attestation.core.credential import make_credential
from attestation.core.difference import Difference, Same, difference
from attestation.core.endorsement import Endorsement, verify_endorsement
from attestation.core.eventlog import EventLog, parse_event_log
from attestation.core.finding import Finding
from attestation.core.handover import wrap_to_transport_key
from attestation.core.ima import Extension, ImaReplay, replay_list
from attestation.core.ima import ima_values as values_of_list
from attestation.core.ima_signature import ImaSigner, parse_signature, parse_signer, signed_by
from attestation.core.ima_templates import BootAggregate, boot_aggregate, decode_line, path_and_digest
from attestation.core.inspection import LogReport, inspect_log
from attestation.core.oddities import Oddity, find_oddities
from attestation.core.policy import AppraisalPolicy
from attestation.core.possession import TYPE, Possession, verify_possession
from attestation.core.quote import BOOT_PCRS, QUOTED_PCRS, Quote, verify_quote
from attestation.core.reference import PLATFORMS, ReferenceValues, by_value
from attestation.core.replay import VerifiedEvent, events_behind, replay, replay_values
from attestation.core.runtime import RuntimePolicy, appraise_runtime
from attestation.core.signature import verify_signature
from attestation.core.sipa import Record
from attestation.core.tpm import digest, parse_public
from attestation.core.transport import policy_pcr, verify_transport_key
from attestation.core.words import EventWords, describe
from guardedhost.jwe import open_jwe
from kps.core import wrapped
from kps.core.chain import VerifiedChain, parse_links, verify_links
from kps.core.handback import Return, parse_return, verify_return
from kps.core.host_message import parse_message
from kps.core.jose import Unverified, holds, parse_jws
from kps.core.offline import ACCOUNT_LIMIT, Account, parse_account, verify_account
from kps.core.owner_message import parse_approval, verify_approval
from kps.core.protector import open_protector, verify_protector
from kps.core.request import ReleaseRequest, parse_request, verify_request
from kps.core.secrets import VmSecrets, open_secrets
from kps.core.shielding_content import Content, parse_content
from kps.core.shielding_data import ShieldingData, open_content, parse_head, verify_shielding_data
from tests.boot_logs import boot
from tests.certificate_forge import CHAIN, lenient
from tests.fuzz import seeds
from tests.fuzz.documents import (
    SECRET,
    by_secret,
    chain_as_signed,
    content_of_file,
    dotted,
    sealed,
    shielding_files,
    text_of,
    value_of,
)
from tests.ima_signing import certificate
from tests.kps.parties import FABRIC, ID, KEY, NOW, OWNER
from tests.tpm_forge import SHA256, certification, quote

BANK = "sha256"
NONCE = seeds.NONCE
AK = parse_public(seeds.AK.public)


def quoted(attest: bytes) -> Quote:
    """Verify a quote of whatever form, which the AK has signed all the same."""
    selection = (BANK, QUOTED_PCRS)
    return verify_quote(attest, seeds.AK.sign(attest), ak=AK, nonce=NONCE, selection=selection, pcr_values=seeds.BLANK)


def transported(public: bytes) -> str:
    """Verify a transport key of whatever form, which the AK has certified, and hand it a secret."""
    certify = certification(NONCE, parse_public(public).name)
    key = verify_transport_key(public, certify, seeds.AK.sign(certify), ak=AK, nonce=NONCE, pcrs=seeds.BLANK)
    return wrap_to_transport_key(b"secret", key.spki)


def credential(public: bytes) -> tuple[bytes, bytes]:
    """Make a credential for an endorsement key of whatever form."""
    ek = parse_public(public)
    ephemeral = ec.generate_private_key(ek.key.curve) if isinstance(ek.key, ec.EllipticCurvePublicKey) else None
    return make_credential(ek, bytes(34), bytes(32), seed=bytes(64), ephemeral=ephemeral)


def endorsed(der: bytes) -> Endorsement:
    """Verify an EK certificate for the very key that it names, under authorities that may have signed it."""
    ek = replace(AK, key=certificate_key(parse_certificate(der)))  # type: ignore[arg-type]  # of any kind
    return verify_endorsement(der, ek, authorities=lenient(*Tolerance), now=NOW)


def unpacked(data: bytes) -> tuple[PackedFile, ...]:
    """Unpack a cabinet into as much as a test may take."""
    return read_cabinet(data, most_files=100, unpacked_limit=1 << 20)


def assessed(data: bytes) -> tuple[Assessed, ...]:
    """Say of a bundle of whatever form what importing it would do, where the good chain is known already."""
    keys = {name_key(each.certificate.subject) for each in CHAIN}
    return assess_bundle(read_bundle(data), tolerated={}, known=(), names=keys, now=NOW)


def log_of(data: bytes) -> EventLog:
    return parse_event_log(data)


def events_of(data: bytes) -> tuple[VerifiedEvent, ...]:
    """The events of a log, as if a TPM vouched for all of them."""
    log = parse_event_log(data)
    return events_behind(log, replay_values(log, BANK), bank=BANK)


def vouched(data: bytes) -> tuple[VerifiedEvent, ...]:
    log = parse_event_log(data)
    return replay(log, quoted=replay_values(log, BANK), bank=BANK)


def event(data: bytes) -> tuple[VerifiedEvent, VerifiedEvent]:
    """An event of any PCR and type, and the same one when its data are not proved."""
    pcr, kind = unpack_from("<II", data.ljust(8, b"\0"))
    content = data[8:]
    return VerifiedEvent(0, pcr, kind, bytes(32), content, content), VerifiedEvent(
        0, pcr, kind, bytes(32), None, content
    )


def described(data: bytes) -> tuple[EventWords, ...]:
    return tuple(map(describe, event(data)))


def oddities(data: bytes) -> tuple[Oddity, ...]:
    return find_oddities(log_of(data), events_of(data), bank=BANK)


def inspected(data: bytes) -> LogReport:
    """Inspect a log beside the PCR values of a captured boot."""
    return inspect_log(data, measured={BANK: boot("secureboot-on").pcrs})


def sipa_record(data: bytes) -> Record:
    return Record(int.from_bytes(data[:4], "little"), data[4:])


def claimed(data: bytes, ima: bytes | None = None) -> Claims:
    """Verify the Evidence of a host whose TPM holds exactly what this log says, and what this IMA list says."""
    values = replay_values(parse_event_log(data), BANK)
    pcrs = {pcr: values.get(pcr, bytes(32)) for pcr in QUOTED_PCRS}
    if ima is not None:
        pcrs[10] = ima_values(ima).get(10, bytes(32))
    signed = quote(NONCE, digest(SHA256, b"".join(pcrs.values())), QUOTED_PCRS)
    transport = replace(seeds.TRANSPORT, policy=policy_pcr((BANK, BOOT_PCRS), pcrs)).public
    certify = certification(NONCE, parse_public(transport).name)
    evidence = Evidence(signed, seeds.AK.sign(signed), pcrs, transport, certify, seeds.AK.sign(certify))
    return verify_evidence(evidence, ak=AK, nonce=NONCE, logs=SentLogs(data, ima))


@cache
def policy(platform: str = "linux") -> AppraisalPolicy:
    """One baseline, a captured boot; every check is required, and every other file of the captured lists accepted."""
    approved = boot("secureboot-on")
    baseline = ReferenceValues("1", "trixie", BANK, by_value(approved.pinned), approved.events, platform)
    return AppraisalPolicy(1, (baseline,), required=frozenset(CHECKS), runtime=runtime_policy())


def appraised(data: bytes) -> list[AttestationResult]:
    """Appraise whatever was booted, as either kind of system."""
    proved = claimed(data)
    return [appraise(proved, policy(platform), host="1", now=NOW) for platform in PLATFORMS]


def appraised_list(ima: bytes) -> AttestationResult:
    return appraise(claimed(boot("secureboot-off").log, ima), policy(), host="1", now=NOW)


def read_boot(data: bytes) -> Boot:
    return claims.read_boot(data, replay_values(parse_event_log(data), BANK))


def read_ima(ima: bytes) -> ImaReplay | None:
    return claims.read_ima(ima, seeds.BLANK | ima_values(ima))


def compared(data: bytes) -> tuple[Difference | Same, ...]:
    return difference(policy().baselines[0].events, events_of(data), range(24))


def ima_values(ima: bytes) -> dict[int, bytes]:
    return values_of_list(ima, bank=BANK, extension=Extension.REHASHED)


def replayed(ima: bytes) -> ImaReplay:
    """Replay an IMA list to the value that it leads to."""
    return replay_list(ima, quoted=ima_values(ima).get(10, bytes(32)), bank=BANK, extension=Extension.REHASHED)


def aggregate(line: bytes) -> BootAggregate:
    return boot_aggregate(decode_line(line), pcrs=boot("secureboot-on").pcrs, bank=BANK)


def file_signed(signature: bytes) -> bool:
    digest = hashlib.sha256(b"content").digest()
    return signed_by(parse_signature(signature), signer(), algorithm="sha256", digest=digest)


@cache
def signer() -> ImaSigner:
    return parse_signer(certificate(seeds.EC_KEY))


@cache
def runtime_policy() -> RuntimePolicy:
    """Every other file of the captured lists, one folder and one signer."""
    lines = list(seeds.readable(path_and_digest, seeds.ima_lines()))
    return RuntimePolicy.from_list(lines[::2], excludes=(b"/tmp/",), signers=(signer(),))


def judged(ima: bytes) -> tuple[Finding, ...]:
    return appraise_runtime(replayed(ima), runtime_policy(), pcrs=seeds.BLANK)


def signed(public: bytes) -> None:
    """Verify one signature with a key of whatever form."""
    verify_signature(parse_public(public), NONCE, seeds.AK.sign(NONCE))


# --- key protection


def held(parts: bytes) -> tuple[bool, bool]:
    token = parse_jws(dotted(parts), limit=len(parts) * 8 + 1024)
    return holds(token, OWNER.signing.public_key()), holds(token, SECRET)


def unwrapped(document: bytes) -> bytes:
    return wrapped.decrypt(wrapped.parse_wrapped(value_of(document)), FABRIC.encryption)


def requested(payload: bytes) -> ReleaseRequest:
    return verify_request(parse_request(by_secret(payload)), SECRET)


def linked(links: bytes) -> VerifiedChain:
    return verify_links(parse_links(chain_as_signed(links)))


def returned(payload: bytes) -> Return:
    return verify_return(parse_return(by_secret(payload)), SECRET)


def host_message(token: bytes) -> Unverified:
    return parse_message(text_of(token), limit=ACCOUNT_LIMIT)


def accounted(payload: bytes) -> Account:
    return verify_account(parse_account(by_secret(payload)), SECRET)


def approved(token: bytes) -> None:
    unverified, _ = parse_approval(text_of(token))
    verify_approval(unverified, OWNER.guardian)


def opened(token: bytes) -> VmSecrets:
    return open_secrets(text_of(token), KEY, protector_id=ID, roll=0)


def opened_sealed(content: bytes) -> VmSecrets:
    return open_secrets(sealed(content), KEY, protector_id=ID, roll=0)


def opened_content(content: bytes) -> Content:
    """Open shielding data whose owner has sealed anything."""
    data = parse_head(shielding_files()[0].splitlines(keepends=True)[0])
    return open_content(data, [content_of_file(content)], KEY)


def verified_file(file: bytes) -> ShieldingData:
    """Read a shielding data file as it comes in."""
    return verify_shielding_data(io.BytesIO(file))


def content_of_stream(content: bytes) -> Content:
    """Read what was sealed as it comes out of pieces."""
    return parse_content([content[:7], content[7:]])


def opened_by_tpm(token: bytes) -> bytes:
    return open_jwe(text_of(token), lambda _: KEY)


def opened_protector(document: bytes) -> bytes:
    return open_protector(verify_protector(value_of(document)), FABRIC.encryption)


def possessed(proof: bytes) -> Possession:
    """Read a proof as it came."""
    return verify_possession(text_of(proof), seeds.HOST_KEY.public_key(), nonce=NONCE)


def possessed_signed(payload: bytes) -> Possession:
    """Read a proof whose payload the host has signed, whatever it is."""
    header = {"alg": "ES256", "typ": TYPE}
    signed = jws.serialize_compact(header, payload, ECKey.import_key(seeds.HOST_KEY), algorithms=["ES256"])
    return verify_possession(signed, seeds.HOST_KEY.public_key(), nonce=NONCE)
