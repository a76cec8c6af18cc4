"""Reads a firmware event log into records that nothing vouches for yet.

TCG PC Client Platform Firmware Profile (PFP), clauses "Event Logging" and "Log Integrity and Encapsulation": the
crypto-agile form (TCG_PCR_EVENT2 behind a "Spec ID Event03" header) and the older SHA-1 form (TCG_PCR_EVENT). Work is
linear in the input, every length is checked before it is used, and a refusal names the byte it stopped at.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from struct import Struct
from typing import Final, Literal

from attestation.errors import ParseError, TooLarge

EVENT_LOG_LIMIT: Final = 1 << 20

EV_NO_ACTION: Final = 0x3
EV_EFI_HCRTM_EVENT: Final = 0x80000010

# TCG Algorithm Registry: identifier -> our name of the bank, size of its digests.
ALGORITHMS: Final[Mapping[int, tuple[str, int]]] = {
    0x0004: ("sha1", 20),
    0x000B: ("sha256", 32),
    0x000C: ("sha384", 48),
    0x000D: ("sha512", 64),
    0x0012: ("sm3_256", 32),
    0x0027: ("sha3_256", 32),
    0x0028: ("sha3_384", 48),
    0x0029: ("sha3_512", 64),
}

_PCR_COUNT: Final = 24
_NO_PCR: Final = 0xFFFFFFFF
_MOST_ALGORITHMS: Final = 16
_LARGEST_DIGEST: Final = 128
_SPEC_ID: Final = b"Spec ID Event"
_SPEC_ID_AGILE: Final = b"Spec ID Event03\0"
_STARTUP_LOCALITY: Final = b"StartupLocality\0"
_H_CRTM_LOCALITY: Final = 4

_SHA1_RECORD: Final = Struct("<II20sI")
_AGILE_HEAD: Final = Struct("<III")
_SPEC_ID_HEAD: Final = Struct("<16sIBBBBI")
_ALGORITHM: Final = Struct("<HH")
_U16: Final = Struct("<H")
_U32: Final = Struct("<I")


@dataclass(frozen=True, slots=True)
class UnverifiedEvent:
    """One record as it was sent. No digest covers the type, and only some cover the data."""

    pcr: int
    untrusted_type: int
    digests: Mapping[str, bytes]
    untrusted_data: bytes


@dataclass(frozen=True, slots=True)
class EventLog:
    """The records behind the Spec ID header, and where PCR 0 starts; `headers` says whether there was one (0 or 1)."""

    format: Literal["crypto-agile", "sha1"]
    banks: tuple[str, ...]
    events: tuple[UnverifiedEvent, ...]
    startup_locality: int
    headers: int = 0


def parse_event_log(data: bytes) -> EventLog:
    """Return the log's records, or raise ParseError at the first byte that cannot be right.

    The form is decided by the first record's signature *and* length (PFP, TCG_EfiSpecIDEvent): a log may also begin
    with an EV_NO_ACTION record that is no Spec ID at all.
    """
    if len(data) > EVENT_LOG_LIMIT:
        raise TooLarge(f"The event log has {len(data)} bytes; the limit is reached at byte {EVENT_LOG_LIMIT}.")
    first, offset = _sha1_record(data, 0)
    if first.untrusted_type == EV_NO_ACTION and first.untrusted_data.startswith(_SPEC_ID_AGILE):
        _check_no_action(first, 0)
        header, offset = _with_vendor_info(data, first, offset)
        algorithms = _parse_spec_id(header, _SHA1_RECORD.size)
        events, locality = _collect(_agile_records(data, offset, algorithms))
        return EventLog("crypto-agile", tuple(bank for bank, _ in algorithms.values()), events, locality, 1)
    headers = int(first.untrusted_data.startswith(_SPEC_ID))
    if headers:
        _check_no_action(first, 0)
    events, locality = _collect(_sha1_records(data, offset if headers else 0))
    return EventLog("sha1", ("sha1",), events, locality, headers)


def _collect(records: Iterator[tuple[int, UnverifiedEvent]]) -> tuple[tuple[UnverifiedEvent, ...], int]:
    """Keep the records in order and settle the startup locality (PFP, "EV_NO_ACTION Event Types").

    A locality is believed only from a record that the firmware could have written: once, in PCR 0, before PCR 0 was
    extended. Anywhere else it is a forgery that would let a log choose the value PCR 0 starts from.
    """
    events: list[UnverifiedEvent] = []
    locality: int | None = None
    extended = False
    for offset, event in records:
        events.append(event)
        if event.untrusted_type == EV_NO_ACTION:
            _check_no_action(event, offset)
            if event.untrusted_data.startswith(_SPEC_ID):
                raise ParseError(f"A second Spec ID record stands at byte {offset} of the event log.")
            if event.untrusted_data.startswith(_STARTUP_LOCALITY):
                locality = _parse_locality(event, offset, settled=extended or locality is not None)
        elif event.pcr == 0:
            if event.untrusted_type == EV_EFI_HCRTM_EVENT and not extended and locality is None:
                locality = _H_CRTM_LOCALITY
            extended = True
    return tuple(events), locality or 0


def _check_no_action(event: UnverifiedEvent, offset: int) -> None:
    """EV_NO_ACTION is never extended, so its digests are zero (PFP): another value is a disguised measurement."""
    if event.pcr != _NO_PCR and any(any(digest) for digest in event.digests.values()):
        raise ParseError(f"The EV_NO_ACTION record at byte {offset} of the event log carries a digest.")


def _parse_locality(event: UnverifiedEvent, offset: int, *, settled: bool) -> int:
    if settled:
        raise ParseError(f"The startup locality at byte {offset} of the event log comes too late.")
    value = event.untrusted_data[len(_STARTUP_LOCALITY) :]
    if event.pcr != 0 or len(value) != 1 or value[0] > _H_CRTM_LOCALITY:
        raise ParseError(f"The startup locality at byte {offset} of the event log is malformed.")
    return value[0]


def _with_vendor_info(data: bytes, header: UnverifiedEvent, offset: int) -> tuple[UnverifiedEvent, int]:
    """Some firmware leaves its own vendor information out of the header's size; then it stands right behind it."""
    body = header.untrusted_data
    if len(body) > _SPEC_ID_HEAD.size:
        counted = _SPEC_ID_HEAD.size + _SPEC_ID_HEAD.unpack_from(body)[-1] * _ALGORITHM.size
        if len(body) == counted + 1 and body[counted] <= len(data) - offset:
            end = offset + body[counted]
            return replace(header, untrusted_data=body + data[offset:end]), end
    return header, offset


