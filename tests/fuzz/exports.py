"""Good lines of an export, and what its digests stand for; and how damaged ones are given to their readers."""

import hashlib
from datetime import UTC, datetime
from functools import cache

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestation.core.check import Counters
from attestation.core.document import BaselineEntry, PolicyDocument, to_json
from attestation.core.dossier import Again, Dossier, judge_again, parse_dossier
from attestation.core.policy import AppraisalPolicy
from attestation.core.policy_record import (
    PolicyRecord,
    baseline_content,
    code_policy_content,
    policy_from,
    runtime_content,
)
from attestation.core.possession import prove
from attestation.core.reference import by_value, rules_to_json
from attestation.core.second_look import Shelf, Tally, look_at_all, parse_signers
from attestation.errors import NotKept
from ledger.core.audit import Audit, Ended, Found, Grounds, Known
from ledger.core.beginning import BEGUN_ANEW
from ledger.core.export import (
    Header,
    ListLine,
    OwnerLine,
    Witnessed,
    entry_line,
    material_lines,
    parse_entry,
    parse_header,
    parse_owner,
    seal_line,
    verify_seal,
)
from ledger.core.leaf import Act, canonical, entry_hash
from tests.ci_policies import STRICT
from tests.fuzz import notes, seeds

MOMENT = datetime(2026, 11, 26, 12, tzinfo=UTC)
HOST = "6f1e3d2c-4b5a-4697-8899-aabbccddeeff"
OWNER = "a" * 64
ZEROS = "0" * 64
_DETAIL = {"owner": OWNER, "evidence": ZEROS, "policy_sha256": ZEROS, "certificate_sha256": "", "policy": 7}
ENTRY = canonical(Act(MOMENT, f"host:{HOST}", "key.released", "protector:1", _DETAIL, salt="0" * 32))
HEADER = Header(str(notes.KEY), str(notes.COSIGNED), (OWNER,), 0, (), (Witnessed(str(notes.COSIGNED), ()),), (ZEROS,))


def headers() -> list[bytes]:
    return [HEADER.line(), HEADER.line().replace(b'["' + OWNER.encode() + b'"]', b"null")]


def owners() -> list[bytes]:
    return [OwnerLine(OWNER, 3, bytes(32), (bytes(32),)).line()]


def entries() -> list[bytes]:
    named = entry_hash(ENTRY).hex()
    return [entry_line(ENTRY, hash_=named, index=5, path=path) for path in (None, (bytes(32),) * 2)]


def materials() -> list[bytes]:
    return [
        line
        for content in (b'{"a":1}', b"\0\1")
        for line in material_lines(hashlib.sha256(content).hexdigest(), content)
    ]


def lists() -> list[bytes]:
    return [ListLine(ZEROS, ((0, ZEROS), (100, "1" * 64))).line()]


def seals() -> list[bytes]:
    return [seal_line(notes.NAME, bytes(32), notes.LOG)]


def sealed(data: bytes) -> object:
    verify_seal(data, bytes(32), notes.KEY)
    return True


def audited(data: bytes) -> Found:
    """Hold whatever lines come against what a person knows: the first one is whole, so that there are others."""
    first, *lines = [HEADER.line(), *data.splitlines(keepends=True)]
    ended = (Ended(notes.NEXT_KEY, notes.HEAD),)
    audit = Audit(parse_header(first), Known(notes.KEY, notes.HEAD, (notes.WITNESS_KEY,), ended=ended))
    for line in lines:
        if line.startswith(b'{"owner"'):
            audit.owner(parse_owner(line))
        else:
            audit.entry(parse_entry(line))
    return audit.finished()


def exports() -> list[bytes]:
    return [owners()[0] + entries()[1], begun()]


def begun() -> bytes:
    """An entry that begins a log, as it stands in everybody's export."""
    act = Act(MOMENT, "user:ada", BEGUN_ANEW, "log:x", notes.beginning(str(notes.COSIGNED)), salt="0" * 32)
    return entry_line(canonical(act), hash_=entry_hash(canonical(act)).hex(), index=21, path=())


# --- what verdicts rest on ---------------------------------------------------------------------------------------


def dossier(mode: str, key: bytes, evidence: dict[str, str]) -> Dossier:
    return Dossier(
        host=HOST,
        mode=mode,
        at=MOMENT,
        approved=True,
        key=key,
        nonce=seeds.NONCE,
        evidence=evidence,
        pcrs=seeds.BLANK,
        event_log="2" * 64,
        ima_log="",
        ima_from=0,
        ima_end=None,
        before=Counters(reset_count=1, boot_count=None),
        policy="",
        version=0,
        baseline="",
        status="Passed",
        codes=(),
        excepted=(),
    )


def host_key() -> bytes:
    """The host key, as hosts register it."""
    return seeds.HOST_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@cache
def dossiers() -> list[bytes]:
    (key, *_) = seeds.public_keys()
    parts = ("quote", "signature", "transport_public", "transport_certify", "transport_signature")
    return [
        dossier("hostkey", host_key(), {"proof": prove(seeds.HOST_KEY, nonce=seeds.NONCE)}).content(),
        dossier("kerberos", b"", {"sid": "S-1-5-21-1-2-3-4"}).content(),
        dossier("tpm", seeds.AK.public, dict.fromkeys(parts, key.hex())).content(),
    ]


def load(digest: str) -> bytes:
    raise NotKept(digest)


def judged(data: bytes) -> Again:
    return judge_again(parse_dossier(data), load, ima_list=None)


def looked_at(data: bytes) -> Tally:
    """Nothing that a dossier says breaks a second look: it is a problem of the entry that names it."""
    grounds = Grounds(5, MOMENT, "key.released", HOST, "", ZEROS, ZEROS, 7, "1" * 64, "1")
    return look_at_all([grounds], Shelf(lambda digest: data, lambda digest: ((0, ZEROS),), ()))


def records() -> list[bytes]:
    document = to_json(PolicyDocument(baselines=(BaselineEntry("1"),)))
    return [PolicyRecord(7, document, {"1": ZEROS}, ZEROS, {"2": ZEROS}).content()]


def baselines() -> list[bytes]:
    rules = rules_to_json(by_value({7: bytes(32)}))
    return [
        baseline_content(
            name="b", bank="sha256", platform="linux", pcrs=rules, event_log="", explained={"7": "00" * 32}
        )
    ]


def with_baseline(data: bytes) -> AppraisalPolicy:
    document = to_json(PolicyDocument(baselines=(BaselineEntry("1"),)))
    return policy_from(PolicyRecord(7, document, {"1": ZEROS}, "", {}), lambda digest: data)


def runtimes() -> list[bytes]:
    return [runtime_content(text="1" * 64, excludes=["/tmp/"], signers=[])]  # noqa: S108  (a path of a policy)


def with_runtime(data: bytes) -> AppraisalPolicy:
    files = {ZEROS: data, "1" * 64: seeds.runtime_texts()[0]}
    return policy_from(PolicyRecord(7, to_json(PolicyDocument()), {}, ZEROS, {}), lambda digest: files.get(digest, b""))


def code_policies() -> list[bytes]:
    return [code_policy_content(name="c", file="1" * 64, digests={"sha256": ZEROS}, audits=False, trivial=["x"])]


def with_code_policy(data: bytes) -> AppraisalPolicy:
    files = {ZEROS: data, "1" * 64: STRICT.binary}
    record = PolicyRecord(7, to_json(PolicyDocument()), {}, "", {"2": ZEROS})
    return policy_from(record, lambda digest: files.get(digest, b""))


def signed_by(data: bytes) -> object:
    return parse_signers([data])
