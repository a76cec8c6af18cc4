"""What a host runs is held against what somebody approved: everything else is found, named and counted."""

import contextlib
import hashlib
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from attestation.core.finding import Finding
from attestation.core.ima import Extension, ImaPosition, ImaReplay, replay_list
from attestation.core.ima_signature import parse_signer
from attestation.core.ima_templates import decode_line, path_and_digest, usual_line
from attestation.core.runtime import KnownLines, RuntimePolicy, amend, appraise_runtime, template_digest
from attestation.core.runtime_findings import SHOWN_FINDINGS
from attestation.core.runtime_text import parse_runtime_text
from attestation.errors import ParseError
from tests.boot_logs import boot
from tests.ima_lists import fields, legacy, line_of, ng, pcr_10, record, sha256_digest, sig, violated
from tests.ima_signing import certificate, ima_signature

PCRS = {pcr: bytes((pcr,)) * 32 for pcr in range(11)}
START = record(fields(b"sha256:\0" + hashlib.sha256(b"".join(list(PCRS.values())[:10])).digest(), b"boot_aggregate\0"))
FILES = [ng(b"/init", b"init"), ng(b"/bin/sh", b"sh"), sig(b"/bin/true", b"true"), legacy(b"/etc/old", b"\5" * 20)]
KEY = ec.derive_private_key(7, ec.SECP256R1())
SIGNER = parse_signer(certificate(KEY))
NOTHING = RuntimePolicy({}, (), ())


def replayed(*entries: bytes, after: ImaPosition | None = None, known: KnownLines | None = None) -> ImaReplay:
    data = b"".join(entries)
    extra = {"after": after} if after else {}
    return replay_list(
        data,
        quoted=pcr_10(data),
        bank="sha256",
        extension=Extension.REHASHED,
        known=known.digests if known else None,
        **extra,
    )


def found(policy: RuntimePolicy, *entries: bytes) -> tuple[Finding, ...]:
    return appraise_runtime(replayed(START, *entries), policy, pcrs=PCRS)


def codes(findings: tuple[Finding, ...]) -> list[str]:
    return [finding.code for finding in findings]


APPROVED = RuntimePolicy.from_list(replayed(START, *FILES).fresh)


def test_a_host_that_runs_what_the_reference_host_ran_passes() -> None:
    assert found(APPROVED, *FILES) == ()
    assert found(APPROVED, FILES[1]) == ()


def test_a_capture_passes_its_own_policy_and_no_other_boots() -> None:
    on, off = boot("secureboot-on"), boot("secureboot-off")
    replay = replay_list(on.ima, quoted=on.pcrs[10], bank="sha256", extension=Extension.REHASHED)
    policy = RuntimePolicy.from_list(replay.fresh)
    assert sorted(policy.accepted) == [b"/bin/agent.sh", b"/bin/busybox", b"/init"]
    assert appraise_runtime(replay, policy, pcrs=on.pcrs) == ()
    assert codes(appraise_runtime(replay, policy, pcrs=off.pcrs)) == ["ima_boot_aggregate"]


def test_a_policy_that_names_nothing_accepts_nothing() -> None:
    assert codes(found(NOTHING, *FILES)) == ["ima_unknown_file"] * len(FILES)


def test_an_unknown_file_is_named_with_its_digest() -> None:
    (finding,) = found(APPROVED, *FILES, ng(b"/tmp/x", b"evil"))
    assert finding.code == "ima_unknown_file"
    assert finding.substatus == "CodeIntegrityPolicy"
    assert finding.what == "“/tmp/x” was measured, and nobody approved it."
    assert hashlib.sha256(b"evil").hexdigest() in finding.why
    assert finding.pcrs == (10,)


def test_a_changed_file_is_named_with_both_digests() -> None:
    (finding,) = found(APPROVED, ng(b"/bin/sh", b"evil"))
    assert finding.code == "ima_changed_file"
    assert hashlib.sha256(b"evil").hexdigest() in finding.why
    assert hashlib.sha256(b"sh").hexdigest() in finding.why


