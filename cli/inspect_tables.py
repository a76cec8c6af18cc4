"""What `guardhouse inspect` prints: the same reading as fields for JSON, and as a table for people."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attestation.core.boot import FactValue
from attestation.core.inspection import LogReport
from attestation.core.oddities import Oddity
from attestation.core.words import describe, printable

_SHOWN = 100
_SHOWN_DIGEST = 16


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
    parts.append("Unproven: " + ", ".join(name for name in report.facts if name not in proved))
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
    """Columns as wide as their words; what came from the file is made printable, and long words are cut."""
    cells = [heads, *([_cell(word) for word in row] for row in rows)]
    if len(cells) == 1:
        return ""
    widths = [max(len(row[at]) for row in cells) for at in range(len(heads))]
    lines = ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _cell(word: str) -> str:
    shown = printable(word)
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…"
