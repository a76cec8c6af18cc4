"""A code integrity policy is read whole or not at all, and says itself when it allows anything."""

import hashlib
import time
from dataclasses import replace
from struct import pack
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.core.ci_policy import CI_POLICY_LIMIT, CodeIntegrityPolicy, parse_ci_policy
from attestation.core.ci_rules import OPTIONS, FileRule, RuleSet, Scenario, Setting, Signer, SignerRule
from attestation.core.eventlog import parse_event_log
from attestation.core.facts import read_facts
from attestation.core.replay import events_behind
from attestation.errors import ParseError, TooLarge
from tests.attestation.core.test_sipa import sipa
from tests.boot_logs import record, spec_id
from tests.ci_policies import (
    ALLOW_ALL,
    ALWAYS,
    ATTRIBUTE,
    AUDIT,
    DENY,
    EVERYTHING,
    KERNEL,
    PLAIN_DATA,
    POLICY,
    SIGNED_DATA,
    STRICT,
    SUPPLEMENTAL,
    UMCI,
    UNSIGNED,
    WHQL,
    Code,
    File,
    Policy,
    Rules,
    Signed,
    der,
    run,
    sign,
    text,
    u32,
    used,
    version,
)

FORMATS = range(3, 12)
DRIVERS = UUID("d2bda982-ccf6-4344-ac5b-0b44427b6816")
OTHER = UUID(int=7)


def read(policy: Policy) -> CodeIntegrityPolicy:
    return parse_ci_policy(policy.binary)


FULL_FILE = File(
    ATTRIBUTE,
    name="a.sys",
    minimum=(1, 2, 3, 4),
    maximum=(5, 6, 7, 8),
    app_ids=("App", "Ids"),
    internal="inner",
    description="what it is",
    product="P",
    package="Family_8wekyb3d8bbwe",
    package_version=(9, 0, 0, 1),
    path="%WINDIR%\\*",
)


@pytest.mark.parametrize("number", FORMATS)
def test_every_part_of_every_format_is_read(number: int) -> None:
    policy = read(replace(STRICT, format=number, version=(1, 2, 3, 4), hvci=2))
    whql = ("1.3.6.1.4.1.311.10.3.5",)
    denied = FileRule("deny", "evil.sys", "65535.65535.65535.65535")
    hashed, named = FileRule("allow", hash=bytes(range(32))), FileRule("attribute", "good.exe", "2.1.0.0")
    path = FileRule("allow", path="C:\\Tools\\*" if number >= 7 else "")
    microsoft, contoso = Signer(well_known=6, ekus=whql), Signer(bytes(range(32)), publisher="Contoso", files=(named,))
    fabrikam = Signer(bytes(20), oem_id="Fabrikam")
    kernel = RuleSet((SignerRule(microsoft, (denied,)),), (SignerRule(fabrikam),), (denied, hashed))
    user = RuleSet((SignerRule(contoso),), (), (hashed, path))
    assert policy.file_rules == (denied, hashed, named, path)
    assert policy.signers == (microsoft, contoso, fabrikam)
    assert policy.scenarios == (Scenario(131, kernel, RuleSet(), RuleSet()), Scenario(12, user, RuleSet(), RuleSet()))
    assert (policy.format_version, policy.version, policy.hvci_options, policy.ekus) == (number, "1.2.3.4", 2, whql)
    assert (policy.update_signers, policy.ci_signers, policy.supplemental_signers) == ((contoso,), (), ())
    assert (policy.signed, policy.supplemental, policy.extras) == (False, False, ())


@pytest.mark.parametrize("number", [1, 2])
def test_the_first_formats_have_no_blocks_of_their_own(number: int) -> None:
    assert read(replace(STRICT, format=number)).file_rules[0].file_name == "evil.sys"


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (2, FileRule("attribute", "a.sys", "1.2.3.4")),
        (3, FileRule("attribute", "a.sys", "1.2.3.4", "5.6.7.8", b"", ("App", "Ids"))),
        (4, FileRule("attribute", "a.sys", "1.2.3.4", "5.6.7.8", b"", ("App", "Ids"), "inner", "what it is", "P")),
    ],
)
def test_an_older_format_knows_less_of_a_file(number: int, expected: FileRule) -> None:
    assert read(Policy(format=number, files=(FULL_FILE,))).file_rules == (expected,)


