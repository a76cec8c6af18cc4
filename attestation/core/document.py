"""A policy version as it is written down, before its baselines and policies are looked up.

Documents are JSON objects that never change once a version has them. What is not named is not required and not
accepted; what cannot be read is refused whole.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from attestation.core.check import Parameters
from attestation.core.checks import BASELINE, CHECKS, DEFAULT
from attestation.core.policy import PolicyException
from attestation.errors import ParseError

MOST: Final = 500
_LONGEST_TEXT: Final = 2000
_PCRS: Final = frozenset(range(24))
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class BaselineEntry:
    """A baseline of the policy, and the time in which it counts."""

    id: str
    accepted_from: datetime | None = None
    accepted_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class PolicyDocument:
    """What one version of a group's policy asks. `runtime` and `code_policies` are ids."""

    baselines: tuple[BaselineEntry, ...] = ()
    required: frozenset[str] = DEFAULT
    parameters: Parameters = field(default_factory=Parameters)
    exceptions: tuple[PolicyException, ...] = ()
    runtime: str = ""
    code_policies: tuple[str, ...] = ()


NOTHING: Final = PolicyDocument()


def to_json(document: PolicyDocument) -> dict[str, Any]:
    """Return a document as JSON that `parse_document` reads back as the same document."""
    return {
        "baselines": [
            {"id": each.id, "from": _moment(each.accepted_from), "until": _moment(each.accepted_until)}
            for each in document.baselines
        ],
        "required": sorted(document.required),
        "parameters": {
            "firmware_versions": list(document.parameters.firmware_versions),
            "least_dbx_entries": document.parameters.least_dbx_entries,
            "dump_keys": list(document.parameters.dump_keys),
        },
        "exceptions": [
            {
                "check": each.check,
                "until": _moment(each.until),
                "owner": each.owner,
                "reason": each.reason,
                "hosts": sorted(each.hosts),
                "pcrs": sorted(each.pcrs),
                "accepts_fail": each.accepts_fail,
            }
            for each in document.exceptions
        ],
        "runtime": document.runtime,
        "code_policies": list(document.code_policies),
    }


def parse_document(stored: Mapping[str, Any]) -> PolicyDocument:
    """Read a document, or raise ParseError with the member that is wrong; members that nobody knows are refused."""
    _only(stored, "policy", {"baselines", "required", "parameters", "exceptions", "runtime", "code_policies"})
    required = frozenset(_each(stored, "required", _text))
    if not required <= CHECKS.keys():
        raise ParseError(
            f"The policy requires checks that nobody knows: {', '.join(sorted(required - CHECKS.keys()))}."
        )
    return PolicyDocument(
        baselines=_each(stored, "baselines", _baseline),
        required=required,
        parameters=_parameters(_object(stored.get("parameters", {}), "parameters")),
        exceptions=_each(stored, "exceptions", _exception),
        runtime=_text(stored.get("runtime", "")),
        code_policies=_each(stored, "code_policies", _text),
    )


def _baseline(value: Any) -> BaselineEntry:
    entry = _object(value, "baseline")
    _only(entry, "baseline", {"id", "from", "until"})
    begun, ends = _parsed_moment(entry.get("from")), _parsed_moment(entry.get("until"))
    if begun is not None and ends is not None and ends <= begun:
        raise ParseError("A baseline is accepted until a moment that is not after the one from which it is accepted.")
    return BaselineEntry(_filled(entry.get("id"), "id"), begun, ends)


def _parameters(value: Mapping[str, Any]) -> Parameters:
    _only(value, "parameters", {"firmware_versions", "least_dbx_entries", "dump_keys"})
    least = value.get("least_dbx_entries", 0)
    keys = _each(value, "dump_keys", _text)
    if not isinstance(least, int) or isinstance(least, bool) or not 0 <= least <= 100_000:
        raise ParseError("least_dbx_entries is not a number from 0 to 100000.")
    if any(len(key) != 64 or key.strip("0123456789abcdef") for key in keys):
        raise ParseError("A dump key is not a SHA-256 in lower-case hexadecimal.")
    return Parameters(_each(value, "firmware_versions", _text), least, keys)


def _exception(value: Any) -> PolicyException:
    entry = _object(value, "exception")
    _only(entry, "exception", {"check", "until", "owner", "reason", "hosts", "pcrs", "accepts_fail"})
    check, until = _filled(entry.get("check"), "check"), _parsed_moment(entry.get("until"))
    pcrs = entry.get("pcrs", [])
    if check not in CHECKS and check != BASELINE:
        raise ParseError(f"There is no check {check[:60]!r} to make an exception from.")
    if until is None:
        raise ParseError("An exception has to end: give it a moment until which it holds.")
    if (
        not isinstance(pcrs, list)
        or not _PCRS.issuperset(each for each in pcrs if isinstance(each, int))
        or not all(isinstance(each, int) for each in pcrs)
    ):
        raise ParseError("The PCRs of an exception are not a list of numbers from 0 to 23.")
    if check == BASELINE and not pcrs:
        raise ParseError("An exception from the baseline names the PCRs that it is about.")
    return PolicyException(
        check=check,
        until=until,
        owner=_filled(entry.get("owner"), "owner"),
        reason=_filled(entry.get("reason"), "reason"),
        hosts=frozenset(_each(entry, "hosts", _text)),
        pcrs=frozenset(pcrs),
        accepts_fail=entry.get("accepts_fail") is True,
    )


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()