def _parse_spec_id(header: UnverifiedEvent, offset: int) -> dict[int, tuple[str, int]]:
    """The algorithms of TCG_EfiSpecIDEvent, in their order. They, not the records, say how long a digest is."""
    body = header.untrusted_data
    if len(body) < _SPEC_ID_HEAD.size:
        raise ParseError(f"The Spec ID header at byte {offset} of the event log is malformed.")
    count = _SPEC_ID_HEAD.unpack_from(body)[-1]
    vendor = _SPEC_ID_HEAD.size + count * _ALGORITHM.size
    if not 1 <= count <= _MOST_ALGORITHMS or len(body) <= vendor or len(body) != vendor + 1 + body[vendor]:
        raise ParseError(f"The Spec ID header at byte {offset} of the event log declares {count} algorithms.")
    algorithms: dict[int, tuple[str, int]] = {}
    for identifier, size in _ALGORITHM.iter_unpack(body[_SPEC_ID_HEAD.size : vendor]):
        bank, known = ALGORITHMS.get(identifier, (f"alg_{identifier:04x}", size))
        if identifier in algorithms or size != known or not 1 <= size <= _LARGEST_DIGEST:
            raise ParseError(f"The Spec ID header at byte {offset} of the event log is wrong about {bank}.")
        algorithms[identifier] = (bank, size)
    return algorithms


