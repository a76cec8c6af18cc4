"""An owner's keys in a PKCS#11 token: made there or taken in, used there, and never read out.

A token is used as long as one command runs. python-pkcs11 is imported when one is opened, so that owners with a key
file need no such package.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec

from attestation.errors import Refusal
from kps.core.guardian import GuardianKeys
from ledger.core.token_key import TokenKey, point_of

ID_SIZE: Final = 16
SIGNING: Final = "guardhouse owner signing"
ENCRYPTION: Final = "guardhouse owner encryption"
_USES: Final = (SIGNING, ENCRYPTION)
_POINT_SIZE: Final = 65
_OCTET_STRING: Final = bytes([0x04, _POINT_SIZE])  # DER of what comes before a point


class TokenRefused(Refusal):
    """The token, its library or its PIN is not what is needed; the sentence says which, and what to do."""

    code = "token_refused"


@dataclass(frozen=True, slots=True)
class Place:
    """Where an owner's keys are: the label of a token, and the id that both have in it."""

    token: str
    key_id: bytes


@contextmanager
def opened(module: Path, label: str, pin: str) -> Iterator["OwnerToken"]:
    """Log in to the token with this label, once: what is wrong with the PIN is for a person to say."""
    try:
        import pkcs11
    except ImportError as error:
        raise TokenRefused("python-pkcs11 is missing. Install guardhouse[token].") from error
    token = OwnerToken(pkcs11, label, _session(pkcs11, module, label, pin))
    try:
        yield token
    finally:
        token.close()


