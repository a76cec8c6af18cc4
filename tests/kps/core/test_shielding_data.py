"""A shielding data file: everybody reads its label, its owner and healthy hosts read the rest, nobody changes it."""

import json
from dataclasses import replace
from typing import Any

import pytest

from attestation.core.base64url import to_b64u
from kps import errors
from kps.core import jose
from kps.core.catalog import parse_version
from kps.core.chain import SHIELDED
from kps.core.protector import open_protector
from kps.core.shielding_content import (
    CONTENT_LIMIT,
    FILES_LIMIT,
    MOST_FILES,
    Content,
    GuestFile,
    build_content,
    parse_content,
)
from kps.core.shielding_data import (
    EQUALS,
    MOST_VOLUMES,
    SHIELDING_DATA_LIMIT,
    open_content,
    qualifier,
    reasons_against,
    require_applicable,
    verify_shielding_data,
)
from tests.kps.parties import FABRIC, KEY, NOW, OTHER_FABRIC, OWNER, STRANGER, protector, said, signed
from tests.kps.shielding import ACCEPTED, CONTENT, FILE_ID, LABEL, catalog, shielding_data

FILE = shielding_data(FABRIC, OTHER_FABRIC)
DATA = verify_shielding_data(FILE)
DOCUMENT: dict[str, Any] = json.loads(FILE)
OTHER: dict[str, Any] = json.loads(shielding_data(FABRIC, content=replace(CONTENT, files=())))


def _changed(**members: Any) -> bytes:
    return jose.canonical(DOCUMENT | members)


def _said(signer: Any = OWNER, **members: Any) -> bytes:
    return _changed(signed=signed(said(DOCUMENT["signed"]) | members, signer))


def test_the_label_is_open() -> None:
    assert (DATA.id, DATA.level, DATA.owner, DATA.made_at) == (FILE_ID, SHIELDED, OWNER.guardian, NOW)
    assert DATA.label == replace(LABEL, asks_for=frozenset({"HostName", "IP4Addr-1"}))
    assert DATA.protector.guardians == (FABRIC.guardian, OTHER_FABRIC.guardian)
    assert DATA.protector.chain.statement.makes_machines


def test_the_digest_is_that_of_the_file_however_it_is_written() -> None:
    assert verify_shielding_data(json.dumps(DOCUMENT, indent=2)).digest == DATA.digest
    assert verify_shielding_data(_said(name="others")).digest != DATA.digest


@pytest.mark.parametrize("keys", [OWNER, FABRIC, OTHER_FABRIC])
def test_the_owner_and_each_guardian_open_it(keys: Any) -> None:
    assert open_content(DATA, open_protector(DATA.protector, keys.encryption)) == CONTENT


def test_nobody_else_opens_it() -> None:
    with pytest.raises(errors.ProtectorUnopened):
        open_protector(DATA.protector, STRANGER.encryption)
    with pytest.raises(errors.SecretsRefused):
        open_content(DATA, bytes(32))


def test_nothing_that_is_secret_is_in_the_file() -> None:
    decoded = b"".join(
        jose.from_b64u(part) for token in (DOCUMENT["signed"], DOCUMENT["content"]) for part in token.split(".")
    )
    for seen in (FILE, decoded):
        assert b"marker" not in seen
        assert b"login" not in seen
        assert b"ssh_host" not in seen


