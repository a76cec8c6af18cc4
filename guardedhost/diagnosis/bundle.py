"""Traces as files: one JSON document, compressed with gzip (RFC 1952), to be carried to whoever can help.

Nobody signs a bundle, so what it says counts for advice and nothing else. It is read strictly, within bounds, and with
no other outcome than a trace or `ParseError`.
"""

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime, timedelta
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from attestation.core.base64url import from_b64u, to_b64u
from attestation.core.eventlog import EVENT_LOG_LIMIT
from attestation.core.ima import IMA_LIMIT
from attestation.errors import ParseError, TooLarge
from guardedhost.diagnosis.trace import Trace
from kps.core import jose

FORMAT: Final = "guardhouse-trace-2"
# Both logs in base64, and room for all the rest.
DOCUMENT_LIMIT: Final = (IMA_LIMIT + EVENT_LOG_LIMIT) * 4 // 3 + (4 << 20)

_GZIP: Final = 16 + zlib.MAX_WBITS


def write_bundle(trace: Trace) -> bytes:
    """The bundle of a trace; the same trace gives the same bytes."""
    document = {"format": FORMAT, "trace": _plain(trace)}
    packer = zlib.compressobj(wbits=_GZIP)
    return packer.compress(json.dumps(document, indent=1).encode()) + packer.flush()


def read_bundle(data: bytes) -> Trace:
    """The trace in a bundle, or `ParseError`: other formats, members that a trace has not, and what is too large."""
    document = jose.read_json(_unpacked(data), limit=DOCUMENT_LIMIT)
    if document.get("format") != FORMAT or set(document) != {"format", "trace"}:
        raise ParseError("This is no trace that this version of guardhouse can read.")
    try:
        trace = _read(Trace, document["trace"])
    except (ValueError, TypeError, RecursionError) as error:
        raise ParseError(f"The trace is damaged: {error}.") from error
    if not isinstance(trace, Trace):
        raise ParseError("The trace is damaged.")
    return trace


def _unpacked(data: bytes) -> bytes:
    packed = zlib.decompressobj(wbits=_GZIP)
    try:
        document = packed.decompress(data, DOCUMENT_LIMIT + 1)
    except zlib.error as error:
        raise ParseError("This is no trace: it is not compressed with gzip, or it is damaged.") from error
    if len(document) > DOCUMENT_LIMIT:
        raise TooLarge(f"The trace is larger than {DOCUMENT_LIMIT} bytes.")
    if not packed.eof or packed.unused_data:
        raise ParseError("The trace does not end where its file does.")
    return document


def _plain(value: object) -> Any:
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return to_b64u(value) if isinstance(value, bytes) else value


def _read(kind: Any, value: Any) -> Any:
    """The value of a type that a trace is made of, or ValueError: nothing is converted that only looks like it."""
    if is_dataclass(kind):
        return _read_fields(kind, value)
    if (read := _PLAIN.get(kind)) is not None:
        return read(value)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return None if value is None else _read(next(each for each in arguments if each is not NoneType), value)
    if origin is Literal:
        return _one_of(arguments, value)
    if origin is tuple:
        return tuple(_read(arguments[0], each) for each in _exactly(list)(value))
    return {_key(arguments[0], key): _read(arguments[1], each) for key, each in _exactly(dict)(value).items()}


def _read_fields(kind: Any, value: Any) -> Any:
    given = _exactly(dict)(value)
    kinds = _kinds(kind)
    if unknown := sorted(set(given) - set(kinds)):
        raise ValueError(f"{kind.__name__} has no {unknown[0][:32]!r}")
    needed = {each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING}
    if missing := sorted(needed - set(given)):
        raise ValueError(f"{kind.__name__} lacks {missing[0]!r}")
    return kind(**{name: _read(kinds[name], each) for name, each in given.items()})


@cache
def _kinds(kind: Any) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _exactly(kind: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if type(value) is not kind:
            raise ValueError(f"a {kind.__name__} is missing")
        return value

    return read


def _one_of(values: tuple[Any, ...], value: Any) -> Any:
    if value not in values:
        raise ValueError("a word is none of those that are known")
    return value


def _key(kind: type, text: str) -> Any:
    """JSON's names are text; those of PCR values are numbers."""
    return int(text) if kind is int and text.isdecimal() and len(text) < 3 else _exactly(kind)(text)


def _number(value: Any) -> int:
    """A TPM's numbers, a file's mode, a port: none is negative or needs more than 32 bits."""
    number: int = _exactly(int)(value)
    if number >> 32:
        raise ValueError("a number is negative or too large")
    return number


def _moment(value: Any) -> datetime:
    moment = datetime.fromisoformat(_exactly(str)(value))
    if moment.utcoffset() != timedelta():
        raise ValueError("a moment is not in UTC")
    return moment


_PLAIN: Final[Mapping[Any, Callable[[Any], Any]]] = {
    str: _exactly(str),
    int: _number,
    bool: _exactly(bool),
    bytes: lambda value: from_b64u(_exactly(str)(value)),
    datetime: _moment,
}