def test_a_digest_counts_under_its_own_path_only() -> None:
    assert codes(found(APPROVED, ng(b"/bin/sh", b"init"))) == ["ima_changed_file"]


def test_a_digest_counts_in_any_template() -> None:
    versioned = record(fields(b"ima:" + sha256_digest(b"sh"), b"/bin/sh\0"), name=b"ima-ngv2")
    assert found(APPROVED, sig(b"/bin/sh", b"sh"), versioned) == ()


@pytest.mark.parametrize(
    "digest",
    [
        pytest.param(b"verity:" + sha256_digest(b"sh"), id="an fs-verity digest"),
        pytest.param(b"sm3_256:\0" + hashlib.sha256(b"sh").digest(), id="another algorithm"),
        pytest.param(b"SHA256:\0" + hashlib.sha256(b"sh").digest(), id="another spelling"),
    ],
)
def test_the_same_bytes_as_another_kind_of_digest_do_not_count(digest: bytes) -> None:
    for name in (b"ima-ng", b"ima-ngv2"):
        assert codes(found(APPROVED, record(fields(digest, b"/bin/sh\0"), name=name))) == ["ima_changed_file"]


def test_amending_accepts_one_digest_under_one_path_and_leaves_the_old_policy_alone() -> None:
    digest = "sha256:" + hashlib.sha256(b"new").hexdigest()
    amended = amend(APPROVED, b"/bin/sh", digest)
    assert found(amended, ng(b"/bin/sh", b"new"), ng(b"/bin/sh", b"sh")) == ()
    assert codes(found(APPROVED, ng(b"/bin/sh", b"new"))) == ["ima_changed_file"]
    assert codes(found(amended, ng(b"/bin/other", b"new"))) == ["ima_unknown_file"]
    assert amend(amended, b"/bin/sh", digest) is amended


def test_what_a_finding_shows_is_what_amending_takes() -> None:
    entry = decode_line(line_of(ng(b"/tmp/x", b"mine")))
    assert found(amend(NOTHING, entry.path, entry.file_digest), ng(b"/tmp/x", b"mine")) == ()
    assert template_digest(entry.file_digest) == entry.template_digest


@pytest.mark.parametrize(
    "digest",
    [
        *("", "sha256", "sha256:", "sha256:00", "md5:" + "00" * 16, "sha256:" + "0g" * 32, "sha256:" + "00 " * 32),
        *("sha1:" + "00" * 32, "SHA256:" + "00" * 32, "ima:sha256:" + "00" * 32, "verity:" + "00" * 32, ":" + "00"),
    ],
)
def test_a_digest_that_is_none_is_refused(digest: str) -> None:
    with pytest.raises(ParseError, match="file digest"):
        amend(NOTHING, b"/bin/sh", digest)


@pytest.mark.parametrize("path", [b"", b"boot_aggregate", b"/a\0b", b"/" + b"x" * 4096])
def test_a_path_that_cannot_be_approved_is_refused(path: bytes) -> None:
    with pytest.raises(ParseError, match="path"):
        amend(NOTHING, path, "sha256:" + "00" * 32)


def test_digests_of_one_path_are_bounded() -> None:
    many = replace(NOTHING, accepted={b"/x": tuple(bytes((each,)) for each in range(256))})
    with pytest.raises(ParseError, match="256"):
        amend(many, b"/x", "sha256:" + "00" * 32)
    lines = [b"sha256:%064x  /x\n" % number for number in range(257)]
    assert len(parse_runtime_text(b"".join(lines[:256])).accepted[b"/x"]) == 256
    with pytest.raises(ParseError, match="256"):
        parse_runtime_text(b"".join(lines))


def test_an_excluded_folder_and_an_excluded_file_are_not_looked_at() -> None:
    policy = RuntimePolicy({}, (b"/var/tmp/", b"/etc/one"), ())
    assert found(policy, ng(b"/var/tmp/a/b"), ng(b"/etc/one")) == ()
    beside = [ng(b"/var/tmp"), ng(b"/var/tmpx/a"), ng(b"/etc/one.d"), ng(b"var/tmp/a"), ng(b"/x/var/tmp/a")]
    assert codes(found(policy, *beside)) == ["ima_unknown_file"] * len(beside)


