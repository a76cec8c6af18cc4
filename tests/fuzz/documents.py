"""Good documents and messages for every reader of JSON and JOSE.

What a signature covers is given without it: the targets sign whatever comes, because an attacker may be a guardian, an
owner or a host too, and signs what it likes.
"""

import hashlib
import json
from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from joserfc import jwe, jws
from joserfc.jwk import ECKey, OctKey

from attestation.core.base64url import to_b64u
from attestation.core.check import Parameters
from attestation.core.document import BaselineEntry, PolicyDocument, to_json
from attestation.core.policy import PolicyException
from cli.owner_secret import OwnerSecret
from cli.recovery import Share, build_share, combine, parse_share, split
from guardedhost.machine import Firmware
from kps.core import jose
from kps.core.bundle import VmDescription, VmState, build_state, build_vm
from kps.core.catalog import build_catalog, parse_version
from kps.core.guardian import GuardianKeys, build_metadata, sign_succession
from kps.core.handback import Return, build_return
from kps.core.offline import Account, build_account
from kps.core.order import Order, build_order
from kps.core.owner_message import Approval, Question, build_approval, build_question
from kps.core.release_policy import Offline, ReleasePolicy
from kps.core.request import ReleaseRequest, build_request
from kps.core.secrets import VmSecrets, seal_secrets
from kps.core.shielding_content import build_content
from kps.core.volume import BLOCK_SIZE, Volume, block_hash, document_of, volume_of
from tests.kps.parties import (
    FABRIC,
    ID,
    KEY,
    NOW,
    OTHER_FABRIC,
    OWNER,
    OWNERS,
    STRANGER,
    protector,
    said,
    succession,
)
from tests.kps.shielding import (
    CONTENT,
    FILE_ID,
    RECIPE,
    VALUES,
    class_chain,
    head_of,
    made,
    shielding_data,
    with_head,
)
from tests.machines import CAPTURES

SECRET = b"s" * 32
SERIAL = "1f" * 16
PROTECTOR = protector(FABRIC, OTHER_FABRIC)
_SECRETS = VmSecrets(vtpm_key="ab" * 32, disk_passphrase="c2VjcmV0IHBhc3NwaHJhc2Ugb2YgMzIgYnl0ZXM=")
_REQUEST = ReleaseRequest(SERIAL, b"certificate", "payroll-1", b"n" * 32, int(NOW.timestamp()), PROTECTOR)
_SHARES = split(OwnerSecret("owner", KEY), shares=3, needed=2)
_KID = jose.thumbprint(OWNER.signing.public_key())
_RETURN = Return(SERIAL, OWNERS, ID, "payroll-1", b"n" * 32, int(NOW.timestamp()))
_ACCOUNT = Account(SERIAL, OWNERS, ID, "payroll-1", 3, (1_800_000_000,), 1, b"n" * 32, int(NOW.timestamp()))
_APPROVAL = Approval(ID, ID, ID, OWNERS, int(NOW.timestamp()))
_NEW = STRANGER.guardian.card | {"name": FABRIC.name}


def value_of(data: bytes) -> Any:
    """What a peer sent, once it is read as JSON; a text where it is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return text_of(data)


def object_of(data: bytes) -> dict[str, Any]:
    """What is read where nothing but a JSON object comes through."""
    value = value_of(data)
    return value if isinstance(value, dict) else {}


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def by_owner(payload: bytes) -> str:
    """Sign any payload with the owner's key."""
    return _by(OWNER, payload)


def _by(keys: GuardianKeys, payload: bytes) -> str:
    kid = jose.thumbprint(keys.guardian.signing)
    return jws.serialize_compact(
        {"alg": "ES256", "kid": kid}, payload, ECKey.import_key(keys.signing), algorithms=["ES256"]
    )


def by_secret(payload: bytes) -> str:
    """Authenticate any payload with the secret that came with a certificate."""
    return jws.serialize_compact(
        {"alg": "HS256", "kid": SERIAL}, payload, OctKey.import_key(SECRET), algorithms=["HS256"]
    )


def sealed(payload: bytes, *, kid: str = f"{ID}/0") -> str:
    """Encrypt any payload as a VM's secrets are, or the content of shielding data."""
    header = {"alg": "dir", "enc": "A256GCM", "kid": kid}
    return jwe.encrypt_compact(header, payload, OctKey.import_key(KEY), algorithms=["dir", "A256GCM"])


def dotted(data: bytes) -> str:
    """Put the values of a list together as the parts of a compact token."""
    parts = value_of(data)
    texts = [to_b64u(json.dumps(part).encode()) for part in parts] if isinstance(parts, list) else [str(parts)]
    return ".".join([*texts, to_b64u(bytes(64))])


