"""Private keys rest sealed; what opens them is a file that only its owner can read."""

import stat
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from django.core.exceptions import ImproperlyConfigured

from ledger.custody import InsecureFileCustody


def test_a_key_opens_for_its_own_purpose_and_for_no_other(tmp_path: Path) -> None:
    custody = InsecureFileCustody(tmp_path / "custody.key")
    sealed, public = custody.generate("signing")
    assert custody.open(sealed, "signing").public_key() == public
    with pytest.raises(InvalidTag):
        custody.open(sealed, "encryption")


def test_a_stolen_database_does_not_open_without_the_file(tmp_path: Path) -> None:
    sealed, _ = InsecureFileCustody(tmp_path / "ours").generate("signing")
    with pytest.raises(InvalidTag):
        InsecureFileCustody(tmp_path / "theirs").open(sealed, "signing")


def test_a_sealed_key_shows_nothing_of_the_key(tmp_path: Path) -> None:
    custody = InsecureFileCustody(tmp_path / "custody.key")
    sealed, _ = custody.generate("signing")
    secret = custody.open(sealed, "signing").private_numbers().private_value.to_bytes(32, "big")
    assert secret not in sealed


@pytest.mark.parametrize("position", [0, 12, -1])
def test_a_flipped_bit_is_noticed(tmp_path: Path, position: int) -> None:
    custody = InsecureFileCustody(tmp_path / "custody.key")
    sealed = bytearray(custody.generate("signing")[0])
    sealed[position] ^= 1
    with pytest.raises(InvalidTag):
        custody.open(bytes(sealed), "signing")


def test_what_is_derived_differs_by_purpose_and_context_and_is_the_same_on_every_node(tmp_path: Path) -> None:
    one, other = InsecureFileCustody(tmp_path / "k"), InsecureFileCustody(tmp_path / "k")
    assert one.derive("release", b"1") == other.derive("release", b"1")
    assert len({one.derive("release", b"1"), one.derive("release", b"2"), one.derive("seal", b"1")}) == 3


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    InsecureFileCustody(tmp_path / "custody.key")
    assert stat.S_IMODE((tmp_path / "custody.key").stat().st_mode) == 0o600


def test_a_file_of_the_wrong_size_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "custody.key").write_bytes(b"short")
    with pytest.raises(ImproperlyConfigured, match="5 bytes instead of 32"):
        InsecureFileCustody(tmp_path / "custody.key")


def test_the_key_is_readable_by_no_serialisation_of_the_custody(tmp_path: Path) -> None:
    custody = InsecureFileCustody(tmp_path / "custody.key")
    _, public = custody.generate("signing")
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert (tmp_path / "custody.key").read_bytes() not in pem + repr(custody).encode()
