"""Good lines of an export, dossiers and policy records, and how damaged ones are given to their readers."""

import hashlib
from collections.abc import Sequence

from cryptography import x509

from attestation.core.check import Counters
from attestation.core.dossier import Dossier
from attestation.core.policy_record import PolicyRecord
from attestation.core.second_look import parse_signers
from ledger.core.export import (
    Header,
    ListLine,
    OwnerLine,
    Witnessed,
    entry_line,
    material_lines,
    seal_line,
    verify_seal,
)
from tests.fuzz.notes import COSIGNED, KEY, LEAVES, LOG, NAME, NOTE
from tests.kps.parties import NOW

DIGEST = hashlib.sha256(b"x").hexdigest()
_SEALED = hashlib.sha256(b"lines").digest()


def headers() -> list[bytes]:
    witnessed = (Witnessed(str(COSIGNED), tuple(LEAVES[:2])),)
    whole = Header(str(KEY), str(NOTE), None, 0, (), (), (DIGEST,))
    return [whole.line(), Header(str(KEY), str(NOTE), (DIGEST,), 7, tuple(LEAVES[:3]), witnessed, ()).line()]


def owners() -> list[bytes]:
    return [OwnerLine(DIGEST, 3, LEAVES[0], tuple(LEAVES[:2])).line()]


def entries() -> list[bytes]:
    content = b'{"act":"key.released","detail":{"release":7}}'
    ways: Sequence[Sequence[bytes] | None] = (None, LEAVES[:2])
    return [entry_line(content, hash_=LEAVES[0].hex(), index=3, path=way) for way in ways]


def materials() -> list[bytes]:
    return [line for content in (b'{"a":1}', bytes(range(64))) for line in material_lines(DIGEST, content)]


def lists() -> list[bytes]:
    return [ListLine(DIGEST, ((0, DIGEST), (700, DIGEST))).line()]


def seals() -> list[bytes]:
    return [seal_line(NAME, _SEALED, LOG)]


def unsealed(line: bytes) -> None:
    verify_seal(line, _SEALED, KEY)


def signers(data: bytes) -> tuple[x509.Certificate, ...]:
    return parse_signers([data])


def dossiers() -> list[bytes]:
    dossier = Dossier(
        host="a05",
        mode="tpm",
        at=NOW,
        approved=True,
        key=b"key",
        nonce=bytes(32),
        evidence={"quote": "AA", "clock": 1},
        pcrs={0: bytes(32), 10: bytes(32)},
        event_log=DIGEST,
        ima_log="",
        ima_from=0,
        ima_end=12,
        before=Counters(reset_count=3, boot_count=None),
        policy=DIGEST,
        version=4,
        baseline="",
        status="Passed",
        codes=("pcr_mismatch",),
        excepted=(),
    )
    return [dossier.content()]


def policy_records() -> list[bytes]:
    record = PolicyRecord(4, {"baselines": [], "required": []}, {"b": DIGEST}, DIGEST, {"c": DIGEST})
    return [record.content()]
