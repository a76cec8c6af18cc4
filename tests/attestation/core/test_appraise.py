"""Appraisal reports every trouble at once, counts what somebody answers for apart, and denies by default."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from attestation.core.appraise import AttestationResult, Before, appraise, checked
from attestation.core.check import Counters, Parameters, Verdict
from attestation.core.checks import CHECKS, DEFAULT
from attestation.core.claims import BANK, Claims, read_boot, read_ima
from attestation.core.policy import AppraisalPolicy, PolicyException
from attestation.core.quote import BOOT_PCRS
from attestation.core.reference import ReferenceValues, by_value
from attestation.core.runtime import KnownLines, RuntimePolicy
from attestation.core.tpm import Clock
from attestation.core.transport import TransportKey
from tests.boot_logs import Boot, boot

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
HOST = "0b3c0f1e-0000-4000-8000-000000000001"
APPROVED = boot("secureboot-on")
NO_KEY = TransportKey.__new__(TransportKey)  # appraisal never looks at the transport key: reading one here raises


def claims(captured: Boot, *, ima: bytes | None = None, resets: int = 5) -> Claims:
    return Claims(
        pcrs=captured.pcrs,
        boot=read_boot(captured.log, captured.pcrs),
        ima=read_ima(ima, captured.pcrs),
        transport=NO_KEY,
        clock=Clock(1000, resets, 0, safe=True),
        firmware_version=1,
    )


def baseline(captured: Boot) -> ReferenceValues:
    pinned = by_value({pcr: captured.pcrs[pcr] for pcr in BOOT_PCRS})
    return ReferenceValues("b1", "trixie", BANK, pinned, read_boot(captured.log, captured.pcrs).events)


def policy(
    *required: str, exceptions: tuple[PolicyException, ...] = (), runtime: RuntimePolicy | None = None
) -> AppraisalPolicy:
    return AppraisalPolicy(1, (baseline(APPROVED),), frozenset(required), exceptions=exceptions, runtime=runtime)


def exception(check: str, **changes: object) -> PolicyException:
    made = PolicyException(check=check, until=NOW + timedelta(hours=3), owner="ada", reason="Known, and planned.")
    return replace(made, **changes)  # type: ignore[arg-type]


def judged(captured: Claims, wanted: AppraisalPolicy, *, before: Before | None = None) -> AttestationResult:
    return appraise(captured, wanted, host=HOST, now=NOW, before=before or Before())


def codes(result: AttestationResult) -> list[str]:
    return [finding.code for finding in result.findings]


def test_a_boot_as_approved_with_every_default_check_is_affirmed() -> None:
    result = judged(claims(APPROVED), policy(*DEFAULT))
    assert (result.affirming, result.baseline, result.valid_until) == (True, "b1", None)


def test_a_policy_without_baselines_is_not_affirmed_by_checks() -> None:
    wanted = AppraisalPolicy(1, (), frozenset(DEFAULT))
    assert "policy_empty" in codes(judged(claims(APPROVED), wanted))


def test_a_required_check_that_is_not_proved_is_a_finding_of_its_own() -> None:
    (finding,) = judged(claims(APPROVED), policy("kernel_lockdown")).findings
    assert (finding.code, finding.check, finding.verdict) == ("kernel_lockdown_unproven", "kernel_lockdown", "unproven")
    assert finding.what.startswith("Not proved: the kernel is locked down.")
    assert finding.substatus == CHECKS["kernel_lockdown"].substatus


def test_a_check_that_nobody_requires_is_not_reported_and_still_answered() -> None:
    captured, wanted = claims(APPROVED), policy()
    assert judged(captured, wanted).affirming
    answers = {each.check.code: each for each in checked(captured, wanted, now=NOW)}
    assert (answers["kernel_lockdown"].answer.verdict, answers["kernel_lockdown"].required) == (Verdict.UNPROVEN, False)


def test_all_troubles_are_reported_at_once() -> None:
    result = judged(claims(boot("cmdline-drift")), policy("kernel_lockdown", "iommu", "secure_boot"))
    assert set(codes(result)) == {"kernel_command_line", "kernel_lockdown_unproven", "iommu_unproven"}


def test_that_secure_boot_is_off_is_said_once() -> None:
    result = judged(claims(boot("secureboot-off")), policy("secure_boot"))
    assert codes(result).count("secure_boot_off") == 1
    assert "secure_boot" not in codes(result)


def test_that_secure_boot_is_off_counts_where_only_its_pcr_is_excepted() -> None:
    allowed = exception("baseline", pcrs=frozenset(range(15)), accepts_fail=True)
    result = judged(claims(boot("secureboot-off")), policy("secure_boot", exceptions=(allowed,)))
    assert codes(result) == ["secure_boot"]


def test_an_exception_lets_unproven_pass_until_it_ends() -> None:
    result = judged(claims(APPROVED), policy("kernel_lockdown", exceptions=(exception("kernel_lockdown"),)))
    assert result.affirming
    assert [finding.code for finding in result.excepted] == ["kernel_lockdown_unproven"]
    assert result.valid_until == NOW + timedelta(hours=3)


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(exception("iommu"), id="of another check"),
        pytest.param(exception("kernel_lockdown", until=NOW), id="that has ended"),
        pytest.param(exception("kernel_lockdown", hosts=frozenset({"another"})), id="for another host"),
        pytest.param(exception("kernel_lockdown", pcrs=frozenset({7})), id="of other PCRs"),
    ],
)
def test_another_exception_does_not_help(made: PolicyException) -> None:
    assert codes(judged(claims(APPROVED), policy("kernel_lockdown", exceptions=(made,)))) == [
        "kernel_lockdown_unproven"
    ]


def test_an_exception_for_this_host_helps() -> None:
    made = exception("kernel_lockdown", hosts=frozenset({HOST}))
    assert judged(claims(APPROVED), policy("kernel_lockdown", exceptions=(made,))).affirming


def test_an_exception_from_what_is_unproven_does_not_cover_what_fails() -> None:
    captured = claims(boot("secureboot-off"))
    everywhere = exception("baseline", pcrs=frozenset(range(15)), accepts_fail=True)
    unproven = policy("secure_boot", exceptions=(everywhere, exception("secure_boot")))
    failing = policy("secure_boot", exceptions=(everywhere, exception("secure_boot", accepts_fail=True)))
    assert codes(judged(captured, unproven)) == ["secure_boot"]
    assert judged(captured, failing).affirming


def test_an_exception_from_the_baseline_covers_its_own_pcrs_only() -> None:
    captured = claims(boot("cmdline-drift"))
    narrow = policy(exceptions=(exception("baseline", pcrs=frozenset({8}), accepts_fail=True),))
    wide = policy(exceptions=(exception("baseline", pcrs=frozenset({8, 9}), accepts_fail=True),))
    unnamed = policy(exceptions=(exception("baseline", accepts_fail=True),))
    assert not judged(captured, narrow).affirming
    assert not judged(captured, unnamed).affirming
    assert judged(captured, wide).affirming


def test_a_result_ends_with_the_first_thing_it_leans_on() -> None:
    announced = replace(baseline(APPROVED), accepted_until=NOW + timedelta(hours=1))
    wanted = replace(policy("kernel_lockdown", exceptions=(exception("kernel_lockdown"),)), baselines=(announced,))
    assert judged(claims(APPROVED), wanted).valid_until == NOW + timedelta(hours=1)


def test_counters_that_went_back_are_found() -> None:
    result = judged(claims(APPROVED, resets=3), policy(*DEFAULT), before=Before(Counters(reset_count=5)))
    assert codes(result) == ["counters"]


def test_a_runtime_policy_counts_as_soon_as_it_is_named() -> None:
    everything = RuntimePolicy.from_list(claims(APPROVED, ima=APPROVED.ima).ima.fresh)  # type: ignore[union-attr]
    assert judged(claims(APPROVED, ima=APPROVED.ima), policy(runtime=everything)).affirming
    nothing = RuntimePolicy({}, (), ())
    found = judged(claims(APPROVED, ima=APPROVED.ima), policy(runtime=nothing))
    assert set(codes(found)) == {"ima_unknown_file"}
    assert {finding.check for finding in found.findings} == {"code_integrity_policy"}


def test_a_host_that_sends_no_list_does_not_pass_a_runtime_policy() -> None:
    nothing = RuntimePolicy({}, (), ())
    assert codes(judged(claims(APPROVED), policy(runtime=nothing))) == ["code_integrity_policy_unproven"]


def test_an_exception_from_the_runtime_policy_covers_its_files() -> None:
    made = exception("code_integrity_policy", accepts_fail=True)
    wanted = policy(runtime=RuntimePolicy({}, (), ()), exceptions=(made,))
    result = judged(claims(APPROVED, ima=APPROVED.ima), wanted)
    assert result.affirming
    assert result.excepted


def test_what_an_earlier_part_of_the_list_had_shown_is_carried_on() -> None:
    strict = policy(runtime=RuntimePolicy({}, (), ()))
    first = judged(claims(APPROVED, ima=APPROVED.ima), strict)
    whole = claims(APPROVED, ima=APPROVED.ima)
    assert whole.ima is not None
    rest = read_ima(b"", APPROVED.pcrs, after=whole.ima.position)
    later = judged(replace(whole, ima=rest), strict, before=Before(runtime=first.runtime))
    assert codes(later) == codes(first)
    assert later.runtime == first.runtime


def test_a_list_that_begins_anew_leaves_what_it_had_shown_behind() -> None:
    everything = RuntimePolicy.from_list(claims(APPROVED, ima=APPROVED.ima).ima.fresh)  # type: ignore[union-attr]
    old = judged(claims(APPROVED, ima=APPROVED.ima), policy(runtime=RuntimePolicy({}, (), ()))).runtime
    result = judged(claims(APPROVED, ima=APPROVED.ima), policy(runtime=everything), before=Before(runtime=old))
    assert result.affirming


def test_lines_that_a_policy_accepted_are_not_judged_again() -> None:
    whole = claims(APPROVED, ima=APPROVED.ima)
    assert whole.ima is not None
    everything = RuntimePolicy.from_list(whole.ima.fresh)
    known = KnownLines(everything, BANK, 100)
    appraise(whole, policy(runtime=everything), host=HOST, now=NOW, known=known)
    again = read_ima(APPROVED.ima, APPROVED.pcrs, known=known.digests)
    assert again is not None
    assert len(again.fresh) < len(whole.ima.fresh)
    assert judged(replace(whole, ima=again), policy(runtime=everything)).affirming


def test_parameters_reach_their_checks() -> None:
    wanted = replace(policy("dbx_age"), parameters=Parameters(least_dbx_entries=300))
    (finding,) = judged(claims(APPROVED), wanted).findings
    assert (finding.code, "asks for at least 300" in finding.what) == ("dbx_age", True)


def test_every_finding_has_three_sentences() -> None:
    result = judged(claims(boot("secureboot-off")), policy(*CHECKS))
    for finding in result.findings:
        assert all(part.endswith(".") for part in (finding.what, finding.why, finding.remedy))
