"""What `guardhouse host diagnose` prints: lines for people, fields for programs."""

from collections.abc import Iterable, Iterator
from shutil import get_terminal_size
from textwrap import wrap
from typing import Any, Final

from attestation.core.finding import Finding
from attestation.core.words import printable
from guardedhost.diagnosis.checks import Diagnosis, Line
from guardedhost.diagnosis.outcome import Result
from guardedhost.diagnosis.trace import Trace

_GAP: Final = "  "
_NARROWEST: Final = 30
_RESULT: Final = len(Result.SKIPPED)


def fields(trace: Trace, diagnosis: Diagnosis) -> dict[str, Any]:
    """The diagnosis as JSON; docs/diagnose.md describes it."""
    config = trace.folder.config
    return {
        "status": diagnosis.status,
        "failures": list(diagnosis.failures),
        "at": trace.at.isoformat(),
        "name": config.name if config else "",
        "server": config.server if config else "",
        "attester": config.attester if config else "",
        "agent": trace.agent,
        "checks": [_line_fields(line) for line in diagnosis.lines],
    }


def table(trace: Trace, diagnosis: Diagnosis) -> str:
    """One line for each check; what fails goes on below with why and what to do. As wide as the terminal."""
    width = max(len(line.check) for line in diagnosis.lines)
    indent = width + _RESULT + 2 * len(_GAP)
    terminal = get_terminal_size((0, 0)).columns
    room = max(terminal - indent, _NARROWEST) if terminal else 0
    rows = []
    for line in diagnosis.lines:
        head = f"{line.check:<{width}}{_GAP}{line.outcome.result:<{_RESULT}}{_GAP}"
        for number, text in enumerate(_folded(_sentences(line), room)):
            rows.append((head if number == 0 else " " * indent) + text)
    return "\n".join((*rows, "", *_folded([_summary(trace, diagnosis)], terminal)))


def _line_fields(line: Line) -> dict[str, Any]:
    outcome = line.outcome
    return {
        "check": line.check,
        "result": outcome.result.value,
        "what": outcome.what,
        "why": outcome.why,
        "remedy": outcome.remedy,
        "findings": [_finding_fields(finding) for finding in outcome.findings],
    }


def _finding_fields(finding: Finding) -> dict[str, Any]:
    names = ("code", "substatus", "verdict", "what", "why", "remedy")
    return {**{name: getattr(finding, name) for name in names}, "pcrs": list(finding.pcrs)}


def _sentences(line: Line) -> Iterator[str]:
    outcome = line.outcome
    yield outcome.what
    if outcome.why:
        yield f"Why: {outcome.why}"
    if outcome.remedy:
        yield f"Do: {outcome.remedy}"
    for finding in outcome.findings:
        label = f"{finding.code}, {finding.substatus}" if finding.substatus else finding.code
        yield f"- {finding.what} ({label})"
        yield from (f"  {word}: {text}" for word, text in (("Why", finding.why), ("Do", finding.remedy)) if text)


def _summary(trace: Trace, diagnosis: Diagnosis) -> str:
    words = f"What fails: {', '.join(diagnosis.failures)}" if diagnosis.failures else "Nothing fails"
    return f"{diagnosis.status}. {words}. Looked at {trace.at:%Y-%m-%d %H:%M:%S} UTC."


def _folded(sentences: Iterable[str], room: int) -> Iterator[str]:
    """Sentences made printable, since some are the portal's or a bundle's, and wrapped where there is a terminal."""
    for sentence in sentences:
        text = printable(sentence)
        indent = " " * (len(text) - len(text.lstrip()))
        yield from wrap(text, room, subsequent_indent=indent, break_on_hyphens=False) if room else [text]
