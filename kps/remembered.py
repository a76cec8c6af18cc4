"""What a release is decided by here beside the certificate, read in one statement, all of one moment.

Our key pairs, what is remembered of the protector, which is locked until the transaction ends, and the key for the row
of the release. The caller holds every standing (`attestation.standing`), so that none of the pairs changes while this
waits for the lock.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from kps.core.chain import VerifiedChain
from kps.models import GuardianPair, KeyProtectorRecord, KeyRelease, ServiceKey
from kps.our_pairs import OurPairs
from ledger.statements import Part, locking, read_numbered, worded

_UNASKED: Final = {"owner_name", "first_seen", "last_released"}  # a moment takes long to read
_KNOWN: Final = Part(
    KeyProtectorRecord,
    "known",
    *(each.attname for each in KeyProtectorRecord._meta.concrete_fields if each.attname not in _UNASKED),
)
_PAIR: Final = Part(
    GuardianPair,
    "pair",
    *("id", "number", "signing_id", "encryption_id", "fingerprint", "state", "disabled_at"),
)
_SIGNING: Final = Part(ServiceKey, "signing", "id", "purpose", "public", "sealed")
_ENCRYPTION: Final = Part(ServiceKey, "encryption", "id", "purpose", "public", "sealed")
_SELECT: Final = worded(
    """
SELECT numbered.number, :known, :pair, :signing, :encryption FROM numbered
LEFT JOIN (
  SELECT * FROM kps_keyprotectorrecord AS held WHERE held.owner_fingerprint = %s AND held.protector_id = %s{locked}
) AS known ON known.id > 0
LEFT JOIN kps_guardianpair AS pair ON pair.number > 0
LEFT JOIN kps_servicekey AS signing ON signing.id = pair.signing_id
LEFT JOIN kps_servicekey AS encryption ON encryption.id = pair.encryption_id
ORDER BY pair.number DESC
""",
    known=_KNOWN,
    pair=_PAIR,
    signing=_SIGNING,
    encryption=_ENCRYPTION,
)


@dataclass(frozen=True, slots=True)
class Remembered:
    """`known` is None where nothing is remembered of the protector, or none verified. An unused `number` is a gap."""

    number: int
    known: KeyProtectorRecord | None
    ours: OurPairs


def remembered(chain: VerifiedChain | None) -> Remembered:
    """Return what this fabric knows when it is asked for a key of this chain's protector."""
    asked = (None, None) if chain is None else (chain.statement.owner.fingerprint, chain.statement.id)
    rows = read_numbered(_SELECT.format(locked=locking("held")), asked, number_of=KeyRelease)
    found = [(int(next(values)), _KNOWN.read(values), _pair(values)) for values in rows]
    number, known, _ = found[0]
    return Remembered(number, known, OurPairs(tuple(pair for *_, pair in found if pair is not None)))


def _pair(values: Iterator[Any]) -> GuardianPair | None:
    pair, signing, encryption = _PAIR.read(values), _SIGNING.read(values), _ENCRYPTION.read(values)
    if pair is not None and signing is not None and encryption is not None:
        pair.signing, pair.encryption = signing, encryption
    return pair
