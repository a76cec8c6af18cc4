"""Both keys of an owner come out of one secret, in a way that another program can follow."""

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cli.owner_secret import OwnerSecret, new_secret

SECRET = bytes(range(32))
# As `derived` below gave them when the format was made: nobody may change what papers lead to.
SIGNING = "531d8922a20188f9bda0aed0302404c5df3e3f4bd01cb33a144b857b6f5b818b"


def derived(secret: bytes, use: str) -> int:
    """What docs/owner-key.md says, with nothing but HMAC: HKDF-Expand to 40 bytes, modulo n - 1, plus 1."""
    info = b"guardhouse-owner/v1 " + use.encode()
    first = hmac.digest(secret, info + b"\x01", "sha256")
    wide = (first + hmac.digest(secret, first + info + b"\x02", "sha256"))[:40]
    order = 2**256 - 2**224 + 2**192 - 0x4319055258E8617B0C46353D039CDAAF
    return int.from_bytes(wide, "big") % (order - 1) + 1


def number(key: ec.EllipticCurvePrivateKey) -> int:
    return key.private_numbers().private_value


@pytest.mark.parametrize("secret", [SECRET, bytes(32), b"\xff" * 32, hashlib.sha256(b"more").digest()])
def test_the_keys_are_those_that_the_documentation_says(secret: bytes) -> None:
    keys = OwnerSecret("owner", secret).keys
    assert (number(keys.signing), number(keys.encryption)) == (
        derived(secret, "signing"),
        derived(secret, "encryption"),
    )


def test_papers_lead_to_the_same_keys_for_ever() -> None:
    assert f"{number(OwnerSecret('owner', SECRET).keys.signing):064x}" == SIGNING


def test_the_name_is_in_no_key() -> None:
    one, other = (OwnerSecret(name, SECRET).keys.guardian.fingerprint for name in ("one", "other"))
    assert one == other


def test_no_two_secrets_and_no_two_keys_are_the_same() -> None:
    owners = [new_secret("owner") for _ in range(20)]
    keys = [number(key) for owner in owners for key in (owner.keys.signing, owner.keys.encryption)]
    assert len(set(keys)) == len(keys) == 40


def test_a_secret_does_not_show_itself() -> None:
    assert "secret" not in repr(OwnerSecret("owner", b"secret" * 6))
