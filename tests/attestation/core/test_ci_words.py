"""People read in few sentences what a policy allows and whether it blocks, and line by line what a new one changes."""

import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.core.ci_difference import PolicyChange, ci_difference, policy_rows
from attestation.core.ci_policy import parse_ci_policy
from attestation.core.ci_rules import FileRule, Signer
from attestation.core.ci_words import describe_ci_policy, file_words, signer_words
from attestation.errors import ParseError
from tests.ci_policies import (
    ALLOW_ALL,
    ALWAYS,
    ANY_VERSION,
    AUDIT,
    DENY,
    EVERYTHING,
    KERNEL,
    STRICT,
    SUPPLEMENTAL,
    SUPPLEMENTS,
    UMCI,
    UNSIGNED,
    USER,
    WHQL,
    Code,
    File,
    Policy,
    Rules,
    Signed,
    sign,
    u32,
)


def told(policy: Policy) -> tuple[str, ...]:
    return describe_ci_policy(parse_ci_policy(policy.binary))


def changes(before: Policy, after: Policy) -> set[tuple[str, str, str]]:
    found = ci_difference(parse_ci_policy(before.binary), parse_ci_policy(after.binary))
    return {(change.kind, change.where, change.words) for change in found}


def test_a_policy_is_told_in_sentences() -> None:
    assert told(STRICT) == (
        "Enforces: what no rule allows is blocked.",
        "Allows kernel drivers signed under Microsoft Root Certificate Authority 2010, for Windows hardware drivers "
        "(WHQL), except file name “evil.sys”.",
        "Allows kernel drivers by file rules: 1 by hash.",
        f"Denies kernel drivers signed under the certificate whose signed part has the hash {'00' * 20}, "
        "of the OEM “Fabrikam”.",
        "Denies kernel drivers by file rules: 1 by what the file says of itself.",
        f"Allows programs signed under the certificate whose signed part has the hash {bytes(range(32)).hex()}, "
        "published by “Contoso”, only file name “good.exe”, from version 2.1.0.0.",
        "Allows programs by file rules: 1 by hash, 1 by path.",
        "Only a policy that its one signer has signed may replace it.",
    )


def test_a_policy_that_blocks_nothing_says_so_first() -> None:
    audit = replace(STRICT, flags=STRICT.flags | AUDIT)
    assert told(audit)[0] == "Audits only: nothing is blocked, what would be is written to the event log."


def test_a_policy_that_allows_anything_says_so_next() -> None:
    assert told(ALLOW_ALL)[:3] == (
        "Enforces: what no rule allows is blocked.",
        "One rule allows every kernel driver that no other rule denies.",
        "One rule allows every program that no other rule denies.",
    )


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        (replace(STRICT, flags=ALWAYS), "Programs in user mode are not covered."),
        (Policy(codes=(Code(KERNEL),)), "Allows no kernel drivers."),
        (Policy(), "There is no signing scenario for a kernel driver, so none is checked."),
        (Policy(flags=ALWAYS | UNSIGNED), "It need not be signed: who administers the host may replace it."),
        (Policy(flags=ALWAYS | SUPPLEMENTS), "Supplemental policies may allow more."),
        (Policy(flags=ALWAYS | 1 << 22), "When a blocked driver stops the boot, the host goes on and only audits."),
        (Policy(flags=ALWAYS | 1 << 24), "Scripts are not checked."),
        (Policy(hvci=2), "Hypervisor-enforced code integrity: enabled, strictly."),
        (Policy(hvci=64), "Hypervisor-enforced code integrity: 0x40."),
        (
            Policy(flags=ALWAYS | SUPPLEMENTAL),
            "It adds to the policy a244370e-44c9-4c06-b551-f6016e563076 and does nothing without it.",
        ),
        (
            Policy(format=9, newest=(u32(0), u32(1, 0, 0, 0, 0), b"", b"")),
            "It has 1 rules of newer kinds, which are listed and not judged.",
        ),
    ],
)
def test_what_matters_is_told(policy: Policy, sentence: str) -> None:
    assert sentence in told(policy)


def test_a_signature_is_told_for_what_it_is() -> None:
    sentence = "The file is signed; the signature is not checked here, and hosts do not measure it."
    assert sentence in describe_ci_policy(parse_ci_policy(sign(STRICT.binary)))
    assert sentence not in told(STRICT)


def test_signers_that_differ_in_their_purpose_share_a_sentence() -> None:
    elam = bytes.fromhex("010a2b0601040182373d0401")
    signers = (Signed(6, ekus=(0,)), Signed(6, ekus=(1,)), Signed(5, ekus=(0,)), Signed(6, ekus=(0,)))
    policy = Policy(
        ekus=(WHQL, elam), signers=signers, codes=(Code(KERNEL, Rules(allowed=tuple((at, ()) for at in range(4)))),)
    )
    assert [sentence for sentence in told(policy) if sentence.startswith("Allows")] == [
        "Allows kernel drivers signed under Microsoft Root Certificate Authority 2010, for Windows hardware drivers "
        "(WHQL) or early launch antimalware drivers.",
        "Allows kernel drivers signed under Microsoft Root Certificate Authority 2001, for Windows hardware drivers "
        "(WHQL).",
    ]