def test_a_file_rule_has_all_that_the_newest_formats_say() -> None:
    (rule,) = read(Policy(format=11, files=(FULL_FILE,))).file_rules
    assert (rule.package, rule.package_version, rule.path) == ("Family_8wekyb3d8bbwe", "9.0.0.1", "%WINDIR%\\*")
    assert (rule.maximum_version, rule.app_ids, rule.product) == ("5.6.7.8", ("App", "Ids"), "P")


def test_a_signer_has_its_names_and_its_time() -> None:
    signer = Signed(b"\1" * 20, issuer="CA", publisher="P", oem="O", after=132223104000000000)
    assert read(Policy(signers=(signer,))).signers == (
        Signer(b"\1" * 20, issuer="CA", publisher="P", oem_id="O", signed_after=132223104000000000),
    )


def test_identifiers_of_a_policy_and_of_its_base_are_told_apart() -> None:
    policy = read(Policy(id=OTHER, base=DRIVERS))
    assert (policy.policy_id, policy.base_policy_id, policy.supplemental) == (OTHER, DRIVERS, True)


def test_before_there_were_identifiers_the_type_is_the_identifier() -> None:
    policy = read(Policy(format=5, type=DRIVERS))
    assert (policy.policy_id, policy.base_policy_id, policy.supplemental) == (DRIVERS, DRIVERS, False)


def test_the_mark_of_a_supplemental_policy_is_enough() -> None:
    assert read(Policy(flags=ALWAYS | SUPPLEMENTAL)).supplemental


@pytest.mark.parametrize(("bit", "name"), OPTIONS.items())
def test_each_option_has_its_name(bit: int, name: str) -> None:
    assert read(Policy(flags=ALWAYS | bit)).options == (name,)


def test_an_option_without_a_name_is_told_all_the_same() -> None:
    assert read(Policy(flags=ALWAYS | 1 << 9)).options == ("Unknown option 0x200",)


def test_settings_are_truths_numbers_bytes_and_texts() -> None:
    given_settings = (("P", "K", "a", True), ("P", "K", "b", 7), ("P", "K", "c", b"\1\2\3"), ("P", "K", "d", "x"))
    assert read(Policy(settings=given_settings)).settings == tuple(Setting(*each) for each in given_settings)


def test_the_name_is_the_one_its_author_gave_it() -> None:
    assert read(ALLOW_ALL).name == "AllowAll"


@pytest.mark.parametrize("value", [7, b"name"])
def test_a_name_that_is_no_text_is_none(value: int | bytes) -> None:
    assert read(Policy(settings=(("PolicyInfo", "Information", "Name", value),))).name == ""


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (WHQL, "1.3.6.1.4.1.311.10.3.5"),
        (bytes.fromhex("0108") + bytes.fromhex("2b06010505070303"), "1.3.6.1.5.5.7.3.3"),
        (b"\1\1\x88\x37", "01018837"),
        (b"\1\2\x88\x88", "01028888"),
        (b"", ""),
        (bytes(65), "00" * 65),
    ],
)
def test_a_purpose_is_told_in_dots_or_as_it_is(raw: bytes, words: str) -> None:
    assert read(Policy(ekus=(raw,))).ekus == (words,)


NEWEST = Policy(
    format=11,
    ekus=(WHQL,),
    files=(EVERYTHING, File(hash=bytes(32))),
    signers=(Signed(6),),
    codes=(Code(KERNEL),),
    newest=(
        u32(1) + text("{manifest}") + u32(4)
        + text("on") + b"\0\1" + u32(0) + text("level") + b"\1\7" + u32(1)
        + text("word") + b"\3" + text("yes") + u32(0) + text("words") + b"\4" + u32(2) + text("a") + text("b") + u32(0),
        u32(1, 0, 1, 2, 0xFFFFFFFF),
        u32(1, 3, 1) + text("model") + text("a model") + version((1, 0, 0, 0)) + version((2, 0, 0, 0)) + run(bytes(4))
        + u32(1, 0, 1, 0),
        u32(1, 0, 1, 0),
    ),
)  # fmt: skip