@pytest.mark.parametrize("exclude", [b"", b"/", b"tmp/", b".*", b"boot_aggregate", b"/a\0", b"/" + b"x" * 4096])
def test_an_exclude_that_covers_everything_or_nothing_is_refused(exclude: bytes) -> None:
    with pytest.raises(ParseError):
        RuntimePolicy({}, (exclude,), ())


def test_excludes_are_bounded() -> None:
    with pytest.raises(ParseError, match="1000"):
        RuntimePolicy({}, tuple(b"/%d" % each for each in range(1001)), ())


def test_a_policy_cannot_accept_a_boot_aggregate() -> None:
    with pytest.raises(ParseError):
        RuntimePolicy({b"boot_aggregate": (sha256_digest(b"x"),)}, (), ())


@pytest.mark.parametrize("policy", [APPROVED, replace(APPROVED, excludes=(b"/init", b"/bin/"))])
def test_a_violation_is_found_whatever_name_it_bears(policy: RuntimePolicy) -> None:
    (finding,) = found(policy, *FILES, violated(FILES[1]))
    assert finding.code == "ima_violation"
    assert "The name is not proved." in finding.why


def test_a_violation_without_a_readable_name_is_found() -> None:
    (finding,) = found(APPROVED, record(b"garbage", digest=bytes(20)))
    assert finding.code == "ima_violation"


def test_an_entry_that_cannot_be_read_is_found() -> None:
    (finding,) = found(APPROVED, record(b"garbage"))
    assert finding.code == "ima_unreadable_entry"


def test_a_file_that_a_trusted_key_signed_passes_under_any_path() -> None:
    policy = replace(NOTHING, signers=(SIGNER,))
    digest = hashlib.sha256(b"content").digest()
    signed = sig(b"/usr/bin/any", signature=ima_signature(KEY, digest))
    assert found(policy, signed) == ()
    assert codes(found(NOTHING, signed)) == ["ima_unknown_file"]


SIGNED = ima_signature(KEY, hashlib.sha256(b"content").digest())
STRANGE = ima_signature(ec.derive_private_key(8, ec.SECP256R1()), hashlib.sha256(b"content").digest())


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        pytest.param(sig(b"/x", b"other", signature=SIGNED), "ima_bad_signature", id="moved to another file"),
        pytest.param(sig(b"/x", signature=SIGNED[:-1] + b"x"), "ima_bad_signature", id="damaged"),
        pytest.param(sig(b"/x", signature=SIGNED[:3] + STRANGE[3:7] + SIGNED[7:]), "ima_unknown_file", id="other name"),
        pytest.param(sig(b"/x", signature=STRANGE), "ima_unknown_file", id="by a stranger"),
        pytest.param(sig(b"/x", signature=STRANGE[:3] + SIGNED[3:7] + STRANGE[7:]), "ima_bad_signature", id="forged"),
        pytest.param(sig(b"/x", signature=b"\4\4" + bytes(32)), "ima_bad_signature", id="a hash in its place"),
        pytest.param(sig(b"/x"), "ima_unknown_file", id="unsigned"),
    ],
)
def test_a_signature_that_does_not_hold_saves_nothing(entry: bytes, code: str) -> None:
    assert codes(found(replace(APPROVED, signers=(SIGNER,)), entry)) == [code]


def test_an_approved_digest_needs_no_signature() -> None:
    assert found(replace(APPROVED, signers=(SIGNER,)), sig(b"/bin/sh", b"sh", signature=STRANGE)) == ()


def test_another_boots_aggregate_is_found() -> None:
    assert codes(appraise_runtime(replayed(ng(b"boot_aggregate")), APPROVED, pcrs=PCRS)) == ["ima_boot_aggregate"]
    later = found(APPROVED, ng(b"boot_aggregate", b"second"))
    assert codes(later) == ["ima_boot_aggregate"]


def test_a_list_that_does_not_say_which_boot_it_is_of_is_found() -> None:
    for entries in (FILES, [violated(START), *FILES], [*FILES, ng(b"/x/boot_aggregate", b"init")]):
        assert "ima_boot_aggregate" in codes(appraise_runtime(replayed(*entries), APPROVED, pcrs=PCRS))


