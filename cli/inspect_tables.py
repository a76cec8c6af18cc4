"""What `guardhouse inspect` prints: the same reading as fields for JSON, and as a table for people.

Tables fit the terminal, whose width COLUMNS may say; what goes into a file or another program is as wide as it is.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from shutil import get_terminal_size
from textwrap import wrap
from typing import Any

from attestation.core.boot import FactValue
from attestation.core.inspection import LogReport
from attestation.core.oddities import Oddity
from attestation.core.words import describe, printable

_SHOWN = 128  # a SHA-512 digest is whole
_SHOWN_DIGEST = 16
_GAP = "  "
_NARROWEST = 10


def log_fields(report: LogReport) -> dict[str, Any]:
    """The event log as JSON. Events are numbered as they stand in the file, its header included."""
    return {
        "format": report.log.format,
        "events": report.records,
        "startup_locality": report.log.startup_locality,
        "banks": bank_fields(report.banks),
        "facts": {name: None if fact is None else fact.value for name, fact in report.facts.items()},
        "warnings": [warning_fields(oddity, headers=report.log.headers) for oddity in report.oddities],
    }


def bank_fields(banks: Mapping[str, Mapping[int, bytes]]) -> dict[str, dict[str, str]]:
    return {bank: {str(pcr): value.hex() for pcr, value in values.items()} for bank, values in banks.items()}


def warning_fields(oddity: Oddity, *, headers: int) -> dict[str, Any]:
    return warning(oddity.code, oddity.message, event=None if oddity.event is None else oddity.event + headers)


def warning(code: str, message: str, *, event: int | None = None) -> dict[str, Any]:
    return {"code": code, "message": message, "event": event}


def log_table(report: LogReport) -> str:
    log, headers = report.log, report.log.headers
    parts = [f"{log.format}, {report.records} events, startup locality {log.startup_locality}"]
    events = [(event, describe(event)) for event in report.events]
    parts.append(
        _table(
            ("event", "PCR", f"digest ({report.bank})", "proved", "what", "text"),
            (
                (
                    str(event.index + headers),
                    str(event.pcr),
                    event.digest.hex()[:_SHOWN_DIGEST],
                    "yes" if words.proved else "no",
                    words.name,
                    words.text,
                )
                for event, words in events
            ),
        )
    )
    for bank, values in report.banks.items():
        parts.append(_table(("PCR", bank), ((str(pcr), value.hex()) for pcr, value in values.items())))
    proved = {name: fact for name, fact in report.facts.items() if fact is not None}
    rows = ((name, _words(fact.value), str(fact.pcr), str(fact.event + headers)) for name, fact in proved.items())
    parts.append(_table(("fact", "value", "PCR", "event"), rows))
    parts.append(_lines("Unproven: " + ", ".join(name for name in report.facts if name not in proved)))
    oddities = (warning_fields(oddity, headers=headers) for oddity in report.oddities)
    parts.append(warnings_table(oddities) or "No warnings.")
    return "\n\n".join(filter(None, parts))


def warnings_table(warnings: Iterable[Mapping[str, Any]]) -> str:
    rows = [(each["code"], "" if each["event"] is None else str(each["event"]), each["message"]) for each in warnings]
    return _table(("warning", "event", "message"), rows) if rows else ""


def fields_table(fields: Mapping[str, Any]) -> str:
    """A reading that is mostly names and values; banks and warnings have tables of their own."""
    plain = {name: value for name, value in fields.items() if name not in ("banks", "warnings")}
    parts = [_table(("what", "value"), ((name, _words(value)) for name, value in plain.items()))]
    for bank, values in fields.get("banks", {}).items():
        parts.append(_table(("PCR", bank), values.items()))
    parts.append(warnings_table(fields.get("warnings", ())))
    return "\n\n".join(filter(None, parts))


def _words(value: FactValue | object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_words(each)}" for key, each in value.items()) or "none"
    if isinstance(value, list | tuple):
        return "; ".join(map(_words, value)) or "none"
    return "unproven" if value is None else str(value)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as their words, or as the terminal lets them be; what came from the file is made printable."""
    cells = [heads, *([_cell(word) for word in row] for row in rows)]
    if len(cells) == 1:
        return ""
    widths = _fitted([max(len(row[at]) for row in cells) for at in range(len(heads))], _terminal())
    head, *body = (line for row in cells for line in _row(row, widths))
    return "\n".join([head, _GAP.join("-" * width for width in widths), *body])


def _terminal() -> int:
    """How wide the terminal is; 0 when there is none."""
    return get_terminal_size((0, 0)).columns


def _fitted(widths: list[int], terminal: int) -> list[int]:
    """Narrow the widest columns until a row fits."""
    room = terminal - len(_GAP) * (len(widths) - 1)
    most = max(widths)
    while terminal and sum(widths) > room and most > _NARROWEST:
        most -= 1
        widths = [min(width, most) for width in widths]
    return widths


def _row(row: Sequence[str], widths: Sequence[int]) -> Iterable[str]:
    """One row; words that their column has no room for go on below, so that nothing is lost."""
    columns = (
        [word] if len(word) <= width else wrap(word, width, break_on_hyphens=False)
        for word, width in zip(row, widths, strict=True)
    )
    for words in zip_longest(*columns, fillvalue=""):
        yield _GAP.join(word.ljust(width) for word, width in zip(words, widths, strict=True)).rstrip()


def _lines(text: str) -> str:
    terminal = _terminal()
    return "\n".join(wrap(text, terminal, break_on_hyphens=False)) if terminal else text


def _cell(word: str) -> str:
    shown = printable(word)
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…"
