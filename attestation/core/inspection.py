"""One boot log read as far as it goes, for people who have nothing but the log, and perhaps their TPM's PCR values."""

from collections.abc import Mapping
from dataclasses import dataclass

from attestation.core.boot import Fact
from attestation.core.comparison import Banks, compare
from attestation.core.eventlog import EventLog, parse_event_log
from attestation.core.facts import read_facts
from attestation.core.oddities import Oddity, find_oddities, is_cc_log
from attestation.core.replay import VerifiedEvent, events_behind, replay_banks

_STRENGTH = ("sha256", "sha384", "sha512", "sha3_256", "sha3_384", "sha3_512", "sha1")


@dataclass(frozen=True, slots=True)
class LogReport:
    """`events` and `facts` are read in `bank`, from the PCRs that match; without PCR values, as the log has it."""

    log: EventLog
    banks: Banks
    bank: str | None
    events: tuple[VerifiedEvent, ...]
    facts: Mapping[str, Fact | None]
    oddities: tuple[Oddity, ...]

    @property
    def records(self) -> int:
        return self.log.headers + len(self.log.events)


def inspect_log(data: bytes, *, measured: Banks | None) -> LogReport:
    """Read a boot log; facts lean only on PCRs that `measured` confirms, when there are such values."""
    log = parse_event_log(data)
    banks = replay_banks(log)
    proved = {
        bank: {pcr for pcr, value in values.items() if measured is None or measured.get(bank, {}).get(pcr) == value}
        for bank, values in banks.items()
        if bank in _STRENGTH
    }
    differences = () if measured is None else compare(log, banks, measured=measured)
    bank = max(proved, key=lambda each: (len(proved[each]), -_STRENGTH.index(each)), default=None)
    if bank is None:
        unreadable = Oddity("bank_unreadable", "No bank of the log can be checked here, so nothing in it is proved.")
        return LogReport(log, banks, None, (), read_facts((), bank="sha256"), (unreadable, *differences))
    events = events_behind(log, proved[bank], bank=bank)
    whole = events_behind(log, banks[bank], bank=bank)
    oddities = (*find_oddities(log, whole, bank=bank), *differences)
    facts = read_facts(events, bank=bank, confidential=is_cc_log(log))
    return LogReport(log, banks, bank, events, facts, oddities)