def test_a_continuation_need_not_begin_with_a_boot() -> None:
    position = replayed(START).position
    rest = replay_list(
        FILES[0],
        quoted=pcr_10(START + FILES[0]),
        bank="sha256",
        extension=Extension.REHASHED,
        after=position,
    )
    assert appraise_runtime(rest, APPROVED, pcrs=PCRS) == ()


def test_the_first_of_many_findings_are_shown_and_the_others_counted() -> None:
    strange = [ng(b"/tmp/%d" % number) for number in range(100)]
    findings = found(APPROVED, *strange, *(violated(each) for each in strange), ng(b"/init", b"evil"))
    assert len(findings) == 2 * (SHOWN_FINDINGS + 1) + 1
    assert [each.what for each in findings if "more" in each.what] == [
        "80 more files that nobody approved were measured.",
        "80 more files could not be measured.",
    ]


def test_known_lines_are_judged_once() -> None:
    known = KnownLines(APPROVED, "sha256", 100)
    strange = ng(b"/tmp/x")
    first = appraise_runtime(replayed(START, *FILES, strange, known=known), APPROVED, pcrs=PCRS, known=known)
    assert set(known.digests) == {line_of(each) for each in FILES}
    again = replayed(START, *FILES, strange, known=known)
    assert list(again.fresh) == [line_of(START), line_of(strange)]
    assert appraise_runtime(again, APPROVED, pcrs=PCRS, known=known) == first


def test_a_boot_aggregate_is_never_known() -> None:
    known = KnownLines(APPROVED, "sha256", 100)
    assert appraise_runtime(replayed(START), APPROVED, pcrs=PCRS, known=known) == ()
    other = {**PCRS, 0: b"\1" * 32}
    assert codes(appraise_runtime(replayed(START, known=known), APPROVED, pcrs=other, known=known)) == [
        "ima_boot_aggregate"
    ]


def test_known_lines_are_bounded() -> None:
    known = KnownLines(APPROVED, "sha256", 2)
    appraise_runtime(replayed(START, *FILES), APPROVED, pcrs=PCRS, known=known)
    assert len(known.digests) == 2


def test_known_lines_of_another_policy_or_bank_say_nothing() -> None:
    for known in (KnownLines(NOTHING, "sha256", 9), KnownLines(APPROVED, "sha384", 9)):
        with pytest.raises(ValueError, match="another"):
            appraise_runtime(replayed(START), APPROVED, pcrs=PCRS, known=known)


@pytest.mark.parametrize("line", [b"", b"\6\0\0\0ima-ng", line_of(record(b"garbage"))])
def test_a_reference_list_with_a_broken_line_is_refused(line: bytes) -> None:
    with pytest.raises(ParseError):
        RuntimePolicy.from_list([line_of(FILES[0]), line])


@given(st.lists(st.one_of(st.sampled_from([*FILES, ng(b"/x"), violated(ng(b"/y"))]), st.builds(record, st.binary()))))
def test_what_is_not_approved_is_always_found(entries: list[bytes]) -> None:
    bad = {each for each in entries if each not in FILES}
    assert bool(found(APPROVED, *entries)) == bool(bad)


@given(st.text(max_size=90))
def test_any_text_is_a_digest_or_refused(text: str) -> None:
    for each in (text, "sha256:" + text):
        with contextlib.suppress(ParseError):
            assert b":\0" in template_digest(each)


def test_the_usual_line_of_a_file_is_what_a_kernel_writes() -> None:
    for entry in FILES[:2]:
        line = line_of(entry)
        assert usual_line(*path_and_digest(line)) == line
        assert line in APPROVED.usual_lines()


def test_a_policy_that_accepts_more_knows_its_new_lines() -> None:
    line = line_of(ng(b"/opt/new", b"new"))
    assert line not in APPROVED.usual_lines()
    more = amend(APPROVED, b"/opt/new", "sha256:" + hashlib.sha256(b"new").hexdigest())
    assert line in more.usual_lines()
    assert line not in APPROVED.usual_lines()
