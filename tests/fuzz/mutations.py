"""Damage to good input, as an attacker does it and not as noise does: the tests and `make fuzz` draw from the same.

Everything depends on the `Random` that is given: hypothesis's, which shrinks what fails, or the fuzzer's, by its seed.
"""

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

from hypothesis import strategies as st

ODD_BYTES: Final = (b"", b"\0", b"\xff", b"\n", b"\0" * 32, b"\xff" * 32, b"\x30\x80", b"\0\0\1\0")
ODD_VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**64, 10**400, 0.5, [], {}, [[]], {"": {}}),
    *("", "\0", "a\0b", "\ud800", "..", "none", "ES256", "A" * 5000, "AA", "A" * 43, "1" * 5000, "٣", "é"),
)
_TIMES: Final = (1, 1, 1, 2, 3)
_WIDTHS: Final = (1, 2, 4, 8)


def damaged(good: bytes, *, others: Sequence[bytes], limit: int) -> st.SearchStrategy[bytes]:
    return st.randoms(use_true_random=False).map(lambda random: mutate(good, random, others=others, limit=limit))


def mutate(data: bytes, random: Random, *, others: Sequence[bytes], limit: int) -> bytes:
    """Return `data` with one to three kinds of damage, more often one, and no longer than `limit`.

    A JSON text gets other values more often than other bytes, so that what is behind its syntax is reached.
    """
    value = _parsed(data)
    if value is not None and random.random() < 0.8:
        for _ in range(random.choice(_TIMES)):
            value = _altered(value, random)
        return json.dumps(value).encode()[:limit]
    for _ in range(random.choice(_TIMES)):
        data = random.choice(_KINDS)(data, random, others)
    return data[:limit]


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _flip(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    if not data:
        return data
    at = random.randrange(len(data))
    return data[:at] + bytes((data[at] ^ (1 << random.randrange(8)),)) + data[at + 1 :]


def _replace(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    start, end = _range(data, random)
    return data[:start] + random.choice(ODD_BYTES) + data[end:]


def _drop(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    start, end = _range(data, random)
    return data[:start] + data[end:]


def _repeat(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    start, end = _range(data, random)
    return data[:start] + data[start:end] * random.choice((2, 3, 17, 300)) + data[end:]


def _truncate(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    return data[: random.randint(0, len(data))]


def _oversize(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    return data + random.choice(ODD_BYTES) * random.choice((1, 2, 100, 4000))


def _splice(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    other = random.choice(others) if others else data
    start, end = _range(other, random)
    at = random.randint(0, len(data))
    return data[:at] + other[start:end] + data[random.choice((at, min(at + end - start, len(data)))) :]


def _length(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """Tamper with a number that could be a length: one that points within the data, or to their very end."""
    width, order = random.choice(_WIDTHS), random.choice(("little", "big"))
    if len(data) < width:
        return data
    at = 0
    for _ in range(20):
        at = random.randint(0, len(data) - width)
        if 0 < int.from_bytes(data[at : at + width], order) <= len(data) - at - width:  # type: ignore[arg-type]
            break
    was, most = int.from_bytes(data[at : at + width], order), (1 << 8 * width) - 1  # type: ignore[arg-type]
    left = len(data) - at - width
    now = random.choice((0, 1, was - 1, was + 1, 2 * was, left, left + 1, most, most - 1, most >> 1, (most >> 1) + 1))
    return data[:at] + (now & most).to_bytes(width, order) + data[at + width :]  # type: ignore[arg-type]


def _range(data: bytes, random: Random) -> tuple[int, int]:
    """A part of the data, more often a short one."""
    start = random.randint(0, len(data))
    return start, min(len(data), start + random.choice((1, 2, 4, 8, 20, 32, 50, 100, 1000)))


_Kind = Callable[[bytes, Random, Sequence[bytes]], bytes]
_KINDS: Final[tuple[_Kind, ...]] = (_flip, _replace, _drop, _repeat, _truncate, _oversize, _splice, _length, _length)


def _altered(value: Any, random: Random) -> Any:
    """Change one place of a JSON value: what is there, whether it is there, or how often."""
    if isinstance(value, dict) and value and random.random() < 0.8:
        name = random.choice(sorted(value))
        return random.choice((_altered_member, _altered_member, _altered_member, _dropped, _added))(value, name, random)
    if isinstance(value, list) and value and random.random() < 0.8:
        at = random.randrange(len(value))
        twice, often = [value[at]] * 2, [value[at]] * 40
        kinds: tuple[list[Any], ...] = ([_altered(value[at], random)], [_altered(value[at], random)], [], twice, often)
        return value[:at] + random.choice(kinds) + value[at + 1 :]
    if isinstance(value, str) and value and random.random() < 0.6:
        return _flip(value.encode("utf-8", "replace"), random, ()).decode("utf-8", "replace")
    return random.choice(ODD_VALUES)


def _altered_member(value: dict[str, Any], name: str, random: Random) -> dict[str, Any]:
    return value | {name: _altered(value[name], random)}


def _dropped(value: dict[str, Any], name: str, random: Random) -> dict[str, Any]:
    return {key: each for key, each in value.items() if key != name}


def _added(value: dict[str, Any], name: str, random: Random) -> dict[str, Any]:
    return value | {random.choice((f"{name}2", "", "\ud800", "A" * 200)): random.choice(ODD_VALUES)}
