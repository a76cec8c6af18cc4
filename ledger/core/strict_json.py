"""JSON as the log reads it: bounded, one meaning, whole numbers only."""

import json
import re
from typing import Any, NoReturn

from ledger.errors import ParseError

Json = dict[str, Any]


def read_json(data: str | bytes, *, limit: int) -> Json:
    """Return the JSON object in at most `limit` bytes: no repeated member, no fraction, no NaN."""
    if len(data) > limit:
        raise ParseError(f"A document is larger than {limit} bytes.")
    try:
        value = json.loads(
            data, object_pairs_hook=_without_repetition, parse_float=_no_number, parse_constant=_no_number
        )
    except (ValueError, RecursionError) as error:
        raise ParseError("A document is not JSON as it is used here.") from error
    if not isinstance(value, dict):
        raise ParseError("A document is not a JSON object.")
    return value


def members(value: object, names: set[str], *, what: str) -> Json:
    """Return `value` when it is an object with exactly these members."""
    if not isinstance(value, dict) or set(value) != names:
        raise ParseError(f"{what} does not have exactly the members {', '.join(sorted(names))}.")
    return value


def text(value: object, *, what: str, longest: int) -> str:
    if not isinstance(value, str) or len(value) > longest or not (value.isascii() or _has_utf8(value)):
        raise ParseError(f"{what} is not a text of at most {longest} letters.")
    return value


def _has_utf8(value: str) -> bool:
    """Say no to half a character, which JSON can escape and nothing else can write."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def whole_number(value: object, *, what: str, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise ParseError(f"{what} is not a whole number from 0 to {most}.")
    return value


def digest(value: object, *, or_none: bool = False) -> str:
    """Return a SHA-256 in lower-case hexadecimal; `or_none` lets "" stand for none."""
    if isinstance(value, str) and (re.fullmatch("[0-9a-f]{64}", value) or (or_none and value == "")):
        return value
    raise ParseError("Something is not a SHA-256 in hexadecimal.")


def array(value: object, *, what: str, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise ParseError(f"{what} is not a list of at most {most} members.")
    return value


def _without_repetition(pairs: list[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member is repeated")
    return found


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no whole number")