@pytest.mark.parametrize(
    ("file", "error"),
    [
        (_said(STRANGER), errors.ShieldingDataRefused),
        (_said(FABRIC, name="mine"), errors.ShieldingDataRefused),
        (_said(content_sha256="0" * 64), errors.ShieldingDataRefused),
        (_said(id=str(protector()["id"])), errors.ShieldingDataRefused),
        (_changed(content=OTHER["content"]), errors.ShieldingDataRefused),
        (_changed(signed=OTHER["signed"]), errors.ShieldingDataRefused),
        (_changed(protector=protector(FABRIC)), errors.ShieldingDataRefused),
        (_changed(protector=DOCUMENT["protector"] | {"seal": OTHER["protector"]["seal"]}), errors.ProtectorSeal),
        (_changed(protector={}), errors.MalformedShieldingData),
        (_changed(content="a.b.c"), errors.MalformedShieldingData),
        (_changed(content=None), errors.MalformedShieldingData),
        (_changed(signed="a.b.c"), errors.MalformedShieldingData),
        (_changed(more=1), errors.MalformedShieldingData),
        (_said(type="guardhouse-shielding-data/v2"), errors.MalformedShieldingData),
        (_said(name="two\nlines"), errors.MalformedShieldingData),
        (_said(description=None), errors.MalformedShieldingData),
        (_said(volumes=[]), errors.MalformedShieldingData),
        (_said(volumes=[{"signer": "AA", "name": "x", "rule": EQUALS, "version": "1"}]), errors.MalformedShieldingData),
        (_said(volumes=said(DOCUMENT["signed"])["volumes"] * (MOST_VOLUMES + 1)), errors.MalformedShieldingData),
        (_said(asks_for=["HostName", "HostName"]), errors.MalformedShieldingData),
        (_said(asks_for=["Hostname"]), errors.MalformedShieldingData),
        (_said(asks_for=[7]), errors.MalformedShieldingData),
        (_said(made=2**40), errors.MalformedShieldingData),
        (b"[]", errors.MalformedShieldingData),
        (b"\xff", errors.MalformedShieldingData),
        (b" " * (SHIELDING_DATA_LIMIT + 1), errors.MalformedShieldingData),
    ],
)
def test_a_file_that_its_owner_has_not_made_is_refused(file: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        verify_shielding_data(file)


def test_the_owner_s_own_lie_about_the_places_is_found_when_it_is_opened() -> None:
    with pytest.raises(errors.SecretsRefused, match="other values"):
        open_content(verify_shielding_data(_said(asks_for=["HostName"])), KEY)


def test_content_of_another_file_does_not_open() -> None:
    header, *rest = DATA.content.split(".")
    kid = jose.read_json(jose.from_b64u(header), limit=512) | {"kid": str(protector()["id"])}
    moved = replace(DATA, content=".".join([to_b64u(jose.canonical(kid)), *rest]))
    with pytest.raises(errors.SecretsRefused, match="another"):
        open_content(moved, KEY)


def test_an_altered_content_does_not_open() -> None:
    *rest, tag = DATA.content.split(".")
    with pytest.raises(errors.SecretsRefused):
        open_content(replace(DATA, content=".".join([*rest, tag[::-1]])), KEY)


@pytest.mark.parametrize("version", ["12.1", "12.1.0", "12.2", "13"])
def test_a_template_from_a_version_on_is_accepted(version: str) -> None:
    assert reasons_against(DATA, catalog(version)) == ()
    require_applicable(DATA, catalog(version))


def _why(**changes: Any) -> str:
    (why,) = reasons_against(DATA, catalog(**changes))
    with pytest.raises(errors.TemplateNotAllowed):
        require_applicable(DATA, catalog(**changes))
    return why


def test_another_template_is_refused_and_the_sentence_says_why() -> None:
    assert _why(version="12.0.9") == (
        "The shielding data accepts debian-12, version 12.1 or later; this is version 12.0.9."
    )
    assert _why(name="debian-13") == (
        "The shielding data accepts debian-12, version 12.1 or later; this template is debian-13."
    )
    assert "was signed by" in _why(signer=OWNER)


def test_one_template_of_several_is_enough() -> None:
    exactly = qualifier(ACCEPTED.signer, "debian-13", EQUALS, "13.0")
    data = verify_shielding_data(shielding_data(label=replace(LABEL, volumes=(ACCEPTED, exactly))))
    assert reasons_against(data, catalog("13", name="debian-13")) == ()
    assert len(reasons_against(data, catalog("13.1", name="debian-13"))) == 2
    assert reasons_against(data, catalog("12.1")) == ()


@pytest.mark.parametrize("values", [("x", "d", EQUALS, "1"), (ACCEPTED.signer, "", EQUALS, "1")])
def test_a_template_that_cannot_be_named_is_refused(values: tuple[str, str, str, str]) -> None:
    with pytest.raises(errors.MalformedShieldingData):
        qualifier(*values)
    with pytest.raises(errors.MalformedShieldingData):
        qualifier(ACCEPTED.signer, "d", "newer", "1")
    with pytest.raises(errors.MalformedShieldingData):
        qualifier(ACCEPTED.signer, "d", EQUALS, "1.a")


def test_content_travels() -> None:
    assert parse_content(build_content(CONTENT)) == CONTENT
    assert CONTENT.asks_for == {"HostName", "IP4Addr-1"}


def test_the_largest_content_fits() -> None:
    each = bytes(FILES_LIMIT // MOST_FILES)
    files = tuple(GuestFile(f"/{number:0>254}", 0o600, each) for number in range(MOST_FILES))
    script = "#!" + "é" * (64 * 1024 - 2)
    data = verify_shielding_data(shielding_data(content=Content(script, "n" * 16 * 1024, files, {})))
    assert open_content(data, KEY).files == files


@pytest.mark.parametrize(
    "content",
    [
        replace(CONTENT, user_data="hostname: web"),
        replace(CONTENT, user_data=""),
        replace(CONTENT, user_data="#cloud-config-archive\n"),
        replace(CONTENT, user_data="#include\nhttp://fabric/"),
        replace(CONTENT, user_data="#!" + "x" * 64 * 1024),
        replace(CONTENT, user_data="#!\0"),
        replace(CONTENT, user_data="#!\ud800"),
        replace(CONTENT, user_data="#!/bin/sh\necho @Hostname@"),
        replace(CONTENT, network_config="@IP4Addr@"),
        replace(CONTENT, secrets={}),
        replace(CONTENT, secrets={"root": "a", "other": "b"}),
        replace(CONTENT, secrets={"root": "two\nlines"}),
        replace(CONTENT, secrets={"root": ""}),
        replace(CONTENT, secrets={"Root": "a"}),
        replace(CONTENT, files=(GuestFile("etc/x", 0, b""),)),
        replace(CONTENT, files=(GuestFile("/etc/../x", 0, b""),)),
        replace(CONTENT, files=(GuestFile("/etc//x", 0, b""),)),
        replace(CONTENT, files=(GuestFile("/", 0, b""),)),
        replace(CONTENT, files=(GuestFile("/etc/x", 0o10000, b""),)),
        replace(CONTENT, files=(GuestFile("/etc/x", 0, b""), GuestFile("/etc/x", 0, b"1"))),
        replace(CONTENT, files=(GuestFile("/etc/x", 0, bytes(FILES_LIMIT + 1)),)),
        replace(CONTENT, files=tuple(GuestFile(f"/{number}", 0, b"") for number in range(MOST_FILES + 1))),
    ],
)
def test_content_that_no_guest_could_use_is_refused_where_it_is_made(content: Content) -> None:
    with pytest.raises(errors.MalformedShieldingData):
        build_content(content)


def test_content_is_bounded() -> None:
    with pytest.raises(errors.MalformedShieldingData):
        parse_content(b" " * (CONTENT_LIMIT + 1))


def test_a_version_is_compared_by_its_numbers() -> None:
    assert replace(ACCEPTED, version=parse_version("12.1.0")) == ACCEPTED