def _parsed_moment(value: Any) -> datetime | None:
    if value is None or value == "":
        return None
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ParseError("A moment is not in ISO 8601 form.") from None
    if moment.tzinfo is None:
        raise ParseError("A moment names no time zone.")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ParseError("A moment is outside the calendar.") from None


def _each(within: Mapping[str, Any], name: str, read: Callable[[Any], Item]) -> tuple[Item, ...]:
    values = within.get(name, [])
    if not isinstance(values, list) or len(values) > MOST:
        raise ParseError(f"{name} is not a list of at most {MOST} members.")
    return tuple(read(value) for value in values)


def _object(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ParseError(f"{name} is not an object.")
    return value


def _only(value: Mapping[str, Any], name: str, known: set[str]) -> None:
    unknown = set(value) - known
    if unknown:
        raise ParseError(f"The {name} has members that nobody knows: {', '.join(sorted(map(str, unknown)))[:100]}.")


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT or "\0" in value:
        raise ParseError(f"A text is no text, or longer than {_LONGEST_TEXT} letters.")
    return value


def _filled(value: Any, name: str) -> str:
    text = _text(value if value is not None else "")
    if not text.strip():
        raise ParseError(f"{name} is empty.")
    return text


# --- in words ----------------------------------------------------------------------------------------------------


def changes_in_words(before: PolicyDocument, after: PolicyDocument, name: Callable[[str], str]) -> tuple[str, ...]:
    """Return what one document asks otherwise than another, a sentence each. `name` turns an id into a name."""
    return tuple(_changes(before, after, name))


def _changes(before: PolicyDocument, after: PolicyDocument, name: Callable[[str], str]) -> Iterator[str]:
    old, new = ({each.id: each for each in document.baselines} for document in (before, after))
    yield from (f"Baseline {name(each)} is accepted{_window(new[each])}." for each in new if each not in old)
    yield from (f"Baseline {name(each)} is not accepted any more." for each in old if each not in new)
    yield from (
        f"Baseline {name(each)} is accepted{_window(new[each]) or ' without a limit in time'}."
        for each in new
        if each in old and old[each] != new[each]
    )
    yield from (f"Required: {CHECKS[code].title}." for code in sorted(after.required - before.required))
    yield from (f"Not required any more: {CHECKS[code].title}." for code in sorted(before.required - after.required))
    yield from _parameter_changes(before.parameters, after.parameters)
    yield from (
        f"Exception added: {_exception_words(each)}" for each in after.exceptions if each not in before.exceptions
    )
    yield from (
        f"Exception ended: {_exception_words(each)}" for each in before.exceptions if each not in after.exceptions
    )
    if before.runtime != after.runtime:
        yield f"Runtime policy: {name(after.runtime) if after.runtime else 'none any more'}."
    added = [each for each in after.code_policies if each not in before.code_policies]
    gone = [each for each in before.code_policies if each not in after.code_policies]
    yield from (f"Code integrity policy {name(each)} is registered." for each in added)
    yield from (f"Code integrity policy {name(each)} is not registered any more." for each in gone)


def _parameter_changes(before: Parameters, after: Parameters) -> Iterator[str]:
    yield from _list_changes("Firmware version", before.firmware_versions, after.firmware_versions)
    if before.least_dbx_entries != after.least_dbx_entries:
        yield f"Least entries of the revocation list: {after.least_dbx_entries} instead of {before.least_dbx_entries}."
    yield from _list_changes("Dump key", before.dump_keys, after.dump_keys)


def _list_changes(what: str, before: Sequence[str], after: Sequence[str]) -> Iterator[str]:
    yield from (f"{what} {each} is accepted." for each in after if each not in before)
    yield from (f"{what} {each} is not accepted any more." for each in before if each not in after)


def _window(entry: BaselineEntry) -> str:
    begun = "" if entry.accepted_from is None else f" from {_said(entry.accepted_from)}"
    return begun + ("" if entry.accepted_until is None else f" until {_said(entry.accepted_until)}")


def _said(moment: datetime) -> str:
    """Say a moment in UTC: one sentence for everybody who reads it, wherever whoever wrote it was."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _exception_words(each: PolicyException) -> str:
    title = CHECKS[each.check].title if each.check in CHECKS else "The baseline matches"
    scope = f"{len(each.hosts)} {'host' if len(each.hosts) == 1 else 'hosts'}" if each.hosts else "the whole group"
    pcrs = f", PCRs {', '.join(map(str, sorted(each.pcrs)))}" if each.pcrs else ""
    what = "failing or unproven" if each.accepts_fail else "unproven"
    return f"“{title}”{pcrs} may be {what} on {scope} until {_said(each.until)}; {each.owner} answers for it."