def test_the_newest_blocks_are_kept_in_words() -> None:
    policy = read(NEWEST)
    assert [(each.provider, each.key, each.name, each.value) for each in policy.settings] == [
        ("Application", "{manifest}", "on", True),
        ("Application", "{manifest}", "level", 7),
        ("Application", "{manifest}", "word", "yes"),
        ("Application", "{manifest}", "words", "a, b"),
    ]
    assert policy.extras == (
        "File rule 0 needs the hot patch of file rule 1, sequence 2 to 4294967295",
        "Artifact rule 0: type 3, action 1, name “model”, description “a model”, versions 1.0.0.0 to 2.0.0.0, "
        "hash 00000000",
        "Signer 0 is for artifact rules 0",
    )
    assert policy.signers[0].except_ekus == ("1.3.6.1.4.1.311.10.3.5",)


def test_artifacts_of_a_scenario_are_kept_in_words() -> None:
    block = replace(NEWEST, codes=(), newest=(u32(0), u32(0), u32(0, 0), u32(0))).binary
    artifacts = used(((0, (1,)),)) + used(()) + u32(1, 5)
    # The encoder writes empty sets for each scenario; here they are put in by hand.
    plain = replace(NEWEST, newest=(u32(0), u32(0), u32(0, 0), u32(0))).binary
    tail = u32(10, 0, 0) + u32(0, 0, 0) + u32(11, 0, 12)
    assert plain.endswith(tail)
    assert not block.endswith(tail)
    policy = parse_ci_policy(plain.removesuffix(tail) + u32(10, 0, 0) + artifacts + u32(11, 0, 12))
    assert policy.extras == (
        "Scenario 131 allows artifacts of signers 0 (except 1), denies those of signers none, and has artifact rules 5",
    )


def test_audit_mode_is_an_option_and_nothing_else() -> None:
    policies = [read(Policy(flags=ALWAYS | flags)) for flags in (0, UMCI, AUDIT, UMCI | AUDIT)]
    assert [policy.audits for policy in policies] == [False, False, True, True]
    assert [policy.covers_user_mode for policy in policies] == [False, True, False, True]
    assert [policy.enforces_user_mode for policy in policies] == [False, True, False, False]


def test_a_policy_may_be_replaced_unless_it_needs_a_signature() -> None:
    assert read(STRICT).needs_signature
    assert not read(ALLOW_ALL).needs_signature


EVERY_DRIVER = "One rule allows every kernel driver that no other rule denies."
EVERY_PROGRAM = "One rule allows every program that no other rule denies."
NO_SCENARIO = "There is no signing scenario for a kernel driver, so none is checked."


def drivers(*files: File, signers: tuple[Signed, ...] = ()) -> Policy:
    rules = Rules(allowed=tuple((at, ()) for at in range(len(signers))), files=tuple(range(len(files))))
    return Policy(files=files, signers=signers, codes=(Code(KERNEL, rules),))


TRIVIAL = {
    "any file name": drivers(EVERYTHING),
    "any path": drivers(File(path="*")),
    "any path on any drive": drivers(File(path="?:\\*")),
    "any name, also with a version that the file chooses": drivers(File(name="*", minimum=(0, 0, 0, 1))),
    "any name and any product": drivers(File(name="*", product="*")),
    "among other rules": drivers(File(hash=bytes(32)), File(DENY, name="x"), EVERYTHING),
    "any self-signed certificate": drivers(signers=(Signed(2),)),
    "any unknown root": drivers(signers=(Signed(6), Signed(1))),
    "any self-signed certificate, for any name": drivers(File(ATTRIBUTE, name="*"), signers=(Signed(2, files=(0,)),)),
    "inherited": Policy(files=(EVERYTHING,), codes=(Code(KERNEL, inherits=(1,)), Code(5, Rules(files=(0,))))),
    "inherited in a circle": Policy(
        files=(EVERYTHING,), codes=(Code(KERNEL, inherits=(1,)), Code(5, Rules(files=(0,)), inherits=(0, 1)))
    ),
}


