"""Volume signature catalogs: who has signed what, and what is not taken for one."""

import json
from typing import Any

import pytest

from kps.core import jose
from kps.core.catalog import CATALOG_LIMIT, build_catalog, parse_catalog, parse_version
from kps.core.volume import BLOCK_SIZE, Volume, block_hash, document_of, volume_of
from kps.errors import CatalogRefused, MalformedDocument
from tests.kps.parties import NOW, OWNER, STRANGER, said, signed

VOLUME = volume_of(map(block_hash, (b"one", b"other")), size=2 * BLOCK_SIZE)
TOKEN = build_catalog(OWNER, VOLUME, name="debian-12", version=parse_version("12.1"), now=NOW)


def test_a_catalog_says_what_its_signer_has_signed() -> None:
    catalog = parse_catalog(TOKEN)
    assert (catalog.name, str(catalog.version), catalog.volume) == ("debian-12", "12.1", VOLUME)
    assert (catalog.signer_name, catalog.signed_at) == ("owner", NOW)
    assert catalog.thumbprint == jose.thumbprint(OWNER.signing.public_key())


def test_the_catalog_of_the_largest_disk_fits() -> None:
    leaves = tuple(block_hash(b"%d" % number) for number in range(1024))
    token = build_catalog(
        OWNER, Volume(1 << 46, leaves), name="x" * 64, version=parse_version("999999999.999999999.0.1"), now=NOW
    )
    assert len(token) <= CATALOG_LIMIT
    assert len(parse_catalog(token).volume.regions) == 1024


CHANGES: dict[str, dict[str, Any]] = {
    "another name": {"name": "debian-13"},
    "another version": {"version": "13"},
    "another time": {"signed_at": 1},
    "another disk": {"volume": document_of(volume_of([block_hash(b"")], size=BLOCK_SIZE))},
    "another signer's name": {"signer": {"name": "x", "signing": jose.jwk(OWNER.signing.public_key())}},
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_altered_afterwards_is_refused(name: str) -> None:
    head, _, tail = TOKEN.split(".")
    changed = jose.sign(said(TOKEN) | CHANGES[name], STRANGER.signing, kid="x").split(".")[1]
    with pytest.raises(CatalogRefused):
        parse_catalog(f"{head}.{changed}.{tail}")


def test_another_s_signature_under_the_signer_s_name_is_refused() -> None:
    with pytest.raises(CatalogRefused):
        parse_catalog(signed(said(TOKEN), STRANGER, kid_of=OWNER))


def test_a_key_that_is_not_the_one_named_is_refused() -> None:
    with pytest.raises(CatalogRefused):
        parse_catalog(signed(said(TOKEN), OWNER, kid_of=STRANGER))


def test_a_stranger_who_names_its_own_key_is_known_as_another_signer() -> None:
    signer = {"name": "owner", "signing": jose.jwk(STRANGER.signing.public_key())}
    other = parse_catalog(signed(said(TOKEN) | {"signer": signer}, STRANGER))
    assert (other.signer_name, other.thumbprint) == ("owner", jose.thumbprint(STRANGER.signing.public_key()))


MALFORMED: dict[str, dict[str, Any]] = {
    "another type": {"type": "guardhouse-guardian/v1"},
    "no name": {"name": ""},
    "a name of two lines": {"name": "a\nb"},
    "a name without end": {"name": "x" * 65},
    "a version in words": {"version": "latest"},
    "a version that is a number": {"version": 12},
    "a time in words": {"signed_at": "now"},
    "a time beyond the calendar": {"signed_at": 2**40},
    "a time before": {"signed_at": -1},
    "a signer without a key": {"signer": {"name": "owner"}},
    "no volume": {"volume": None},
    "one member more": {"more": 1},
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_signed_and_no_catalog_is_refused(name: str) -> None:
    with pytest.raises(MalformedDocument):
        parse_catalog(signed(said(TOKEN) | MALFORMED[name], OWNER))


@pytest.mark.parametrize("token", ["", "a.b.c", TOKEN + "x" * CATALOG_LIMIT, TOKEN.rpartition(".")[0], None, 7])
def test_what_is_no_token_is_refused(token: object) -> None:
    with pytest.raises(MalformedDocument):
        parse_catalog(token)


@pytest.mark.parametrize(
    ("one", "other"), [("1.2", "1.2.0"), ("0", "0.0.0"), ("12.1.0.0", "12.1"), ("999999999", "999999999.0")]
)
def test_numbers_that_are_not_written_are_zero(one: str, other: str) -> None:
    assert parse_version(one) == parse_version(other)


def test_versions_are_ordered_by_their_numbers_and_not_as_text() -> None:
    ordered = ["0", "0.0.0.1", "1", "1.0.1", "1.2", "1.10", "2", "10", "10.0.0.1"]
    assert [str(each) for each in sorted(map(parse_version, reversed(ordered)))] == ordered


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "1.",
        ".1",
        "1..2",
        "01",
        "1.02",
        "1.2.3.4.5",
        "v1",
        "1.2-rc",
        " 1",
        "1\n",
        "\u0661",
        "1" * 10,
        "-1",
        1,
        None,
    ],
)
def test_anything_else_is_no_version(text: object) -> None:
    with pytest.raises(MalformedDocument):
        parse_version(text)


def test_the_payload_is_what_the_documentation_says() -> None:
    assert set(said(TOKEN)) == {"type", "name", "version", "signer", "signed_at", "volume"}
    assert json.loads(jose.canonical(said(TOKEN)))["volume"]["size"] == 2 * BLOCK_SIZE