class OwnerToken:
    """A session on one token, as its user."""

    def __init__(self, pkcs11: Any, label: str, session: Any) -> None:
        self._p, self.label, self._session = pkcs11, label, session

    def generate(self) -> Place:
        """Make an owner's two keys inside the token."""
        place = Place(self.label, secrets.token_bytes(ID_SIZE))
        with self._all_or_nothing(place):
            for label in _USES:
                self._generate(place.key_id, label)
        return place

    def admit(self, keys: GuardianKeys) -> Place:
        """Take in an owner's keys that were made elsewhere; out of the token they do not come again."""
        place = Place(self.label, secrets.token_bytes(ID_SIZE))
        with self._all_or_nothing(place):
            self._admit(place.key_id, SIGNING, keys.signing)
            self._admit(place.key_id, ENCRYPTION, keys.encryption)
        return place

    def keys(self, name: str, place: Place) -> GuardianKeys:
        return GuardianKeys(name, *(self._key(place.key_id, use) for use in _USES))

    def _key(self, key_id: bytes, label: str) -> TokenKey:
        return TokenKey(self, key_id, label, public=self.public_key(key_id, label), stays=_stays)

    def places(self) -> list[Place]:
        """Return where in this token there are keys of owners."""
        with self._asked():
            found = self._objects(self._p.ObjectClass.PRIVATE_KEY, SIGNING, None)
            return [Place(self.label, bytes(key[self._p.Attribute.ID])) for key in found]

    def destroy(self, place: Place) -> None:
        with self._asked():
            for label in _USES:
                for kind in (self._p.ObjectClass.PRIVATE_KEY, self._p.ObjectClass.PUBLIC_KEY):
                    for each in self._objects(kind, label, place.key_id):
                        each.destroy()

    def sign(self, key_id: bytes, label: str, digest: bytes) -> bytes:
        """Return an ECDSA signature over a digest, r and s side by side."""
        with self._asked():
            return bytes(self._private(key_id, label).sign(digest, mechanism=self._p.Mechanism.ECDSA))

    def agree(self, key_id: bytes, label: str, point: bytes) -> bytes:
        """Return what ECDH agrees on with another's point; it is a secret of one message and leaves the token."""
        with self._asked():
            return self._agreed(key_id, label, point)

    def public_key(self, key_id: bytes, label: str) -> ec.EllipticCurvePublicKey:
        """Tokens give the point inside an OCTET STRING, as the standard wants, or bare, as some makers do."""
        with self._asked():
            found = self._one(self._p.ObjectClass.PUBLIC_KEY, key_id, label)[self._p.Attribute.EC_POINT]
        try:
            return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), bytes(found)[-_POINT_SIZE:])
        except ValueError as error:
            raise TokenRefused(f"A key “{label}” in the token {self.label} is not one on P-256.") from error

    def close(self) -> None:
        with suppress(self._p.exceptions.PKCS11Error):  # it was unplugged; what was done is done
            self._session.close()

    @contextmanager
    def _asked(self) -> Iterator[None]:
        try:
            yield
        except self._p.exceptions.PKCS11Error as error:
            raise TokenRefused(
                f"The token {self.label} does not do what it is asked ({type(error).__name__})."
                " Look whether it is plugged in, and whether it can have keys on P-256."
            ) from error

    @contextmanager
    def _all_or_nothing(self, place: Place) -> Iterator[None]:
        """Leave no half of an owner behind, and no key that the token would give out."""
        try:
            with self._asked():
                yield
                for label in _USES:
                    self._require_kept(place.key_id, label)
        except Refusal:
            self.destroy(place)
            raise

    def _require_kept(self, key_id: bytes, label: str) -> None:
        a, key = self._p.Attribute, self._private(key_id, label)
        if key[a.EXTRACTABLE] or not key[a.SENSITIVE]:
            raise TokenRefused(f"The token {self.label} would give its keys out, whatever it is told. Take another.")

    def _generate(self, key_id: bytes, label: str) -> None:
        p, a = self._p, self._p.Attribute
        curve = self._session.create_domain_parameters(p.KeyType.EC, {a.EC_PARAMS: _curve()}, local=True)
        curve.generate_keypair(
            id=key_id,
            label=label,
            store=True,
            public_template={a.VERIFY: label == SIGNING, a.DERIVE: False},
            private_template=self._kept(label),
        )

    def _admit(self, key_id: bytes, label: str, key: ec.EllipticCurvePrivateKey) -> None:
        p, a = self._p, self._p.Attribute
        secret, point = key.private_numbers().private_value.to_bytes(32, "big"), point_of(key.public_key())
        common = {a.KEY_TYPE: p.KeyType.EC, a.EC_PARAMS: _curve(), a.ID: key_id, a.LABEL: label, a.TOKEN: True}
        private = {a.CLASS: p.ObjectClass.PRIVATE_KEY, a.VALUE: secret, a.PRIVATE: True}
        self._session.create_object({**common, **private, **self._kept(label)})
        public = {a.CLASS: p.ObjectClass.PUBLIC_KEY, a.EC_POINT: _OCTET_STRING + point}
        self._session.create_object({**common, **public})

    def _kept(self, label: str) -> dict[Any, bool]:
        """A key for one use, that the token never gives out."""
        a = self._p.Attribute
        use = {a.SIGN: label == SIGNING, a.DERIVE: label == ENCRYPTION}
        return {a.SENSITIVE: True, a.EXTRACTABLE: False, **use}

    def _agreed(self, key_id: bytes, label: str, point: bytes) -> bytes:
        p, a = self._p, self._p.Attribute
        agreed = self._private(key_id, label).derive_key(
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

    def _private(self, key_id: bytes, label: str) -> Any:
        return self._one(self._p.ObjectClass.PRIVATE_KEY, key_id, label)

    def _one(self, kind: Any, key_id: bytes, label: str) -> Any:
        found = self._objects(kind, label, key_id)
        if len(found) != 1:
            raise TokenRefused(
                f"The token {self.label} has {len(found) or 'no'} key{'s' if found else ''} “{label}” with the id"
                f" {key_id.hex()}. It is another token, or the key was removed."
            )
        return found[0]

    def _objects(self, kind: Any, label: str, key_id: bytes | None) -> list[Any]:
        a = self._p.Attribute
        wanted = {a.CLASS: kind, a.LABEL: label} | ({} if key_id is None else {a.ID: key_id})
        return list(self._session.get_objects(wanted))


def _session(pkcs11: Any, module: Path, label: str, pin: str) -> Any:
    wrong = pkcs11.exceptions
    try:
        library = pkcs11.lib(str(module))
    except (wrong.PKCS11Error, OSError, RuntimeError) as error:
        raise TokenRefused(f"The PKCS#11 library {module} cannot be loaded: {error}.") from error
    try:
        token = library.get_token(token_label=label)
        return token.open(rw=True, user_pin=pin)
    except (wrong.PinIncorrect, wrong.PinInvalid, wrong.PinLenRange) as error:
        raise TokenRefused(
            f"The token {label} refuses the PIN. It was tried once; a few wrong ones lock it."
        ) from error
    except (wrong.PinLocked, wrong.PinExpired) as error:
        raise TokenRefused(f"The PIN of the token {label} is locked or expired; its own tools set another.") from error
    except wrong.NoSuchToken as error:
        raise TokenRefused(f"There is no token called {label} behind {module}. Is it plugged in?") from error
    except wrong.MultipleTokensReturned as error:
        raise TokenRefused(f"Several tokens are called {label}. Leave one plugged in, or rename them.") from error
    except wrong.PKCS11Error as error:
        raise TokenRefused(f"The token {label} does not open ({type(error).__name__}).") from error


def _curve() -> bytes:
    from pkcs11.util.ec import encode_named_curve_parameters

    return bytes(encode_named_curve_parameters("secp256r1"))


def _stays() -> TokenRefused:
    return TokenRefused("The owner's keys are in a token and do not leave it.")