@pytest.mark.parametrize("policy", TRIVIAL.values(), ids=TRIVIAL)
def test_a_policy_that_allows_any_driver_says_so(policy: Policy) -> None:
    assert read(policy).trivial == (EVERY_DRIVER,)


NOT_TRIVIAL = {
    "a bit of everything": STRICT,
    "no rule at all": Policy(codes=(Code(KERNEL),)),
    "a name": drivers(File(name="a*.sys")),
    "a name of one letter": drivers(File(name="?")),
    "a wildcard of one application": drivers(File(name="*", app_ids=("App",))),
    "a wildcard with a hash": drivers(File(name="*", hash=bytes(32))),
    "a wildcard with a product": drivers(File(name="*", product="Tools")),
    "a drive": drivers(File(path="C:\\*")),
    "a wildcard that denies": drivers(File(DENY, name="*")),
    "a wildcard that only narrows": drivers(File(ATTRIBUTE, name="*")),
    "a wildcard that nothing uses": Policy(files=(EVERYTHING,), codes=(Code(KERNEL),)),
    "a wildcard for test code": Policy(
        files=(EVERYTHING,), codes=(Code(KERNEL, test=Rules(files=(0,)), test_signing=Rules(files=(0,))),)
    ),
    "a self-signed certificate of one name": drivers(signers=(Signed(2, publisher="Contoso"),)),
    "a self-signed certificate for one file": drivers(File(ATTRIBUTE, name="a.sys"), signers=(Signed(2, files=(0,)),)),
    "a root of Microsoft": drivers(signers=(Signed(6),)),
    "a supplemental policy without the scenario": Policy(flags=ALWAYS | SUPPLEMENTAL),
}


@pytest.mark.parametrize("policy", NOT_TRIVIAL.values(), ids=NOT_TRIVIAL)
def test_a_policy_that_leaves_something_out_is_not_trivial(policy: Policy) -> None:
    assert read(policy).trivial == ()


def test_programs_count_when_the_policy_covers_them() -> None:
    assert read(ALLOW_ALL).trivial == (EVERY_DRIVER, EVERY_PROGRAM)
    assert read(replace(ALLOW_ALL, flags=ALWAYS)).trivial == (EVERY_DRIVER,)


def test_code_without_a_scenario_is_unchecked() -> None:
    assert read(Policy()).trivial == (NO_SCENARIO,)
    user_too = read(Policy(flags=ALWAYS | UMCI)).trivial
    assert user_too == (NO_SCENARIO, "There is no signing scenario for a program, so none is checked.")


def test_the_signed_file_says_what_the_unsigned_one_says() -> None:
    plain, signed = read(STRICT), parse_ci_policy(sign(STRICT.binary))
    assert signed.signed
    assert replace(signed, signed=False) == plain


def test_the_measured_digest_is_that_of_the_unsigned_file() -> None:
    digests = parse_ci_policy(sign(STRICT.binary)).digests
    assert digests == {
        name: hashlib.new(name, STRICT.binary).hexdigest() for name in ("sha1", "sha256", "sha384", "sha512")
    }


@pytest.mark.parametrize(
    ("kind", "name"), [(STRICT.type, "SiPolicy.p7b"), (DRIVERS, "DriverSiPolicy.p7b"), (OTHER, None)]
)
def test_a_policy_is_measured_under_the_name_of_its_file(kind: UUID, name: str | None) -> None:
    assert read(Policy(type=kind)).measured_name == name


def test_a_policy_is_recognised_in_a_boot_log() -> None:
    name = "SiPolicy.p7b\0".encode("utf-16-le")
    digest = hashlib.sha256(STRICT.binary).digest()
    measured = sipa(0x0005000F, pack("<QHHI", 10 << 48, len(name), 0xB, 32) + name + digest)
    log = spec_id() + record(13, 6, sipa(0x40010001, measured)) + record(13, 4, b"WBCL")
    fact = read_facts(events_behind(parse_event_log(log), range(24), bank="sha256"), bank="sha256")[
        "code_integrity_policies"
    ]
    assert fact is not None
    assert isinstance(fact.value, tuple)
    file, _, found = str(fact.value[0]).partition(" ")
    assert (file, read(STRICT).is_measured_as(found)) == (read(STRICT).measured_name, True)
    assert not read(ALLOW_ALL).is_measured_as(found)