def _agile_records(
    data: bytes, offset: int, algorithms: Mapping[int, tuple[str, int]]
) -> Iterator[tuple[int, UnverifiedEvent]]:
    """TCG_PCR_EVENT2 records. One unpack reads a record with every digest in the header's order."""
    banks = tuple(bank for bank, _ in algorithms.values())
    expected = (len(banks), tuple(algorithms))
    whole = Struct("<III" + "".join(f"H{size}s" for _, size in algorithms.values()) + "I")
    end = len(data)
    while offset < end:
        start = offset
        fields = whole.unpack_from(data, offset) if offset + whole.size <= end else (_NO_PCR, _NO_PCR, 0, 0)
        if (fields[2], fields[3:-1:2]) == expected:
            pcr, kind, size = fields[0], fields[1], fields[-1]
            digests = dict(zip(banks, fields[4:-1:2], strict=True))
            offset += whole.size
        elif _is_padding(data, offset, _AGILE_HEAD.size):
            return
        else:
            pcr, kind, digests, size, offset = _uncommon_head(data, offset, algorithms)
        if size > end - offset:
            raise ParseError(
                f"The record at byte {start} of the event log claims {size} bytes; {end - offset} are left."
            )
        if pcr >= _PCR_COUNT:
            _check_pcr(pcr, kind, start)
        yield start, UnverifiedEvent(pcr, kind, digests, data[offset : offset + size])
        offset += size


def _uncommon_head(
    data: bytes, offset: int, algorithms: Mapping[int, tuple[str, int]]
) -> tuple[int, int, dict[str, bytes], int, int]:
    """A record head whose digests are fewer, other, or in another order than the Spec ID header declares.

    A digest of an algorithm that the header leaves out is read when the TCG gives it a size; no declared bank gains
    anything by it, so a record with nothing else replays in none.
    """
    start, end = offset, len(data)
    if end - offset < _AGILE_HEAD.size:
        raise ParseError(f"The event log ends inside the record at byte {start}.")
    pcr, kind, count = _AGILE_HEAD.unpack_from(data, offset)
    known = {**ALGORITHMS, **algorithms}
    if not 1 <= count <= _MOST_ALGORITHMS:
        raise ParseError(f"The record at byte {start} of the event log claims {count} digests.")
    offset += _AGILE_HEAD.size
    digests: dict[str, bytes] = {}
    for _ in range(count):
        identifier = _U16.unpack_from(data, offset)[0] if end - offset >= _U16.size else None
        bank, size = known.get(identifier, ("", 0)) if identifier is not None else ("", 0)
        if not bank or bank in digests or size > end - offset - _U16.size:
            raise ParseError(f"The record at byte {start} of the event log has a bad digest at byte {offset}.")
        offset += _U16.size
        digests[bank] = data[offset : offset + size]
        offset += size
    if end - offset < _U32.size:
        raise ParseError(f"The event log ends inside the record at byte {start}.")
    return pcr, kind, digests, _U32.unpack_from(data, offset)[0], offset + _U32.size


def _sha1_records(data: bytes, offset: int) -> Iterator[tuple[int, UnverifiedEvent]]:
    while offset < len(data):
        if _is_padding(data, offset, _SHA1_RECORD.size):
            return
        start = offset
        event, offset = _sha1_record(data, offset)
        yield start, event


def _sha1_record(data: bytes, offset: int) -> tuple[UnverifiedEvent, int]:
    if len(data) - offset < _SHA1_RECORD.size:
        raise ParseError(f"The event log ends inside the record at byte {offset}.")
    pcr, kind, digest, size = _SHA1_RECORD.unpack_from(data, offset)
    body = offset + _SHA1_RECORD.size
    if size > len(data) - body:
        raise ParseError(
            f"The record at byte {offset} of the event log claims {size} bytes; {len(data) - body} are left."
        )
    _check_pcr(pcr, kind, offset)
    return UnverifiedEvent(pcr, kind, {"sha1": digest}, data[body : body + size]), body + size


def _check_pcr(pcr: int, kind: int, offset: int) -> None:
    """Windows writes notes that no PCR covers as EV_NO_ACTION in PCR 0xFFFFFFFF; nothing else may leave 0 to 23."""
    if pcr >= _PCR_COUNT and not (pcr == _NO_PCR and kind == EV_NO_ACTION):
        raise ParseError(f"The record at byte {offset} of the event log names PCR {pcr}.")


def _is_padding(data: bytes, offset: int, head: int) -> bool:
    """Firmware hands over its whole log area, filled up with 0x00 or 0xFF: true when only that is left.

    The rest is looked at only when a record's head is already blank, which no record's is; so the work stays linear.
    """
    for blank in (b"\0", b"\xff"):
        if not data[offset : offset + head].strip(blank):
            if not data[offset:].strip(blank):
                return True
            raise ParseError(f"Something follows the padding at byte {offset} of the event log.")
    return False
