"""Lines of IMA lists are read whole or refused, and a list in text is the list in bytes."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.core.ima import IMA_LIMIT, Extension, ima_records, ima_values, replay_ima
from attestation.core.ima_templates import (
    BootAggregate,
    ImaEntry,
    binary_from_text,
    boot_aggregate,
    decode_line,
    ima_entries,
    is_text,
    path_and_digest,
)
from attestation.errors import ParseError, TooLarge
from tests.boot_logs import CAPTURES, COLLECTION, boot
from tests.ima_lists import fields, legacy, line_of, ng, record, sha256_digest, sig, violated

DIGEST = hashlib.sha256(b"content").digest()
D_NG = sha256_digest(b"content")
SHA512 = b"sha512:\0" + bytes(64)


def decoded(name: bytes, *contents: bytes) -> ImaEntry:
    return decode_line(line_of(record(fields(*contents), name=name)))


def collected() -> list[dict[str, Any]]:
    index = COLLECTION / "index.json"
    entries = json.loads(index.read_text()) if index.exists() else []
    return [each for each in entries if each["kind"] == "ima" and each.get("format", "").startswith("ascii")]


@pytest.mark.parametrize("folder", sorted(CAPTURES.iterdir()), ids=lambda folder: folder.name)
def test_the_text_of_a_capture_is_its_binary_list(folder: Path) -> None:
    text, binary = (folder / "ima.txt").read_bytes(), (folder / "ima.bin").read_bytes()
    assert is_text(text)
    assert not is_text(binary)
    assert binary_from_text(text) == binary
    assert replay_ima(binary_from_text(text), quoted=boot(folder.name).pcrs[10], bank="sha256").entries == 4


@pytest.mark.skipif(not collected(), reason="the collection of other people's lists is not on this machine")
def test_the_collections_texts_are_read_as_its_index_says() -> None:
    for each in collected():
        data = binary_from_text((COLLECTION / each["file"]).read_bytes())
        entries = [entry for _, entry, _ in ima_entries(data)]
        violations = sum(violation for _, _, violation in ima_entries(data))
        assert (len(entries), violations) == (each["n_events"], each["violations"]), each["file"]
        assert {entry.template for entry in entries} == set(each["templates"])
    assert len(collected()) == 9


@pytest.mark.skipif(not collected(), reason="the collection of other people's lists is not on this machine")
@pytest.mark.parametrize("name", ["*keylime-perf-tests/ima_log.txt", "keylime_keylime/ima-log-sha256"])
def test_real_texts_hash_to_the_digests_that_they_list(name: str) -> None:
    (file,) = COLLECTION.glob(name)
    data = binary_from_text(file.read_bytes())
    for _, listed, line, start, _ in ima_records(data):
        assert listed == hashlib.sha1(line[start:], usedforsecurity=False).digest()


@pytest.mark.skipif(not collected(), reason="the collection of other people's lists is not on this machine")
def test_real_texts_lead_to_the_values_of_the_index() -> None:
    for each in collected():
        if "sha1" in each["pcr10_replay"]:  # the index took the digests that are listed; a sm3 list has no such value
            data = binary_from_text((COLLECTION / each["file"]).read_bytes())
            value = ima_values(data, bank="sha1", extension=Extension.REHASHED)[10].hex()
            assert value == each["pcr10_replay"]["sha1"], each["file"]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (ng(b"/init"), ImaEntry("ima-ng", b"/init", "sha256", DIGEST)),
        (sig(b"/init"), ImaEntry("ima-sig", b"/init", "sha256", DIGEST)),
        (sig(b"/init", signature=b"\3\2"), ImaEntry("ima-sig", b"/init", "sha256", DIGEST, b"\3\2")),
        (legacy(b"/old", b"\5" * 20), ImaEntry("ima", b"/old", "sha1", b"\5" * 20)),
        (violated(ng(b"/tmp/x")), ImaEntry("ima-ng", b"/tmp/x", "sha256", DIGEST)),
    ],
)
def test_the_usual_templates_are_read(entry: bytes, expected: ImaEntry) -> None:
    assert decode_line(line_of(entry)) == expected


def test_the_other_templates_are_read() -> None:
    name = b"/x\0"
    assert decoded(b"ima-buf", D_NG, b"kexec-cmdline\0", b"ro quiet").buffer == b"ro quiet"
    modsig = decoded(b"ima-modsig", D_NG, name, b"", SHA512, b"pkcs7")
    assert (modsig.modsig, modsig.modsig_digest) == (b"pkcs7", "sha512:" + "00" * 64)
    assert decoded(b"ima-modsig", D_NG, name, b"", b"", b"").modsig_digest == ""
    assert decoded(b"ima-ngv2", b"ima:" + D_NG, name).file_digest == "sha256:" + DIGEST.hex()
    assert decoded(b"ima-sigv2", b"verity:" + D_NG, name, b"s").algorithm == "verity:sha256"
    assert decoded(b"d-ng|n-ng|buf|sig", D_NG, name, b"b", b"s").signature == b"s"
    assert decoded(b"ima-ng", b"sm3_256:\0" + bytes(32), name).algorithm == "sm3_256"


@pytest.mark.parametrize("entry", [ng(b"/a b\nc\x1b[2J"), ng("/ü".encode()), ng(b"/\xff")])
def test_a_path_is_kept_as_it_is_and_shown_without_harm(entry: bytes) -> None:
    shown = decode_line(line_of(entry)).shown_path
    assert shown.isprintable()
    assert shown in {"/a b\\nc\\x1b[2J", "/ü", "/\\xff"}


LINE = line_of(ng(b"/init"))

BROKEN_LINES = {
    "nothing": b"",
    "no data": LINE[:10],
    "cut": LINE[:-1],
    "more than its fields": line_of(record(fields(D_NG, b"/x\0", b""))),
    "a field too few": line_of(record(fields(D_NG, b"/x\0"), name=b"ima-sig")),
    "an unknown template": line_of(record(fields(D_NG, b"/x\0"), name=b"ima-new")),
    "a template without a name": line_of(record(fields(D_NG), name=b"d-ng")),
    "a template without a digest": line_of(record(fields(b"/x\0"), name=b"n-ng")),
    "a field twice": line_of(record(fields(D_NG, b"/x\0", b"", b""), name=b"d-ng|n-ng|sig|sig")),
    "a path before its digest": line_of(record(fields(b"/x\0", D_NG), name=b"n-ng|d-ng")),
    "another digest before the file's": line_of(record(fields(D_NG, b"/x\0", D_NG), name=b"d-modsig|n-ng|d-ng")),
    "two digests of the file": line_of(record(fields(D_NG, b"/x\0", D_NG), name=b"d-ngv2|n-ng|d-ng")),
    "a template that is not ASCII": line_of(record(fields(D_NG, b"/x\0"), name=b"\xff")),
    "a path without its NUL": line_of(record(fields(D_NG, b"/x"))),
    "no path": line_of(record(fields(D_NG, b""))),
    "a path with a NUL inside": line_of(record(fields(D_NG, b"/bin/true\0/bin/evil\0"))),
    "a path that is too long": line_of(ng(b"/" + b"x" * 4096)),
    "a digest of the wrong size": line_of(record(fields(b"sha256:\0" + bytes(20), b"/x\0"))),
    "a digest without an algorithm": line_of(record(fields(bytes(32), b"/x\0"))),
    "an empty algorithm": line_of(record(fields(b":\0" + bytes(32), b"/x\0"))),
    "an algorithm with a line break": line_of(record(fields(b"a\nb:\0" + bytes(32), b"/x\0"))),
    "a digest of nothing": line_of(record(fields(b"sm3_256:\0", b"/x\0"))),
    "a huge digest": line_of(record(fields(b"other:\0" + bytes(65), b"/x\0"))),
    "a field beyond the entry": line_of(record(b"\xff\xff\xff\xff" + D_NG)),
    "a legacy path with a NUL": line_of(legacy(b"/bin/true\0x", bytes(20))),
    "a legacy entry with more behind": line_of(legacy(b"/x", bytes(20))) + b"y",
}


@pytest.mark.parametrize("line", BROKEN_LINES.values(), ids=BROKEN_LINES)
def test_a_broken_line_is_refused(line: bytes) -> None:
    with pytest.raises(ParseError, match=r"byte|digest|template"):
        decode_line(line)
    with pytest.raises(ParseError):
        path_and_digest(line)


def test_a_broken_entry_of_a_list_is_refused_with_where_it_ends() -> None:
    data = ng(b"/x") + record(b"x")
    with pytest.raises(ParseError, match=f"byte {len(data)} of the list"):
        list(ima_entries(data))


# What kernels write in text, and in bytes; the words of a field are those of its template (ima_template_lib.c).
DIGEST_OF_LEGACY = hashlib.sha256(b"\5" * 20 + b"/old".ljust(256, b"\0")).digest()
SIGNED = b"\3\2\4 signature"
IN_BOTH_FORMS = {
    "ima": (b"ima " + (b"\5" * 20).hex().encode() + b" /old", legacy(b"/old", b"\5" * 20)),
    "ima-ng": (b"ima-ng sha256:" + DIGEST.hex().encode() + b" /init", ng(b"/init")),
    "ima-sig": (
        b"ima-sig sha256:" + DIGEST.hex().encode() + b" /init " + SIGNED.hex().encode(),
        sig(b"/init", signature=SIGNED),
    ),
    "ima-buf": (
        b"ima-buf sha256:" + DIGEST.hex().encode() + b" kexec-cmdline " + b"ro quiet".hex().encode(),
        record(fields(D_NG, b"kexec-cmdline\0", b"ro quiet"), name=b"ima-buf"),
    ),
    "ima-modsig": (
        b"ima-modsig sha256:" + DIGEST.hex().encode() + b" /x.ko  sha512:" + bytes(64).hex().encode() + b" 706b",
        record(fields(D_NG, b"/x.ko\0", b"", SHA512, b"pk"), name=b"ima-modsig"),
    ),
}


@pytest.mark.parametrize("template", IN_BOTH_FORMS)
@pytest.mark.parametrize("violation", [False, True], ids=["a measurement", "a violation"])
def test_every_template_is_the_same_in_text_and_in_bytes(template: str, violation: bool) -> None:
    words, entry = IN_BOTH_FORMS[template]
    entry = violated(entry) if violation else entry
    text = b"10 " + entry[4:24].hex().encode() + b" " + words
    assert binary_from_text(text + b"\n" + text) == entry * 2
    assert decode_line(line_of(binary_from_text(text))).template == template
    values = ima_values(binary_from_text(text), bank="sha256", extension=Extension.REHASHED)
    template_data = entry[entry.index(template.encode()) + len(template) :]
    hashed = DIGEST_OF_LEGACY if template == "ima" else hashlib.sha256(template_data[4:]).digest()
    assert values[10] == hashlib.sha256(bytes(32) + (b"\xff" * 32 if violation else hashed)).digest()


TEXT = b"10 " + bytes(20).hex().encode() + b" ima-ng sha256:" + DIGEST.hex().encode() + b" /init"

BROKEN_TEXTS = {
    "no fields": b"10",
    "an empty line": TEXT + b"\n\n" + TEXT,
    "a blank path": TEXT.replace(b"/init", b"/in it"),
    "no PCR": TEXT[3:],
    "a PCR in words": b"ten" + TEXT[2:],
    "a PCR with a sign": b"-1" + TEXT[2:],
    "odd digits": TEXT.replace(b"10 0", b"10 "),
    "digits that are none": TEXT.replace(b"10 0", b"10 g"),
    "blanks between the digits": TEXT.replace(b"10 00", b"10 0\t0"),
    "an unknown template": TEXT.replace(b"ima-ng", b"ima-new"),
    "a template that is not ASCII": TEXT.replace(b"ima-ng", b"\xff"),
    "a digest without algorithm": TEXT.replace(b"sha256:", b""),
    "a legacy digest of SHA-256": TEXT.replace(b"ima-ng sha256:", b"ima "),
    "a legacy path too few": TEXT.replace(b"ima-ng sha256:", b"ima ").removesuffix(b" /init"),
    "a path broken by a newline": TEXT.replace(b"/init", b"/in\nit"),
    "a binary list": ng(b"/init"),
}


@pytest.mark.parametrize("text", BROKEN_TEXTS.values(), ids=BROKEN_TEXTS)
def test_a_broken_text_is_refused_with_the_byte_of_its_line(text: bytes) -> None:
    with pytest.raises(ParseError, match="line at byte"):
        binary_from_text(text)


def test_a_text_above_the_limit_is_not_looked_at() -> None:
    with pytest.raises(TooLarge):
        binary_from_text(bytes(IMA_LIMIT + 1))


def test_a_later_line_is_refused_where_it_begins() -> None:
    with pytest.raises(ParseError, match=f"line at byte {len(TEXT) + 1} "):
        binary_from_text(TEXT + b"\nx")


def test_a_blank_that_an_editor_took_away_is_an_empty_field() -> None:
    text = TEXT.replace(b"ima-ng", b"ima-sig")
    assert binary_from_text(text) == binary_from_text(text + b" \n")


PCRS = {pcr: bytes((pcr,)) * 32 for pcr in range(11)}


def aggregate(pcrs: range, algorithm: str = "sha256") -> ImaEntry:
    digest = hashlib.new(algorithm, b"".join(PCRS[pcr] for pcr in pcrs)).digest()
    return ImaEntry("ima-ng", b"boot_aggregate", algorithm, digest)


def test_the_boot_aggregate_of_new_and_old_kernels_is_known() -> None:
    assert boot_aggregate(aggregate(range(10)), pcrs=PCRS, bank="sha256") is BootAggregate.PCRS_0_TO_9
    assert boot_aggregate(aggregate(range(8)), pcrs=PCRS, bank="sha256") is BootAggregate.PCRS_0_TO_7


@pytest.mark.parametrize("folder", sorted(CAPTURES.iterdir()), ids=lambda folder: folder.name)
def test_a_captures_boot_aggregate_is_that_of_its_tpm(folder: Path) -> None:
    captured = boot(folder.name)
    _, entry, _ = next(ima_entries(captured.ima))
    assert boot_aggregate(entry, pcrs=captured.pcrs, bank="sha256") is BootAggregate.PCRS_0_TO_9


def test_another_boot_aggregate_differs_and_another_banks_is_unproven() -> None:
    assert boot_aggregate(aggregate(range(9)), pcrs=PCRS, bank="sha256") is BootAggregate.DIFFERS
    assert boot_aggregate(aggregate(range(10), "sha1"), pcrs=PCRS, bank="sha256") is BootAggregate.UNPROVEN
    assert boot_aggregate(aggregate(range(8)), pcrs=dict(list(PCRS.items())[:8]), bank="sha256") is (
        BootAggregate.UNPROVEN
    )


@given(st.binary(max_size=120), st.sampled_from([b"", LINE[:10], LINE[:14], LINE[:18], LINE[:60], line_of(sig(b"/x"))]))
def test_any_line_is_an_entry_or_refused_and_the_quick_reading_agrees(data: bytes, head: bytes) -> None:
    line = head + data
    try:
        entry = decode_line(line)
    except ParseError:
        with pytest.raises(ParseError):
            path_and_digest(line)
    else:
        assert path_and_digest(line) == (entry.path, entry.template_digest)
        assert entry.shown_path.isprintable()


@given(
    st.sampled_from([LINE, line_of(sig(b"/x")), line_of(sig(b"/x", signature=b"\3\2signature"))]),
    st.binary(max_size=60),
    st.integers(0, 100),
    st.integers(0, 8),
)
def test_a_damaged_line_is_read_alike_in_both_ways(line: bytes, patch: bytes, at: int, drop: int) -> None:
    line = line[:at] + patch + line[at + drop :]
    try:
        entry = decode_line(line)
    except ParseError:
        with pytest.raises(ParseError):
            path_and_digest(line)
    else:
        assert path_and_digest(line) == (entry.path, entry.template_digest)


@given(st.binary(max_size=200), st.integers(0, len(TEXT)))
def test_any_text_is_a_list_or_refused(data: bytes, at: int) -> None:
    for text in (data, TEXT[:at] + data, TEXT + b"\n" + data):
        try:
            for _ in ima_entries(binary_from_text(text)):
                pass
        except ParseError:
            pass