def protector_by_owner(data: bytes) -> Any:
    """Sign what a key protector says, link by link, and seal it as it then is."""
    document = value_of(data)
    if not isinstance(document, dict) or not isinstance(document.get("chain"), list):
        return document
    chain = [by_owner(_text(link)) for link in document["chain"]]
    covers = {"chain_sha256": _digest(chain), "wrapped_sha256": _digest(document.get("wrapped"))}
    seal = document.get("seal")
    if isinstance(seal, dict):
        seal |= {name: digest for name, digest in covers.items() if name in seal}
    return document | {"chain": chain, "seal": by_owner(_text(seal))}


def _text(value: object) -> bytes:
    return json.dumps(value).encode()


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def protectors() -> list[bytes]:
    return [_text(PROTECTOR), _text(protector(level="encryption-supported"))]


def statements() -> list[bytes]:
    """Key protectors without their signatures."""
    chain = [said(link) for link in PROTECTOR["chain"]]
    return [_text(PROTECTOR | {"chain": chain, "seal": said(PROTECTOR["seal"])})]


def chains() -> list[bytes]:
    return [_text({"chain": PROTECTOR["chain"]})]


def chain_links() -> list[bytes]:
    """What the links of a chain say, a succession among them, without their signatures."""
    document = protector(FABRIC, policy=ReleasePolicy(successors=True))
    links = [said(document["chain"][0]), succession(document["chain"], FABRIC, STRANGER.guardian, guardian=_NEW)]
    machine = [said(link) for link in made(class_chain(FABRIC)).links]
    return [_text(links[:1]), _text(links), _text(machine)]


def chain_as_signed(data: bytes) -> Any:
    """Sign the first link as the owner and the rest as a guardian, each for the statement as it then is."""
    links = value_of(data)
    if not isinstance(links, list) or not links:
        return links
    statement = by_owner(_text(links[0]))
    for link in links[1:]:
        if isinstance(link, dict) and "statement" in link:
            link["statement"] = hashlib.sha256(statement.encode()).hexdigest()
    return [statement, *(_by(FABRIC, _text(link)) for link in links[1:])]


def release_policies() -> list[bytes]:
    """A release policy with one of everything, and one without anything."""
    policy = ReleasePolicy(
        host_groups=("payroll", "reserve"),
        minimum_mode="tpm",
        not_before=1,
        not_after=2,
        hours="22:00-04:00",
        simultaneous_hosts=2,
        approval="key",
        offline=Offline(1, 2),
        successors=True,
    )
    return [_text(policy.document), b"{}"]


@cache
def returns() -> list[bytes]:
    return [build_return(_RETURN, SECRET).encode()]


def accounts() -> list[bytes]:
    return [build_account(_ACCOUNT, SECRET).encode()]


def account_payloads() -> list[bytes]:
    return [jose.canonical(said(accounts()[0].decode()))]


def return_payloads() -> list[bytes]:
    return [jose.canonical(said(returns()[0].decode()))]


@cache
def approvals() -> list[bytes]:
    return [build_approval(_APPROVAL, OWNER).encode()]


def approval_payloads() -> list[bytes]:
    return [jose.canonical(said(approvals()[0].decode()))]


@cache
def questions() -> list[bytes]:
    return [build_question(Question(OWNER.guardian, ID, 1), OWNER).encode()]


def question_payloads() -> list[bytes]:
    return [jose.canonical(said(questions()[0].decode()))]


def returned_messages() -> list[bytes]:
    return [_text({"message": "a.b.c"})]


def accounted_messages() -> list[bytes]:
    return [_text({"message": "a.b.c"})]


def chain_messages() -> list[bytes]:
    return [_text({"chain": ["a.b.c"]})]


def question_messages() -> list[bytes]:
    return [_text({"question": "a.b.c"})]


def approval_messages() -> list[bytes]:
    return [_text({"approval": "a.b.c"})]


def wrapped_keys() -> list[bytes]:
    return [_text(PROTECTOR["wrapped"])]


def cards() -> list[bytes]:
    return [_text(OWNER.guardian.card)]


def public_keys() -> list[bytes]:
    return [_text(jose.jwk(OWNER.signing.public_key()))]


@cache
def metadata() -> list[bytes]:
    others = [OTHER_FABRIC.guardian, FABRIC.guardian]
    return [build_metadata(OWNER, now=NOW, others=others, successions=[successions()[0].decode()]).encode()]


