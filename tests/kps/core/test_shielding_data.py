"""A shielding data file: everybody reads its label, its owner and healthy hosts read the rest, nobody changes it."""

import io
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest

from attestation.core.base64url import to_b64u
from kps import errors
from kps.core import jose
from kps.core.catalog import parse_version
from kps.core.chain import SHIELDED
from kps.core.protector import open_protector
from kps.core.sealed_stream import MOST_PIECES, PIECE
from kps.core.shielding_content import (
    FILE_LIMIT,
    FILES_LIMIT,
    MOST_FILES,
    OPENING_LIMIT,
    Content,
    GuestFile,
    build_content,
    parse_content,
)
from kps.core.shielding_data import (
    EQUALS,
    HEAD_LIMIT,
    MOST_VOLUMES,
    SHIELDING_DATA_LIMIT,
    open_content,
    parse_head,
    qualifier,
    reasons_against,
    require_applicable,
    seal_content,
    verify_shielding_data,
)
from tests.kps.parties import FABRIC, KEY, NOW, OTHER_FABRIC, OWNER, STRANGER, protector, said, signed
from tests.kps.shielding import (
    ACCEPTED,
    CONTENT,
    FILE_ID,
    LABEL,
    catalog,
    content_in,
    data_in,
    head_of,
    pieces_in,
    shielding_data,
    with_head,
)

FILE = shielding_data(FABRIC, OTHER_FABRIC)
DATA = data_in(FILE)
DOCUMENT = head_of(FILE)
OTHER_FILE = shielding_data(FABRIC, content=replace(CONTENT, files=()))
OTHER = head_of(OTHER_FILE)
LARGE = shielding_data(content=replace(CONTENT, files=(GuestFile("/a", 0o600, bytes(3 * PIECE)),)))


def _changed(**members: Any) -> bytes:
    return with_head(FILE, DOCUMENT | members)


def _said(signer: Any = OWNER, **members: Any) -> bytes:
    return _changed(signed=signed(said(DOCUMENT["signed"]) | members, signer))


def test_the_label_is_open() -> None:
    assert (DATA.id, DATA.level, DATA.owner, DATA.made_at) == (FILE_ID, SHIELDED, OWNER.guardian, NOW)
    assert DATA.label == replace(LABEL, asks_for=frozenset({"HostName", "IP4Addr-1"}))
    assert DATA.protector.guardians == (FABRIC.guardian, OTHER_FABRIC.guardian)
    assert DATA.protector.chain.statement.makes_machines


def test_the_digest_is_that_of_the_head_which_names_the_rest() -> None:
    assert parse_head(FILE.splitlines(keepends=True)[0]).digest == DATA.digest
    assert data_in(_said(name="others")).digest != DATA.digest
    assert data_in(OTHER_FILE).digest != DATA.digest


@pytest.mark.parametrize("keys", [OWNER, FABRIC, OTHER_FABRIC])
def test_the_owner_and_each_guardian_open_it(keys: Any) -> None:
    assert content_in(FILE, open_protector(DATA.protector, keys.encryption)) == CONTENT


def test_nobody_else_opens_it() -> None:
    with pytest.raises(errors.ProtectorUnopened):
        open_protector(DATA.protector, STRANGER.encryption)
    with pytest.raises(errors.SecretsRefused):
        content_in(FILE, bytes(32))


def test_nothing_that_is_secret_is_in_the_file() -> None:
    tokens = (DOCUMENT["signed"], *pieces_in(FILE))
    decoded = b"".join(jose.from_b64u(part) for token in tokens for part in token.split("."))
    for seen in (FILE, decoded):
        assert b"marker" not in seen
        assert b"login" not in seen
        assert b"ssh_host" not in seen