def test_a_signer_for_any_purpose_is_not_hidden_by_one_for_some() -> None:
    policy = Policy(
        ekus=(WHQL,),
        signers=(Signed(6, ekus=(0,)), Signed(6)),
        codes=(Code(KERNEL, Rules(allowed=((0, ()), (1, ())))),),
    )
    assert "Allows kernel drivers signed under Microsoft Root Certificate Authority 2010." in told(policy)


def test_many_signers_are_counted_and_not_listed() -> None:
    signers = tuple(Signed(bytes((at,)) * 20) for at in range(200))
    policy = Policy(signers=signers, codes=(Code(KERNEL, Rules(allowed=tuple((at, ()) for at in range(200)))),))
    sentences = told(policy)
    assert len(sentences) < 40
    assert "Allows kernel drivers of 176 signers more." in sentences


@pytest.mark.parametrize(
    ("signer", "words"),
    [
        (Signer(well_known=2), "signed under any self-signed certificate"),
        (Signer(well_known=77), "signed under well-known root 77"),
        (Signer(well_known=6, issuer="CA"), "signed under Microsoft Root Certificate Authority 2010, issued by “CA”"),
        (Signer(b"\1", ekus=("1.2.3",), except_ekus=("1.3.6.1.5.5.7.3.3",)), "for 1.2.3, not for code signing"),
        (Signer(b"\1", signed_after=132223104000000000), "signed after 2020-01-01"),
        (Signer(b"\1", signed_after=2**64 - 1), "signed after file time 18446744073709551615"),
        (Signer(b"\1", publisher="x" * 500), f"published by “{'x' * 119}…”"),
        (
            Signer(b"\1", files=(FileRule("attribute", "a"),) * 5),
            "only file name “a”; file name “a”; file name “a”; 2 more",
        ),
        (Signer(b"\1", ekus=("1.2.3",) * 20), "1.2.3 and 8 more"),
    ],
)
def test_a_signer_is_told_with_its_conditions(signer: Signer, words: str) -> None:
    assert words in signer_words(signer)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (FileRule("allow", hash=b"\xab" * 4), "the file with hash abababab"),
        (FileRule("allow", hash=bytes(5000)), f"the file with hash {'0' * 119}…"),
        (FileRule("deny", "a", "65535.65535.65535.65535"), "file name “a”"),
        (FileRule("deny", "a", "2.0.0.0"), "file name “a”, below version 2.0.0.0"),
        (FileRule("deny", "a", "2.0.0.0", "3.0.0.0"), "file name “a”, from version 2.0.0.0, up to version 3.0.0.0"),
        (FileRule("allow", "a", "2.0.0.0"), "file name “a”, from version 2.0.0.0"),
        (FileRule("attribute", "a", "0.0.0.0", "65535.65535.65535.65535"), "file name “a”"),  # noqa: S104
        (FileRule("allow", package="P_x", package_version="1.0.0.0"), "package “P_x”, package version 1.0.0.0"),
        (FileRule("allow", product="P", app_ids=("a", "b")), "product “P”, loaded by “ab”"),
        (FileRule("allow"), "a file of which nothing is said"),
    ],
)
def test_a_file_rule_is_told_by_what_it_matches(rule: FileRule, words: str) -> None:
    assert file_words(rule) == words


def test_a_policy_does_not_differ_from_itself() -> None:
    assert changes(STRICT, STRICT) == set()
    plain, signed = parse_ci_policy(STRICT.binary), parse_ci_policy(sign(STRICT.binary))
    assert ci_difference(plain, signed) == ()


def test_a_new_rule_and_an_option_taken_away_are_two_lines() -> None:
    after = replace(
        ALLOW_ALL,
        flags=ALWAYS | UMCI,
        files=(*ALLOW_ALL.files, File(DENY, name="evil.exe", minimum=ANY_VERSION)),
        codes=(ALLOW_ALL.codes[0], Code(USER, Rules(files=(1, 2)))),
    )
    assert changes(ALLOW_ALL, after) == {
        ("removed", "Options", "Enabled:Unsigned System Integrity Policy"),
        ("added", "Programs", "Deny file name “evil.exe”"),
    }
    assert {kind for kind, _, _ in changes(after, ALLOW_ALL)} == {"added", "removed"}