def successions() -> list[bytes]:
    return [sign_succession(OWNER, OTHER_FABRIC.guardian, now=NOW).encode()]


def succession_payloads() -> list[bytes]:
    return [_text(said(successions()[0].decode()))]


def published_metadata() -> list[bytes]:
    """A guardian's metadata as a file: the bare token, and the JSON that a fabric answers."""
    return [*metadata(), _text({"metadata": metadata()[0].decode()})]


def owner_files() -> list[bytes]:
    place = {"token": "Kontor Nord", "id": "00" * 16}
    return [_text({"version": 1, "owner": OWNER.guardian.card, "keys": keys}) for keys in ("a.b.c.d.e", place)]


def shares() -> list[bytes]:
    """Sheets as they are printed, and their words alone."""
    return [form for share in _SHARES for form in (build_share(share, of=3, made=NOW.date()), _words(share))]


def share_sets() -> list[bytes]:
    return [b"\n\f\n".join(some) for some in (shares()[::2], shares()[1::2], shares()[2:])]


def combined(data: bytes) -> bytes:
    return combine([parse_share(sheet) for sheet in data.split(b"\f")])


def cares() -> list[bytes]:
    split_at = {"at": 1795000000, "set_name": "academic acid", "shares": 3, "needed": 2}
    drill = {"at": 1795000001, "set_name": "academic acid", "shares": [1, 3], "opened": 2, "disks": 1, "failure": None}
    failed = {**drill, "set_name": None, "shares": [], "failure": "Too few shares: 3 are needed."}
    copied = {**failed, "failure": None}
    return [
        _text({"version": 1, "splits": splits, "drills": drills})
        for splits, drills in (([split_at], [drill, failed, copied]), ([], []))
    ]


def _words(share: Share) -> bytes:
    return " ".join(share.words).encode()


def metadata_payloads() -> list[bytes]:
    return [_text(said(metadata()[0].decode()))]


def binaries() -> list[bytes]:
    return [to_b64u(bytes(range(size))).encode() for size in (0, 1, 2, 3, 255)]


def tokens() -> list[bytes]:
    return [*metadata(), *requests(), by_owner(b"{}").encode(), by_secret(b"{}").encode()]


def token_parts() -> list[bytes]:
    return [_text([{"alg": alg, "kid": "a" * 32}, {"at": 1}]) for alg in ("HS256", "ES256")]


@cache
def requests() -> list[bytes]:
    return [build_request(_REQUEST, SECRET).encode()]


def request_payloads() -> list[bytes]:
    return [jose.canonical(said(requests()[0].decode()))]


@cache
def sealed_secrets() -> list[bytes]:
    return [seal_secrets(_SECRETS, KEY, protector_id=ID, roll=0).encode()]


def secrets() -> list[bytes]:
    return [_text({"vtpm_key": _SECRETS.vtpm_key, "disk_passphrase": _SECRETS.disk_passphrase})]


def released_keys() -> list[bytes]:
    keys = {"ingress": to_b64u(KEY), "egress": to_b64u(KEY), "level": "shielded", "protector": str(ID), "roll": 1}
    return [_text(keys)]


def transport_tokens() -> list[bytes]:
    header = b'{"alg":"RSA-OAEP-256","enc":"A256GCM"}'
    content = AESGCM(KEY).encrypt(bytes(12), b"content", to_b64u(header).encode())
    return [".".join(map(to_b64u, (header, bytes(256), bytes(12), content[:-16], content[-16:]))).encode()]


def machines() -> list[bytes]:
    return [build_vm(VmDescription(name="payroll", id=str(ID), level="shielded", memory=256))]


def descriptions() -> list[bytes]:
    """`vm.json` as the hoster may keep it, with the firmware that it gives the machine."""
    return [*machines(), *(_text(json.loads(machines()[0]) | {"firmware": word}) for word in Firmware)]


def states() -> list[bytes]:
    return [build_state(VmState(PROTECTOR, "token"))]


@cache
def _volume() -> Volume:
    leaves = [block_hash(b"%d" % number) for number in range(5)]
    return volume_of(leaves, size=5 * BLOCK_SIZE)


def volumes() -> list[bytes]:
    return [_text(document_of(_volume()))]


@cache
def shielding_files() -> list[bytes]:
    return [shielding_data(FABRIC, OTHER_FABRIC)]


def shielding_heads() -> list[bytes]:
    return [shielding_files()[0].splitlines(keepends=True)[0]]


def piece_digests() -> list[bytes]:
    return [_text(["A" * 43, "B" * 42 + "A"])]


