"""One boot's proved events, sorted by PCR, with what several questions ask about worked out once."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from attestation.core.replay import Hash, VerifiedEvent
from attestation.core.uefi import Variable, uefi_variable

FactValue = bool | int | str | tuple[str, ...] | tuple[int, ...] | Mapping[str, str]

HANDOVERS: Final = (bytes(4), b"\xff" * 4)
"""What the firmware measures into PCRs 0 to 7 when it hands over (PFP, EV_SEPARATOR)."""

# TDX: which measurement register of a confidential guest's log (CCEL) stands for a TPM's PCR; 1 is RTMR 0.
_REGISTERS: Final = {1: 1, 7: 1, **dict.fromkeys(range(2, 7), 2), **dict.fromkeys(range(8, 16), 3)}


@dataclass(frozen=True, slots=True)
class Fact:
    """An answer, and the PCR and the event (its index in the log) that it leans on.

    In a confidential guest's log, `pcr` is the number of the measurement register.
    """

    value: FactValue
    pcr: int
    event: int


class Boot:
    """The events by PCR, and the part of PCR 7 that only the firmware can have written.

    Without a separator nobody knows where the firmware's part of PCR 7 ends; then nothing of it is proved.
    """

    def __init__(self, events: Sequence[VerifiedEvent], *, bank: str, confidential: bool = False) -> None:
        self.bank = bank
        self.confidential = confidential
        self.events = events
        self._new = cast("Callable[[bytes], Hash]", getattr(hashlib, bank))
        self._pcrs: dict[int, list[VerifiedEvent]] = {}
        for event in events:
            self._pcrs.setdefault(event.pcr, []).append(event)
        handovers = {self.hash(content) for content in HANDOVERS}
        measured = self.measured(7)
        at = next((at for at, event in enumerate(measured) if event.digest in handovers), None)
        self.handover = None if at is None else measured[at]
        self._settings = {} if at is None else _variables(measured[:at])
        self.accepted: Sequence[VerifiedEvent] = () if at is None else measured[at + 1 :]
        self.authorities = [
            (variable, event)
            for event in self.accepted
            if event.data is not None and (variable := uefi_variable(event.data)) is not None
        ]

    def hash(self, content: bytes) -> bytes:
        return self._new(content).digest()

    def measured(self, pcr: int) -> Sequence[VerifiedEvent]:
        """What was measured into the PCR; in a confidential guest's log, into the register that stands for it."""
        return self._pcrs.get(_REGISTERS.get(pcr, -1) if self.confidential else pcr, ())

    def setting(self, name: str, guid: object) -> tuple[Variable, VerifiedEvent] | None:
        """Return a variable as the firmware measured it first; db comes again for each driver that it accepted."""
        return self._settings.get((name, guid))

    def authority(self, name: str, guid: object) -> tuple[Variable, VerifiedEvent] | None:
        """Return a variable that was measured into PCR 7 after the firmware handed over, as it was measured first."""
        return next((each for each in self.authorities if (each[0].name, each[0].guid) == (name, guid)), None)


def _variables(events: Sequence[VerifiedEvent]) -> dict[tuple[str, object], tuple[Variable, VerifiedEvent]]:
    found: dict[tuple[str, object], tuple[Variable, VerifiedEvent]] = {}
    for event in events:
        variable = uefi_variable(event.data) if event.data is not None else None
        if variable is not None:
            found.setdefault((variable.name, variable.guid), (variable, event))
    return found