@pytest.mark.parametrize("digest", ["", "sha256", "sha256:", "md5:", f"sha1:{hashlib.sha1(STRICT.binary).hexdigest()}"])  # noqa: S324
def test_nothing_weak_or_empty_counts_as_measured(digest: str) -> None:
    assert not read(STRICT).is_measured_as(digest)


def patched(offset: int, value: int) -> bytes:
    data = STRICT.binary
    return data[:offset] + u32(value) + data[offset + 4 :]


BODY = 0x44
NAMED = Policy(files=(File(name="ab"),)).binary
AB = "ab".encode("utf-16-le")
SETTING = Policy(settings=(("P", "K", "n", "v"),)).binary


def newest(*blocks: bytes) -> bytes:
    """The policy with its last blocks replaced; what is not given stays."""
    return replace(NEWEST, newest=(*NEWEST.newest[: 4 - len(blocks)], *blocks)).binary


def wrapped(*inside: bytes) -> bytes:
    """SignedData whose content is not one octet string."""
    content = der(0x30, POLICY, der(0xA0, *inside))
    return der(0x30, SIGNED_DATA, der(0xA0, der(0x30, der(0x02, b"\1"), der(0x31), content)))


REFUSED = {
    "nothing": (b"", "needs 4 bytes"),
    "half a header": (STRICT.binary[:40], "needs 4 bytes"),
    "format 0": (patched(0, 0), "format 0"),
    "a format of tomorrow": (patched(0, 12), "format 12"),
    "the highest option off": (patched(0x24, UNSIGNED), "highest option"),
    "another header length": (patched(0x40, 0x44), "header does not end"),
    "a gibibyte of purposes": (patched(0x28, 1 << 30), "at offset"),
    "a gibibyte of file rules": (patched(0x2C, 1 << 30), "at offset"),
    "a gibibyte of signers": (patched(0x30, 1 << 30), "at offset"),
    "more scenarios than there may be": (patched(0x34, 256), "256 signing scenarios"),
    "a purpose of four gibibytes": (patched(BODY, 0xFFFFFFFF), "needs 4294967295 bytes"),
    "a byte too many": (STRICT.binary + b"\0", "1 bytes follow"),
    "a byte too few": (STRICT.binary[:-1], "needs 4 bytes"),
    "no end": (STRICT.binary[:-4], "needs 4 bytes"),
    "another block than the next": (replace(STRICT, format=3).binary[:-4] + u32(5), "block 4 is expected, block 5"),
    "a file rule of kind 3": (Policy(files=(File(3),)).binary, "file rule of kind 3"),
    "a root of kind 2": (Policy(signers=(Signed(6),)).binary.replace(u32(1, 6), u32(2, 6)), "root of kind 2"),
    "a setting of kind 4": (SETTING.replace(u32(3) + text("v"), u32(4) + text("v")), "setting of kind 4"),
    "an application setting of kind 2": (
        newest(u32(1) + text("m") + u32(1) + text("n") + b"\2\0" + u32(0), *NEWEST.newest[1:]),
        "application setting of kind 2",
    ),
    "a text of half a letter": (NAMED.replace(u32(4) + AB, u32(3) + AB), "not UTF-16"),
    "half a surrogate": (NAMED.replace(AB, b"\0\xd8b\0"), "not UTF-16"),
    "a text without its end": (NAMED.replace(text("ab"), text("ab")[:-4] + u32(1)), "does not end"),
    "something in what fills up": (NAMED.replace(text("ab"), u32(2) + b"a\0\0\1" + u32(0)), "hidden"),
    "a purpose that is not there": (Policy(signers=(Signed(ekus=(0,)),)).binary, "EKU 0 of 0"),
    "a file rule that is not there": (Policy(signers=(Signed(files=(0,)),)).binary, "file rule 0 of 0"),
    "a signer that is not there": (Policy(update=(0,)).binary, "signer 0 of 0"),
    "a signer for code that is not there": (Policy(ci=(7,)).binary, "signer 7 of 0"),
    "a supplemental signer that is not there": (Policy(supplemental=(0,)).binary, "signer 0 of 0"),
    "a scenario's signer that is not there": (
        Policy(codes=(Code(product=Rules(allowed=((0, ()),))),)).binary,
        "signer 0 of 0",
    ),
    "a scenario's file that is not there": (Policy(codes=(Code(test=Rules(files=(0,))),)).binary, "file rule 0 of 0"),
    "an exception that is not there": (
        Policy(signers=(Signed(6),), codes=(Code(test_signing=Rules(denied=((0, (3,)),))),)).binary,
        "file rule 3 of 0",
    ),
    "an inherited scenario that is not there": (Policy(codes=(Code(inherits=(1,)),)).binary, "scenario 1 of 1"),
    "a purpose excepted of no signer": (newest(u32(1, 1, 1, 0)), "signer 1 of 1"),
    "a purpose excepted that is not there": (newest(u32(1, 0, 1, 9)), "EKU 9 of 1"),
    "the XML it was made from": (b'<?xml version="1.0"?><SiPolicy/>', "format"),
    "a signature around other data": (sign(STRICT.binary, content=PLAIN_DATA), "does not hold"),
    "a signature around half a policy": (sign(STRICT.binary[:-8]), "are left"),
    "a signature and a byte": (sign(STRICT.binary) + b"\0", "1 bytes follow"),
    "a signature cut short": (sign(STRICT.binary)[:-1], "are left"),
    "a signature around nothing": (der(0x30, SIGNED_DATA, der(0xA0, der(0x30))), "no PKCS#7"),
    "two policies under one signature": (wrapped(der(0x04, b"a"), der(0x04, b"b")), "wrapped in another way"),
    "a policy in a sequence under a signature": (wrapped(der(0x30, STRICT.binary)), "wrapped in another way"),
    "a policy under another tag": (
        sign(STRICT.binary).replace(SIGNED_DATA + b"\xa0", SIGNED_DATA + b"\xa1"),
        "does not hold",
    ),
    "a certificate": (der(0x30, der(0x30), der(0x30), der(0x03, b"\0")), "does not hold"),
    "a signature twice around": (sign(sign(STRICT.binary)), "format"),
}