def shielding_labels() -> list[bytes]:
    """What the owner of shielding data has signed in the open, without the signature."""
    return [_text(said(head_of(shielding_files()[0])["signed"]))]


def labelled(payload: bytes) -> bytes:
    """Put any label on a shielding data file, signed by its owner."""
    return with_head(shielding_files()[0], head_of(shielding_files()[0]) | {"signed": by_owner(payload)})


def content_of_file(content: bytes) -> str:
    return sealed(content, kid=str(FILE_ID))


def shielding_contents() -> list[bytes]:
    return [b"".join(build_content(CONTENT))]


def orders() -> list[bytes]:
    return [build_order(Order("web1", 512, "ab" * 32, "cd" * 32, VALUES))]


def place_values() -> list[bytes]:
    return [_text(VALUES)]


def recipes() -> list[bytes]:
    return [RECIPE.encode()]


def versions() -> list[bytes]:
    return [b"0", b"12.1", b"2026.11.26.3"]


@cache
def catalogs() -> list[bytes]:
    return [build_catalog(OWNER, _volume(), name="debian-12", version=parse_version("12.1"), now=NOW).encode()]


def catalog_payloads() -> list[bytes]:
    return [_text(said(catalogs()[0].decode()))]


def enrolments() -> list[bytes]:
    return [_text({"name": "nbg-a01", "ek_public": "AAAA", "ak_public": "AAAA", "ek_certificate": "MAAA"})]


def host_keys() -> list[bytes]:
    return [_text({"name": "nbg-a01", "host_key": "MAAA"})]


def key_proofs() -> list[bytes]:
    return [_text({"nonce": to_b64u(bytes(32)), "proof": "a.b.c"})]


def possession_messages() -> list[bytes]:
    return [_text({"proof": "a.b.c"})]


def challenge_requests() -> list[bytes]:
    return [_text({"attester": str(ID), "event_log_sha256": "0" * 64})]


def evidence() -> list[bytes]:
    names = ("quote", "signature", "ima_log", "transport_public", "transport_certify", "transport_signature")
    log = to_b64u((CAPTURES / "secureboot-off" / "eventlog.bin").read_bytes())
    values = {str(pcr): to_b64u(bytes(32)) for pcr in range(3)}
    return [_text({**dict.fromkeys(names, "AAAA"), "event_log": log, "pcr_values": values})]


def activations() -> list[bytes]:
    return [_text({"secret": to_b64u(bytes(32))})]


def memberships() -> list[bytes]:
    return [_text({"transport_key": to_b64u(bytes(32))})]


def release_requests() -> list[bytes]:
    return [_text({"request": "a.b.c"})]


def answers() -> list[bytes]:
    """What a portal answers its hosts, all of it in one, for each reader takes its own part."""
    finding = {"code": "c", "substatus": "s", "what": "w", "why": "y", "remedy": "r", "pcrs": [7]}
    moment = "2026-11-23T12:00:00Z"
    waiting = {
        **{"id": str(ID), "attester": str(ID), "vm": "payroll-1", "host": "a05", "attestation": 7, "mode": "tpm"},
        **{"policy_version": 3, "attested_at": moment, "asked_at": moment, "asked_last": moment, "needs_key": True},
    }
    return [
        _text(
            {
                "id": str(ID),
                **{"credential_blob": "AAAA", "secret": "AAAA", "attester": str(ID), "state": "approved"},
                **{"nonce": to_b64u(bytes(32)), "pcrs": [0, 7], "boot_pcrs": [0], "bank": "sha256"},
                **{"send_event_log": True, "status": "Passed", "substatus": ["s"], "findings": [finding]},
                **{"certificate": "AAAA", "release_secret": "a.b", "next_attestation_at": "2026-11-23T12:00:00Z"},
                **{"wrapped_keys": "a", "key_protector": {}},
                **{"chain": ["a.b.c"], "denied": False, "waiting": [waiting]},
            }
        )
    ]


def policies() -> list[bytes]:
    """An appraisal policy as it is written down, with one of everything."""
    exception = PolicyException("iommu", NOW, "Ada", "until the new board", frozenset({"1"}), frozenset({7}), True)
    document = PolicyDocument(
        baselines=(BaselineEntry("1", NOW, NOW + timedelta(days=1)), BaselineEntry("2")),
        parameters=Parameters(("1.0",), 10, ("ab" * 32,)),
        exceptions=(exception, replace(exception, check="baseline", hosts=frozenset())),
        runtime="1",
        code_policies=("1",),
    )
    return [_text(to_json(document))]
