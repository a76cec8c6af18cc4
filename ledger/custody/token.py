"""A PKCS#11 token as this service uses it: a few operations, one session at a time, opened anew when it was lost.

python-pkcs11 is imported when a token is opened, so that nodes without one need no such package.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ledger.custody.errors import CustodyMissing, CustodyUnavailable, TokenGone, WrongPin

if TYPE_CHECKING:
    import pkcs11

R = TypeVar("R")
ID_SIZE: Final = 16
ROOT_LABEL: Final = "guardhouse root"
_CURVE: Final = "secp256r1"
_POINT_SIZE: Final = 65
_OCTET_STRING: Final = bytes([0x04, _POINT_SIZE])  # DER of what comes before a point
_initialised: dict[Path, int] = {}  # library -> the process that has initialised it


@dataclass(frozen=True, slots=True)
class TokenAddress:
    """Which token: the maker's library, the token's label, and the PIN of its user."""

    module: Path
    label: str
    pin: str = field(repr=False)


_library_lock = RLock()  # python-pkcs11 does not ask libraries to be safe for threads


class Token:
    """One token, as one process uses it."""

    def __init__(self, address: TokenAddress) -> None:
        self.address = address
        self._opened: _Opened | None = None
        self._lost = False
        self._refused: WrongPin | None = None

    def hmac(self, message: bytes) -> bytes:
        """Return HMAC-SHA-256 under the root key, computed in the token."""
        from pkcs11 import Mechanism

        return self._do(lambda it: bytes(it.root().sign(message, mechanism=Mechanism.SHA256_HMAC)))

    def sign(self, key_id: bytes, label: str, digest: bytes) -> bytes:
        """Return an ECDSA signature over a digest, r and s side by side."""
        from pkcs11 import Mechanism

        return self._do(lambda it: bytes(it.private(key_id, label).sign(digest, mechanism=Mechanism.ECDSA)))

    def agree(self, key_id: bytes, label: str, point: bytes) -> bytes:
        """Return what ECDH agrees on with another's point; it is a secret of one message and leaves the token."""
        return self._do(lambda it: it.agree(key_id, label, point))

    def point(self, key_id: bytes, label: str) -> bytes:
        """Return a key's own point, uncompressed."""
        return self._do(lambda it: it.point(key_id, label))

    def generate(self, key_id: bytes, label: str) -> None:
        """Make a P-256 key that never leaves the token, for signing and agreeing."""
        self._do(lambda it: it.generate(key_id, label), again=False)

    def admit(self, key_id: bytes, label: str, *, secret: bytes, point: bytes) -> None:
        """Take in a P-256 key that was made elsewhere; from then on it does not leave either."""
        self._do(lambda it: it.admit(key_id, label, secret=secret, point=point), again=False)

    def destroy(self, key_id: bytes, label: str) -> None:
        self._do(lambda it: it.destroy(key_id, label), again=False)

    def has_root(self) -> bool:
        return self._do(lambda it: bool(it.roots()))

    def make_root(self, secret: bytes | None) -> None:
        """Make the root key inside the token, or take in one that was made elsewhere."""
        self._do(lambda it: it.make_root(secret), again=False)

    def _do(self, act: Callable[["_Opened"], R], *, again: bool = True) -> R:
        """Act in the open session; when it was lost, in a new one, unless the act could then have happened twice."""
        with _library_lock:
            for last in (not again, True):
                opened = self._session()
                try:
                    return act(opened)
                except opened.error as error:
                    self._opened, self._lost = None, True  # whatever it was: the next one begins afresh
                    if last:
                        raise TokenGone(
                            f"The token {self.address.label} does not do what it is asked ({type(error).__name__})."
                            " Look whether it is plugged in or reachable, and whether its keys are there."
                        ) from error
            raise AssertionError("the last attempt returns or raises")

    def _session(self) -> "_Opened":
        if self._refused is not None:
            raise self._refused
        if self._opened is None or self._opened.process != os.getpid():
            try:
                self._opened = _Opened(self.address, anew=self._lost)
                self._lost = False
            except WrongPin as refusal:
                self._refused = refusal  # each further attempt would count towards the token's lock
                raise
        return self._opened