@pytest.mark.parametrize(("data", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_policy_that_is_not_understood_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ParseError, match=reason):
        parse_ci_policy(data)


@pytest.mark.parametrize("number", FORMATS)
def test_a_policy_cut_anywhere_is_refused(number: int) -> None:
    data = replace(STRICT, format=number).binary
    for end in range(0, len(data)):
        with pytest.raises(ParseError):
            parse_ci_policy(data[:end])


def test_a_policy_above_the_limit_is_refused_unread() -> None:
    with pytest.raises(TooLarge):
        parse_ci_policy(bytes(CI_POLICY_LIMIT + 1))


def test_every_changed_byte_is_another_policy_or_none() -> None:
    data, original = STRICT.binary, read(STRICT)
    for at in range(len(data)):
        changed = data[:at] + bytes((data[at] ^ 0x55,)) + data[at + 1 :]
        try:
            policy = parse_ci_policy(changed)
        except ParseError:
            continue
        assert not original.is_measured_as(f"sha256:{policy.digests['sha256']}")


def test_one_long_name_used_often_costs_its_length_once() -> None:
    nearly_wild = "*" * 200_000 + "x"
    rules = Rules(allowed=((0, ()),) * 40_000, files=(0,) * 40_000)
    data = Policy(
        files=(File(name=nearly_wild),),
        signers=(Signed(2, files=(0,) * 40_000),),
        codes=(Code(KERNEL, rules),),
    ).binary
    started = time.process_time()
    assert parse_ci_policy(data).trivial == ()
    assert time.process_time() - started < 5


@given(st.binary(max_size=400))
def test_any_bytes_give_a_policy_or_a_parse_error(data: bytes) -> None:
    for candidate in (data, STRICT.binary[:BODY] + data, der(0x30, data), sign(data)):
        try:
            parse_ci_policy(candidate)
        except ParseError:
            continue
