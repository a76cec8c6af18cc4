"""What a check says: passed, failed or skipped, in sentences."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from attestation.core.finding import Finding
from guardedhost.diagnosis.trace import Trace

ANY_MODE: Final[frozenset[str]] = frozenset()


class Result(StrEnum):
    PASS = "pass"  # noqa: S105 (no password)
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Outcome:
    """`what` is what was seen, or why nothing was looked at; `findings` are the portal's own, with their remedies."""

    result: Result
    what: str
    why: str = ""
    remedy: str = ""
    findings: tuple[Finding, ...] = ()


def passed(what: str) -> Outcome:
    return Outcome(Result.PASS, what)


def failed(what: str, why: str, remedy: str, findings: tuple[Finding, ...] = ()) -> Outcome:
    return Outcome(Result.FAIL, what, why, remedy, findings)


def skipped(reason: str) -> Outcome:
    return Outcome(Result.SKIPPED, reason)


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the diagnosis. `modes` are the attestation modes that ask for it; none means every mode."""

    name: str
    judge: Callable[[Trace], Outcome]
    modes: frozenset[str] = ANY_MODE