class _Opened:
    """A session on a token, with the keys that were looked up in it."""

    def __init__(self, address: TokenAddress, *, anew: bool) -> None:
        try:
            import pkcs11
            import pkcs11.exceptions
        except ImportError as error:
            raise CustodyUnavailable("python-pkcs11 is missing; install guardhouse[token] on this node.") from error
        self._p = pkcs11
        self.process = os.getpid()
        self.error = pkcs11.exceptions.PKCS11Error
        self._label = address.label
        self._found: dict[tuple[bytes, str], Any] = {}
        self._root: Any = None
        self._session = self._login(_library(address.module, anew=anew), address)

    def _login(self, library: Any, address: TokenAddress) -> Any:
        wrong = self._p.exceptions
        try:
            token = library.get_token(token_label=address.label)
            try:
                return token.open(rw=True, user_pin=address.pin)
            except wrong.UserAlreadyLoggedIn:  # by another session: it is the process that is logged in, not a session
                return token.open(rw=True)
        except (wrong.PinIncorrect, wrong.PinLocked, wrong.PinInvalid, wrong.PinLenRange, wrong.PinExpired) as error:
            raise WrongPin(
                f"The token {address.label} refuses the PIN ({type(error).__name__}). This process does not try again:"
                " a few wrong ones lock the token. Correct GUARDHOUSE_CUSTODY_PIN_FILE and start it anew."
            ) from error
        except wrong.NoSuchToken as error:
            raise TokenGone(f"There is no token called {address.label} behind {address.module}.") from error
        except wrong.MultipleTokensReturned as error:
            raise TokenGone(f"Several tokens are called {address.label}; one label has to mean one token.") from error
        except self.error as error:
            raise TokenGone(f"The token {address.label} does not open ({type(error).__name__}).") from error

    # The root key

    def roots(self) -> list[Any]:
        return self._objects(self._p.ObjectClass.SECRET_KEY, ROOT_LABEL, None)

    def root(self) -> Any:
        if self._root is None:
            found = self.roots()
            if not found:
                raise CustodyMissing(
                    f"The token {self._label} has no root key of Guardhouse. `manage.py custody create` makes one;"
                    " `manage.py custody move` brings the one in use here."
                )
            if len(found) > 1:
                raise TokenGone(f"The token {self._label} has {len(found)} root keys; remove those that are not ours.")
            self._root = found[0]
        return self._root

    def make_root(self, secret: bytes | None) -> None:
        p, a = self._p, self._p.Attribute
        kept = {a.SENSITIVE: True, a.EXTRACTABLE: False, a.PRIVATE: True, a.SIGN: True}
        if secret is None:
            signs = p.MechanismFlag.SIGN
            self._session.generate_key(
                p.KeyType.GENERIC_SECRET, 256, store=True, label=ROOT_LABEL, capabilities=signs, template=kept
            )
            return
        made = {a.CLASS: p.ObjectClass.SECRET_KEY, a.KEY_TYPE: p.KeyType.GENERIC_SECRET, a.VALUE: secret}
        self._session.create_object({**made, a.LABEL: ROOT_LABEL, a.TOKEN: True, **kept})

    # Keys on P-256

    def generate(self, key_id: bytes, label: str) -> None:
        p, a = self._p, self._p.Attribute
        curve = self._session.create_domain_parameters(p.KeyType.EC, {a.EC_PARAMS: self._curve()}, local=True)
        curve.generate_keypair(
            id=key_id, label=label, store=True, private_template=self._private_template(), public_template={}
        )

    def admit(self, key_id: bytes, label: str, *, secret: bytes, point: bytes) -> None:
        p, a = self._p, self._p.Attribute
        common = {a.KEY_TYPE: p.KeyType.EC, a.EC_PARAMS: self._curve(), a.ID: key_id, a.LABEL: label, a.TOKEN: True}
        private = {a.CLASS: p.ObjectClass.PRIVATE_KEY, a.VALUE: secret, a.PRIVATE: True}
        self._session.create_object({**common, **private, **self._private_template()})
        public = {a.CLASS: p.ObjectClass.PUBLIC_KEY, a.EC_POINT: _OCTET_STRING + point}
        self._session.create_object({**common, **public})

    def private(self, key_id: bytes, label: str) -> Any:
        """Return a key by its id and its label, which says what it is for: one of the two alone is not enough."""
        found = self._found.get((key_id, label))
        if found is None:
            found = self._found[key_id, label] = self._one(self._p.ObjectClass.PRIVATE_KEY, key_id, label)
        return found

    def agree(self, key_id: bytes, label: str, point: bytes) -> bytes:
        p, a = self._p, self._p.Attribute
        agreed = self.private(key_id, label).derive_key(
            p.KeyType.GENERIC_SECRET,
            256,
            mechanism_param=(p.KDF.NULL, None, point),
            store=False,
            template={a.SENSITIVE: False, a.EXTRACTABLE: True},
        )
        try:
            return bytes(agreed[a.VALUE])
        finally:
            agreed.destroy()

    def point(self, key_id: bytes, label: str) -> bytes:
        """Tokens give the point inside an OCTET STRING, as the standard wants, or bare, as some makers do."""
        found = bytes(self._one(self._p.ObjectClass.PUBLIC_KEY, key_id, label)[self._p.Attribute.EC_POINT])
        return found[-_POINT_SIZE:]

    def destroy(self, key_id: bytes, label: str) -> None:
        for kind in (self._p.ObjectClass.PRIVATE_KEY, self._p.ObjectClass.PUBLIC_KEY):
            for each in self._objects(kind, label, key_id):
                each.destroy()
        self._found.pop((key_id, label), None)

    def _private_template(self) -> dict["pkcs11.Attribute", bool]:
        a = self._p.Attribute
        return {a.SENSITIVE: True, a.EXTRACTABLE: False, a.SIGN: True, a.DERIVE: True}

    def _one(self, kind: Any, key_id: bytes, label: str) -> Any:
        found = self._objects(kind, label, key_id)
        if len(found) != 1:
            raise TokenGone(
                f"The token {self._label} has {len(found) or 'no'} key{'s' if found else ''} “{label}” with the id"
                f" {key_id.hex()}. It is another token, or the key was removed."
            )
        return found[0]

    def _objects(self, kind: Any, label: str, key_id: bytes | None) -> list[Any]:
        a = self._p.Attribute
        wanted = {a.CLASS: kind, a.LABEL: label} | ({} if key_id is None else {a.ID: key_id})
        return list(self._session.get_objects(wanted))

    def _curve(self) -> bytes:
        from pkcs11.util.ec import encode_named_curve_parameters

        return bytes(encode_named_curve_parameters(_CURVE))


def _library(module: Path, *, anew: bool) -> Any:
    """Return the maker's library, initialised once in a process, and `anew` for a token that was lost."""
    import pkcs11

    try:
        library = pkcs11.lib(str(module))
        if anew or _initialised.get(module, os.getpid()) != os.getpid():
            library.reinitialize()
    except (pkcs11.exceptions.PKCS11Error, OSError, RuntimeError) as error:
        raise CustodyUnavailable(f"The PKCS#11 library {module} cannot be loaded ({error}).") from error
    _initialised[module] = os.getpid()
    return library
