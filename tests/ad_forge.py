"""Tickets that no KDC made: what is inside a token is opened with the service's own key, altered, and sealed again.

libkrb5 does the cryptography (RFC 3961), called as any C program calls it. What comes out has the same length, so it
goes to the same place of the token.
"""

import ctypes
import re
from collections.abc import Callable
from ctypes import POINTER, Structure, byref, c_char_p, c_int32, c_uint32, c_void_p
from pathlib import Path
from typing import Any, Final

TICKET_USAGE, AUTHENTICATOR_USAGE = 2, 11  # RFC 4120, section 7.5.1
OVERHEAD: Final = 28  # aes256-cts-hmac-sha1-96: a block of confounder and twelve bytes of HMAC
AES256: Final = 18
# EncryptedData.cipher and EncryptionKey.keyvalue: an OCTET STRING behind a context tag.
_SEALED: Final = re.compile(rb"\xa2(?:\x81.|\x82..)\x04(?:\x81(?P<one>.)|\x82(?P<two>..))", re.DOTALL)
_SESSION_KEY: Final = re.compile(rb"\xa1\x22\x04\x20(.{32})", re.DOTALL)

Change = Callable[[bytes], bytes]


class _Data(Structure):
    _fields_ = (("magic", c_int32), ("length", c_uint32), ("data", c_char_p))


class _Sealed(Structure):
    _fields_ = (("magic", c_int32), ("enctype", c_int32), ("kvno", c_uint32), ("ciphertext", _Data))


class _Key(Structure):
    _fields_ = (("magic", c_int32), ("enctype", c_int32), ("length", c_uint32), ("contents", POINTER(ctypes.c_char)))


class _Entry(Structure):
    _fields_ = (("magic", c_int32), ("principal", c_void_p), ("time", c_int32), ("kvno", c_uint32), ("key", _Key))


class Library:
    """The few functions of libkrb5 that open and seal."""

    def __init__(self) -> None:
        self._krb5: Any = ctypes.CDLL("libkrb5.so.3")
        self._context = c_void_p()
        self._call("krb5_init_context", byref(self._context))

    def key_of(self, keytab: Path, principal: str) -> _Key:
        """Return the newest AES-256 key of a service."""
        name, table, entry = c_void_p(), c_void_p(), _Entry()
        self._call("krb5_parse_name", self._context, principal.encode(), byref(name))
        self._call("krb5_kt_resolve", self._context, f"FILE:{keytab}".encode(), byref(table))
        self._call("krb5_kt_get_entry", self._context, table, name, 0, AES256, byref(entry))
        key: _Key = entry.key
        return key

    def opened(self, key: _Key, usage: int, sealed: bytes) -> bytes:
        plain = ctypes.create_string_buffer(len(sealed))
        given = _Sealed(0, AES256, 0, _Data(0, len(sealed), sealed))
        result = _Data(0, len(sealed), ctypes.cast(plain, c_char_p))
        self._call("krb5_c_decrypt", self._context, byref(key), usage, None, byref(given), byref(result))
        return plain.raw[: result.length]

    def sealed(self, key: _Key, usage: int, plain: bytes) -> bytes:
        made = ctypes.create_string_buffer(len(plain) + OVERHEAD)
        given = _Data(0, len(plain), plain)
        result = _Sealed(0, AES256, 0, _Data(0, len(made), ctypes.cast(made, c_char_p)))
        self._call("krb5_c_encrypt", self._context, byref(key), usage, None, byref(given), byref(result))
        return made.raw[: result.ciphertext.length]

    def _call(self, name: str, *arguments: object) -> None:
        code = self._krb5[name](*arguments)
        if code:
            raise RuntimeError(f"{name} failed with {code}")


def forged(token: bytes, keytab: Path, principal: str, change: Change) -> bytes:
    """Return a raw Kerberos token with `change` done to what its ticket seals, and to what its authenticator does."""
    library = Library()
    ticket = _place(token, 0)
    plain = library.opened(library.key_of(keytab, principal), TICKET_USAGE, token[ticket])
    found = _SESSION_KEY.search(plain)
    assert found is not None
    session = _Key(0, AES256, 32, ctypes.create_string_buffer(found.group(1), 32))
    authenticator = _place(token, ticket.stop)
    inner = library.opened(session, AUTHENTICATOR_USAGE, token[authenticator])
    altered = library.sealed(library.key_of(keytab, principal), TICKET_USAGE, _same_length(plain, change))
    signed = library.sealed(session, AUTHENTICATOR_USAGE, _same_length(inner, change))
    return token[: ticket.start] + altered + token[ticket.stop : authenticator.start] + signed


def _same_length(plain: bytes, change: Change) -> bytes:
    changed = change(plain)
    assert len(changed) == len(plain)
    return changed


def _place(token: bytes, start: int) -> slice:
    found = _SEALED.search(token, start)
    assert found is not None
    length = int.from_bytes(found.group("two") or found.group("one"), "big")
    return slice(found.end(), found.end() + length)