BEFORE = replace(STRICT, format=8, ci=(0,))
DIFFERENT = {
    "version": (replace(BEFORE, version=(10, 0, 0, 1)), ("added", "Policy", "Version: 10.0.0.1")),
    "hvci": (replace(BEFORE, hvci=1), ("added", "Policy", "Hypervisor-enforced code integrity: 0x1")),
    "who may replace it": (
        replace(BEFORE, update=(1, 0)),
        (
            "added",
            "May sign a newer policy",
            "signed under Microsoft Root Certificate Authority 2010, for Windows hardware drivers (WHQL)",
        ),
    ),
    "a setting": (
        replace(BEFORE, settings=(("P", "K", "n", b"\xff"),)),
        ("added", "Settings", "P/K/n: ff"),
    ),
    "an allowed signer denied": (
        replace(
            BEFORE,
            codes=(replace(BEFORE.codes[0], product=Rules(denied=((0, (0,)), (2, ())), files=(0, 1))), BEFORE.codes[1]),
        ),
        (
            "removed",
            "Kernel drivers",
            "Allow signed under Microsoft Root Certificate Authority 2010, for Windows hardware drivers (WHQL), "
            "except file name “evil.sys”",
        ),
    ),
    "a rule for test code": (
        replace(BEFORE, codes=(replace(BEFORE.codes[0], test=Rules(files=(1,))), BEFORE.codes[1])),
        ("added", "Kernel drivers, test code", f"Allow the file with hash {bytes(range(32)).hex()}"),
    ),
    "a weaker hash": (
        replace(BEFORE, codes=(replace(BEFORE.codes[0], minimum_hash=0x8004), BEFORE.codes[1])),
        ("added", "Kernel drivers", "Weakest hash 0x8004, inherits nothing"),
    ),
    "another scenario": (
        replace(BEFORE, codes=(*BEFORE.codes, Code(5))),
        ("added", "Code of signing scenario 5", "Weakest hash 0x800c, inherits nothing"),
    ),
    "only the order": (
        replace(BEFORE, files=(*BEFORE.files, EVERYTHING)),
        ("changed", "Policy", "The files differ in their order, or in rules that nothing uses."),
    ),
}


@pytest.mark.parametrize(("after", "line"), DIFFERENT.values(), ids=DIFFERENT)
def test_each_kind_of_change_has_a_line(after: Policy, line: tuple[str, str, str]) -> None:
    assert line in changes(BEFORE, after)


def test_names_that_are_cut_alike_still_differ() -> None:
    def policy(end: str) -> Policy:
        return Policy(files=(File(name="x" * 300 + end),), codes=(Code(KERNEL, Rules(files=(0,))),))

    assert {kind for kind, _, _ in changes(policy("a"), policy("b"))} == {"added", "removed"}


def test_a_rule_that_narrows_a_signer_counts_for_its_signer() -> None:
    narrower = replace(
        STRICT, files=(*STRICT.files[:2], replace(STRICT.files[2], minimum=(3, 0, 0, 0)), STRICT.files[3])
    )
    assert {where for _, where, _ in changes(STRICT, narrower)} == {"Programs", "May sign a newer policy"}


def test_a_rule_used_once_less_is_removed_once() -> None:
    once, twice = (Policy(files=(EVERYTHING,), codes=(Code(KERNEL, Rules(files=files)),)) for files in ((0,), (0, 0)))
    found = ci_difference(parse_ci_policy(twice.binary), parse_ci_policy(once.binary))
    assert found == (PolicyChange("removed", "Kernel drivers", "Allow file name “*”"),)


def test_long_rules_used_often_are_told_in_time() -> None:
    name = "a" * 100_000
    rules = Rules(allowed=((0, (0,) * 3),) * 20_000, files=(0,) * 40_000)

    def policy(last: str) -> Policy:
        file = File(DENY, name=name + last, app_ids=(name,))
        return Policy(
            files=(file,), signers=(Signed(2, files=(0,) * 40_000, issuer=name),), codes=(Code(KERNEL, rules),)
        )

    before, after = (parse_ci_policy(policy(last).binary) for last in "ab")
    started = time.process_time()
    assert len(describe_ci_policy(before)) < 100
    assert len(ci_difference(before, after)) == 120_000
    assert time.process_time() - started < 10


@settings(max_examples=200)
@given(st.sampled_from([STRICT, ALLOW_ALL]), st.integers(3, 11), st.data())
def test_whatever_is_read_is_told_and_equals_itself(policy: Policy, number: int, data: st.DataObject) -> None:
    whole = bytearray(replace(policy, format=number).binary)
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = parse_ci_policy(bytes(whole))
    except ParseError:
        return
    assert describe_ci_policy(read)
    assert ci_difference(read, parse_ci_policy(bytes(whole))) == ()
    assert len({(row.where, row.key) for row in policy_rows(read)}) > len(read.options)