@pytest.mark.parametrize(
    ("file", "error"),
    [
        (_said(STRANGER), errors.ShieldingDataRefused),
        (_said(FABRIC, name="mine"), errors.ShieldingDataRefused),
        (_said(pieces=data_in(OTHER_FILE).pieces), errors.ShieldingDataRefused),
        (_said(pieces=[]), errors.MalformedShieldingData),
        (_said(pieces=list(DATA.pieces) * (MOST_PIECES + 1)), errors.MalformedShieldingData),
        (_said(pieces=["AA"]), errors.MalformedShieldingData),
        (_said(pieces=None), errors.MalformedShieldingData),
        (_said(id=str(protector()["id"])), errors.ShieldingDataRefused),
        (_changed(signed=OTHER["signed"]), errors.ShieldingDataRefused),
        (_changed(protector=protector(FABRIC)), errors.ShieldingDataRefused),
        (_changed(protector=DOCUMENT["protector"] | {"seal": OTHER["protector"]["seal"]}), errors.ProtectorSeal),
        (_changed(protector={}), errors.MalformedShieldingData),
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
        (b"", errors.MalformedShieldingData),
        (b"\n", errors.MalformedShieldingData),
        (b"[]\n", errors.MalformedShieldingData),
        (b"\xff\n", errors.MalformedShieldingData),
        (FILE.splitlines()[0], errors.MalformedShieldingData),
        (b" " * HEAD_LIMIT + FILE, errors.MalformedShieldingData),
    ],
)
def test_a_file_that_its_owner_has_not_made_is_refused(file: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        data_in(file)


def _harms(lines: list[bytes]) -> dict[str, list[bytes]]:
    head, *pieces = lines
    return {
        "a piece altered": [head, pieces[0][:-3] + b"AA\n", *pieces[1:]],
        "the last altered": [*lines[:-1], lines[-1][:-3] + b"AA\n"],
        "the last dropped": lines[:-1],
        "one dropped": [head, *pieces[1:]],
        "two exchanged": [head, pieces[1], pieces[0], *pieces[2:]],
        "one twice": [head, pieces[0], *pieces],
        "the last twice": [*lines, lines[-1]],
        "one of another file": [head, OTHER_FILE.splitlines(keepends=True)[1], *pieces[1:]],
        "cut within a piece": [*lines[:-1], lines[-1][:-9]],
        "cut before the last end of a line": [*lines[:-1], lines[-1][:-1]],
        "lines of another system": [head, *(piece.replace(b"\n", b"\r\n") for piece in pieces)],
        "an empty line between": [head, pieces[0], b"\n", *pieces[1:]],
        "one that does not end": [head, b"A" * SHIELDING_DATA_LIMIT],
        "not ASCII": [head, b"\xff\xfe\n", *pieces[1:]],
        "a byte behind": [*lines, b" "],
    }


@pytest.mark.parametrize("harm", _harms([b""] * 6))
def test_a_piece_that_is_not_as_it_was_signed_is_found_where_it_stands(harm: str) -> None:
    lines = LARGE.splitlines(keepends=True)
    assert len(lines) == 5
    file = b"".join(_harms(lines)[harm])
    with pytest.raises(errors.ShieldingDataRefused):
        data_in(file)
    with pytest.raises(errors.ShieldingDataRefused):
        content_in_unread(file)


def content_in_unread(file: bytes) -> Content:
    """Open a file as a host does, which reads it once."""
    return open_content(parse_head(file.split(b"\n", 1)[0] + b"\n"), pieces_in(file), KEY)


def test_no_more_than_a_piece_is_held_while_a_file_is_verified() -> None:
    files = tuple(GuestFile(f"/{number}", 0o600, bytes(FILE_LIMIT)) for number in range(FILES_LIMIT // FILE_LIMIT))
    stream = io.BytesIO(shielding_data(content=replace(CONTENT, files=files)))
    tracemalloc.start()
    verify_shielding_data(stream)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert stream.getbuffer().nbytes > 40 * PIECE
    assert peak < 16 * PIECE


def test_the_owner_s_own_lie_about_the_places_is_found_when_it_is_opened() -> None:
    with pytest.raises(errors.SecretsRefused, match="other values"):
        content_in(_said(asks_for=["HostName"]), KEY)


def test_content_of_another_file_does_not_open() -> None:
    header, *rest = next(pieces_in(FILE)).split(".")
    kid = jose.read_json(jose.from_b64u(header), limit=512) | {"kid": str(protector()["id"])}
    with pytest.raises(errors.SecretsRefused, match="another"):
        open_content(DATA, [".".join([to_b64u(jose.canonical(kid)), *rest])], KEY)


def test_an_altered_content_does_not_open() -> None:
    *rest, tag = next(pieces_in(FILE)).split(".")
    with pytest.raises(errors.SecretsRefused):
        open_content(DATA, [".".join([*rest, tag[::-1]])], KEY)


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
    data = data_in(shielding_data(label=replace(LABEL, volumes=(ACCEPTED, exactly))))
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


@pytest.mark.parametrize("cut", [1, 7, 64, 10_000])
def test_content_is_read_however_it_comes(cut: int) -> None:
    whole = b"".join(build_content(CONTENT))
    assert parse_content(whole[start : start + cut] for start in range(0, len(whole), cut)) == CONTENT


def test_the_largest_content_fits() -> None:
    sizes = [FILE_LIMIT] * (FILES_LIMIT // FILE_LIMIT)
    sizes += [FILES_LIMIT - sum(sizes)] + [0] * (MOST_FILES - len(sizes) - 1)
    files = tuple(GuestFile(f"/{number:0>254}", 0o600, bytes(size)) for number, size in enumerate(sizes))
    file = shielding_data(content=Content("#!" + "é" * (64 * 1024 - 2), "n" * 16 * 1024, files, {}))
    assert content_in(file, KEY).files == files
    assert len(file) < SHIELDING_DATA_LIMIT


def test_it_is_sealed_in_as_many_pieces_as_it_needs() -> None:
    for size, pieces in ((0, 1), (PIECE, 2), (4 * PIECE, 5)):
        content = replace(CONTENT, files=(GuestFile("/a", 0o600, bytes(size)),))
        assert len(list(seal_content(content, KEY, of=FILE_ID))) == pieces


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
        replace(CONTENT, files=(GuestFile("/etc/x", 0, bytes(FILE_LIMIT + 1)),)),
        replace(CONTENT, files=tuple(GuestFile(f"/{number}", 0, bytes(FILE_LIMIT)) for number in range(6))),
        replace(CONTENT, files=tuple(GuestFile(f"/{number}", 0, b"") for number in range(MOST_FILES + 1))),
    ],
)
def test_content_that_no_guest_could_use_is_refused_where_it_is_made(content: Content) -> None:
    with pytest.raises(errors.MalformedShieldingData):
        build_content(content)


@pytest.mark.parametrize(
    "stream",
    [
        [],
        [b"{}"],
        [b" "] * (OPENING_LIMIT + 2),
        [*build_content(CONTENT)][:-1],
        [*build_content(CONTENT), b"\0"],
        [*build_content(CONTENT), b"", b"\n"],
    ],
)
def test_content_that_is_not_whole_or_not_bounded_is_refused(stream: list[bytes]) -> None:
    with pytest.raises(errors.MalformedShieldingData):
        parse_content(stream)


def test_a_version_is_compared_by_its_numbers() -> None:
    assert replace(ACCEPTED, version=parse_version("12.1.0")) == ACCEPTED
