"""No mutation of a passing set of Evidence passes, unless what the TPM covers is still the same to the last byte.

Real Evidence of a software TPM. What its signatures and PCRs cover may not change at all; what they do not cover (the
type of an event, the data behind a program's hash, the tail of an IMA list) may, and then the verdict may not.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations, pairwise, permutations
from struct import pack
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attestation.core.appraise import AttestationResult, appraise, checked
from attestation.core.check import Verdict
from attestation.core.claims import Claims, Evidence, SentLogs, verify_evidence
from attestation.core.eventlog import EVENT_LOG_LIMIT
from attestation.core.ima import ima_measurements, ima_records
from attestation.core.ima_templates import TEMPLATES, path_and_digest
from attestation.core.policy import AppraisalPolicy
from attestation.core.quote import BOOT_PCRS, QUOTED_PCRS
from attestation.core.reference import ReferenceValues, by_value
from attestation.core.runtime import RuntimePolicy
from attestation.core.tpm import TpmPublic, parse_public
from attestation.errors import BadSignature, ParseError, Refusal, VerificationError, WrongNonce, WrongPcrDigest
from tests.boot_logs import boot, no_action, record, records_of
from tests.fuzz import seeds
from tests.fuzz.mutations import damaged
from tests.ima_lists import fields, ng, violated
from tests.kps.parties import NOW
from tests.machines import Machine, booted
from tests.tpm_forge import number, sized
from tests.tpm_lab import Key, Maker

NONCE = bytes(range(32))
NO_ACTION = pack("<I", 3)
FIELDS = (b"d-ng", b"n-ng", b"sig", b"buf", b"modsig", b"d-modsig", b"d-ngv2")
CUSTOM = [b"|".join(kinds) for count in range(1, 6) for kinds in permutations(FIELDS, count)]
TEMPLATE_NAMES = (*(name.encode() for name in TEMPLATES), *CUSTOM)
SIGNED = ("quote", "transport_certify")
SIGNATURES = ("signature", "transport_signature")
LOGS = ("event_log", "ima_log")
PARTS = (*SIGNED, *SIGNATURES, "transport_public")
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
MANY = settings(
    max_examples=400,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)


# --- what a verdict may lean on ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attempt:
    """A set of Evidence as it is verified: by the AK that the host is known by, for the nonce that it was given."""

    evidence: Evidence
    logs: SentLogs
    ak: TpmPublic
    nonce: bytes = NONCE

    def claims(self) -> Claims:
        return verify_evidence(self.evidence, ak=self.ak, nonce=self.nonce, logs=self.logs)

    def part(self, name: str) -> bytes:
        return bytes(getattr(self.logs if name in LOGS else self.evidence, name))

    def but(self, **changes: Any) -> "Attempt":
        logs = {name: value for name, value in changes.items() if name in LOGS}
        parts = {name: value for name, value in changes.items() if name not in LOGS}
        return replace(self, evidence=replace(self.evidence, **parts), logs=replace(self.logs, **logs))

    def with_parts_of(self, other: "Attempt", names: Iterable[str]) -> "Attempt":
        return self.but(**{name: getattr(other.logs if name in LOGS else other.evidence, name) for name in names})


def covered(claims: Claims) -> tuple[object, ...]:
    """Everything in the Claims that a signature or a PCR covers."""
    digests: dict[int, list[bytes]] = {}
    for event in claims.boot.events:
        digests.setdefault(event.pcr, []).append(event.digest)
    assert claims.ima is not None
    ima = (claims.ima.entries, claims.ima.digests, len(claims.ima.untrusted_violations), claims.ima.position.pcrs)
    measured = [template_data(line) for line in claims.ima.fresh]
    transport = (claims.transport.spki, claims.transport.public.name)
    return dict(claims.pcrs), digests, ima, measured, transport, claims.clock, claims.firmware_version


def template_data(line: bytes) -> bytes:
    """A line of an IMA list without the name of its template, which no digest covers."""
    return line[4 + int.from_bytes(line[:4], "little") :]


def proved(claims: Claims) -> list[bytes | None]:
    """The data of each measurement, PCR by PCR, where they are proved."""
    return [event.data for event in sorted(claims.boot.events, key=lambda event: event.pcr)]


def files(claims: Claims) -> list[tuple[bytes, bytes] | None]:
    """Path and digest of each file that was measured, None where the line cannot be read."""
    return [read(line) for line in claims.ima.fresh] if claims.ima else []


def read(line: bytes) -> tuple[bytes, bytes] | None:
    try:
        return path_and_digest(line)
    except ParseError:
        return None


def read_from(claims: Claims) -> tuple[object, ...]:
    """Everything that a rule may read: facts, oddities and files."""
    return claims.boot.facts, claims.boot.oddities, files(claims)


def verdict(claims: Claims, policy: AppraisalPolicy) -> AttestationResult:
    return appraise(claims, policy, host="1", now=NOW)


def passed(claims: Claims, policy: AppraisalPolicy) -> set[str]:
    """Every check that the host passes, whether the policy asks for it or not."""
    return {each.check.code for each in checked(claims, policy, now=NOW) if each.answer.verdict is Verdict.PASS}


def approving(claims: Claims) -> AppraisalPolicy:
    """A policy that accepts what this host booted and ran, and requires every check that it passes."""
    assert claims.ima is not None
    pcrs = by_value({pcr: claims.pcrs[pcr] for pcr in BOOT_PCRS})
    baseline = ReferenceValues("1", "trixie", "sha256", pcrs, claims.boot.events)
    policy = AppraisalPolicy(1, (baseline,), runtime=RuntimePolicy.from_list(claims.ima.fresh))
    return replace(policy, required=frozenset(passed(claims, policy)))


# --- the real thing ----------------------------------------------------------------------------------------------


def attested(machine: Machine, ak: Key, capture: str, nonce: bytes = NONCE) -> Attempt:
    attest, signature = machine.tpm.quote(ak, nonce, QUOTED_PCRS)
    certify, certify_signature = machine.tpm.certify(machine.transport, ak, nonce)
    evidence = Evidence(
        quote=attest,
        signature=signature,
        pcr_values=machine.tpm.pcrs(QUOTED_PCRS),
        transport_public=machine.transport.public,
        transport_certify=certify,
        transport_signature=certify_signature,
    )
    return Attempt(evidence, SentLogs(machine.log, boot(capture).ima), parse_public(ak.public), nonce)


@pytest.fixture(scope="module")
def hosts(maker: Maker, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Attempt]:
    """Evidence of an approved boot for two challenges and by each kind of AK, and of one with another command line."""
    found = {}
    for capture in ("secureboot-on", "cmdline-drift"):
        with booted(maker, tmp_path_factory.mktemp("tpm"), name=capture, capture=capture) as machine:
            for pcr, digest in ima_measurements(boot(capture).ima, bank="sha256"):
                machine.tpm.extend(pcr, digest)
            found[capture] = attested(machine, machine.ak, capture)
            if capture == "secureboot-on":
                found["later"] = attested(machine, machine.ak, capture, nonce=bytes(32))
                machine.tpm.forget(machine.ak)
                found["rsa"] = attested(machine, machine.tpm.primary("rsa2048:rsapss-sha256:null"), capture)
    return found


@pytest.fixture(params=["secureboot-on", "rsa"])
def passing(hosts: dict[str, Attempt], request: pytest.FixtureRequest) -> Attempt:
    return hosts[request.param]


@pytest.fixture
def policy(hosts: dict[str, Attempt]) -> AppraisalPolicy:
    return approving(hosts["secureboot-on"].claims())


@pytest.fixture
def failing(hosts: dict[str, Attempt]) -> Attempt:
    return hosts["cmdline-drift"]


def test_the_sets_are_what_they_should_be(passing: Attempt, failing: Attempt, policy: AppraisalPolicy) -> None:
    assert verdict(passing.claims(), policy).affirming
    assert not verdict(failing.claims(), policy).affirming
    assert passing.claims().ima is not None


def flips(data: bytes) -> Iterator[bytes]:
    """Change one bit in each byte, another one from byte to byte."""
    for at, byte in enumerate(data):
        yield data[:at] + bytes((byte ^ (1 << at % 8),)) + data[at + 1 :]


# --- what is signed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PARTS)
def test_one_bit_of_what_is_signed_or_signs_is_too_much(passing: Attempt, name: str) -> None:
    for changed in flips(passing.part(name)):
        with pytest.raises(Refusal):
            passing.but(**{name: changed}).claims()


@pytest.mark.parametrize("name", PARTS)
def test_every_part_is_whole_and_nothing_follows_it(passing: Attempt, name: str) -> None:
    part = passing.part(name)
    for changed in (*(part[:end] for end in range(len(part))), part + b"\0", part * 2, b"\0" + part):
        with pytest.raises(Refusal):
            passing.but(**{name: changed}).claims()


@pytest.mark.parametrize(("one", "other"), list(combinations(PARTS, 2)))
def test_no_part_stands_for_another(passing: Attempt, one: str, other: str) -> None:
    for changes in ({one: passing.part(other), other: passing.part(one)}, {one: passing.part(other)}):
        with pytest.raises(Refusal):
            passing.but(**changes).claims()


@pytest.mark.parametrize("name", PARTS)
def test_no_part_of_another_hosts_evidence_fits(hosts: dict[str, Attempt], name: str) -> None:
    passing, other = hosts["secureboot-on"], hosts["cmdline-drift"]
    with pytest.raises(VerificationError):
        passing.but(**{name: other.part(name)}).claims()


def test_one_bit_of_the_nonce_is_too_much(passing: Attempt) -> None:
    for nonce in (*flips(NONCE), b"", NONCE[:-1], NONCE + b"\0"):
        with pytest.raises(WrongNonce):
            replace(passing, nonce=nonce).claims()


def test_one_bit_of_a_pcr_value_is_too_much(passing: Attempt) -> None:
    values = passing.evidence.pcr_values
    for pcr, value in values.items():
        for changed in (*flips(value), b"", value[:-1], value + b"\0"):
            with pytest.raises(WrongPcrDigest):
                passing.but(pcr_values={**values, pcr: changed}).claims()


def _without(values: Mapping[int, bytes], pcr: int) -> dict[int, bytes]:
    return {other: value for other, value in values.items() if other != pcr}


def test_pcr_values_are_neither_left_out_nor_added_nor_exchanged(passing: Attempt) -> None:
    values = dict(passing.evidence.pcr_values)
    wrong = [_without(values, pcr) for pcr in values]
    wrong += [{**values, pcr: bytes(32)} for pcr in range(24) if pcr not in values]
    wrong += [{**values, 0: values[7], 7: values[0]}, {}]
    for changed in wrong:
        with pytest.raises(WrongPcrDigest):
            passing.but(pcr_values=changed).claims()


def test_another_key_is_refused_or_is_the_same_key(passing: Attempt, hosts: dict[str, Attempt]) -> None:
    """A bit of the AK that is no part of the point, the modulus or the scheme, nor asked of an AK, changes nothing."""
    genuine, same = covered(passing.claims()), 0
    for changed in flips(passing.ak.raw):
        try:
            claims = replace(passing, ak=parse_public(changed)).claims()
        except Refusal:
            continue
        assert covered(claims) == genuine
        same += 1
    assert same < 32  # attributes, and the fields that say nothing
    with pytest.raises(BadSignature):
        replace(passing, ak=hosts["cmdline-drift"].ak).claims()


# --- the same signature, written otherwise -----------------------------------------------------------------------


def twins(signature: bytes) -> dict[str, bytes]:
    """What else the AK's ECDSA signature verifies as: (r, n - s), and numbers with zeros before them."""
    head, r, s = signature[:4], signature[6:38], signature[40:72]
    assert head + sized(r) + sized(s) == signature
    other = number(P256_ORDER - int.from_bytes(s, "big"), 32)
    return {"mirrored": head + sized(r) + sized(other), "padded": head + sized(b"\0" + r) + sized(bytes(9) + s)}


@pytest.mark.parametrize("name", SIGNATURES)
@pytest.mark.parametrize("form", ["mirrored", "padded"])
def test_a_signature_written_otherwise_proves_the_same_and_nothing_else(
    hosts: dict[str, Attempt], policy: AppraisalPolicy, name: str, form: str
) -> None:
    """ECDSA has two signatures for one statement, and whoever knows one knows the other; the statement is the same."""
    passing = hosts["secureboot-on"]
    claims = passing.but(**{name: twins(passing.part(name))[form]}).claims()
    assert covered(claims) == covered(passing.claims())
    assert verdict(claims, policy) == verdict(passing.claims(), policy)


def test_numbers_out_of_range_are_no_signature(hosts: dict[str, Attempt]) -> None:
    passing = hosts["secureboot-on"]
    r, s = (int.from_bytes(passing.part("signature")[at : at + 32], "big") for at in (6, 40))
    for first, second in ((r + P256_ORDER, s), (r, s + P256_ORDER), (r, 0), (0, s), (0, 0)):
        forged = passing.part("signature")[:4] + sized(number(first, 33)) + sized(number(second, 33))
        with pytest.raises(BadSignature):
            passing.but(signature=forged).claims()


# --- what is replayed --------------------------------------------------------------------------------------------


def unchanged(genuine: Attempt, changed: Attempt, policy: AppraisalPolicy) -> bool:
    """Whether a changed set is accepted; then it proves the same, or less, and the verdict is the same, or worse."""
    was = genuine.claims()
    try:
        now = changed.claims()
    except Refusal:
        return False
    assert covered(now) == covered(was)
    assert all(after in (before, None) for before, after in zip(proved(was), proved(now), strict=True))
    facts = [(was.boot.facts[name], fact) for name, fact in now.boot.facts.items() if fact is not None]
    assert all(before is not None and after.value == before.value for before, after in facts)
    assert passed(now, policy) <= passed(was, policy)
    assert all(after in (before, None) for before, after in zip(files(was), files(now), strict=True))
    result = verdict(now, policy)
    assert result.affirming <= verdict(was, policy).affirming
    if proved(now) == proved(was) and read_from(now) == read_from(was):
        assert result == verdict(was, policy)
    return True


def around(log: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Each measurement of a log, with what stands before and behind it."""
    head, records = records_of(log)
    for at, each in enumerate(records):
        if each[4:8] != NO_ACTION:
            yield head + b"".join(records[:at]), each, b"".join(records[at + 1 :])


def test_no_measurement_is_left_out_doubled_moved_hidden_or_added(hosts: dict[str, Attempt]) -> None:
    passing = hosts["secureboot-on"]
    for before, each, after in around(passing.part("event_log")):
        pcr = each[0]
        moved = pack("<I", (pcr + 1) % 24) + each[4:]
        hidden = each[:4] + NO_ACTION + each[8:]
        added = each + record(pcr, 0xD, b"more")
        late = each + no_action(b"StartupLocality\0\3")
        for forged in (b"", each * 2, moved, hidden, added, late):
            with pytest.raises(Refusal):
                passing.but(event_log=before + forged + after).claims()


def test_what_a_record_calls_itself_and_what_is_noted_between_proves_nothing(
    hosts: dict[str, Attempt], policy: AppraisalPolicy
) -> None:
    passing = hosts["secureboot-on"]
    for before, each, after in around(passing.part("event_log")):
        renamed = [each[:4] + pack("<I", kind) + each[8:] for kind in (0x2, 0x4, 0x5, 0xD, 0x80000001)]
        for disguised in (*renamed, no_action(b"note", pcr=each[0]) + each):
            assert unchanged(passing, passing.but(event_log=before + disguised + after), policy)


def test_records_of_one_pcr_keep_their_order(hosts: dict[str, Attempt], policy: AppraisalPolicy) -> None:
    passing = hosts["secureboot-on"]
    head, records = records_of(passing.part("event_log"))
    for at, (first, second) in enumerate(pairwise(records)):
        exchanged = head + b"".join([*records[:at], second, first, *records[at + 2 :]])
        same = first[:4] == second[:4] and first[14:46] != second[14:46]
        assert unchanged(passing, passing.but(event_log=exchanged), policy) != same


@MANY
@given(data=st.data())
def test_a_damaged_log_is_refused_or_proves_nothing_else(
    hosts: dict[str, Attempt], policy: AppraisalPolicy, data: st.DataObject
) -> None:
    passing, others = hosts["secureboot-on"], [boot("cmdline-drift").log, boot("uki").log]
    log = data.draw(damaged(passing.part("event_log"), others=others, limit=EVENT_LOG_LIMIT))
    unchanged(passing, passing.but(event_log=log), policy)


@pytest.mark.parametrize("padding", [b"\0", b"\xff"])
def test_the_padding_of_a_log_area_proves_nothing(
    hosts: dict[str, Attempt], policy: AppraisalPolicy, padding: bytes
) -> None:
    passing = hosts["secureboot-on"]
    padded = passing.but(event_log=passing.part("event_log") + padding * 4096)
    assert unchanged(passing, padded, policy)


def test_a_bit_of_an_ima_list_is_refused_or_in_no_pcr(hosts: dict[str, Attempt], policy: AppraisalPolicy) -> None:
    """The digests that the list states are computed anew, and the name of a template is in no digest."""
    passing = hosts["secureboot-on"]
    ima = passing.part("ima_log")
    stated: set[int] = set()
    names: set[int] = set()
    at = 0
    for _, _, line, _, end in ima_records(ima):
        stated.update(range(at + 4, at + 24))
        names.update(range(at + 28, at + 28 + int.from_bytes(line[:4], "little")))
        at = end
    changes = enumerate(flips(ima))
    accepted = {at for at, changed in changes if unchanged(passing, passing.but(ima_log=changed), policy)}
    assert stated < accepted < stated | names  # one of the names cannot be read any more


def test_what_a_template_calls_itself_does_not_change_which_file_was_measured() -> None:
    """Its name is in no digest: as another template, the line is of the same file, or cannot be read."""
    for line in seeds.ima_lines():
        data = line[4 + int.from_bytes(line[:4], "little") :]
        genuine = read(line)
        for name in TEMPLATE_NAMES:
            assert read(fields(name) + data) in (None, genuine)


@MANY
@given(data=st.data())
def test_a_damaged_ima_list_is_refused_or_proves_nothing_else(
    hosts: dict[str, Attempt], policy: AppraisalPolicy, data: st.DataObject
) -> None:
    passing, others = hosts["secureboot-on"], [boot("uki").ima, ng(b"/bin/sh"), violated(ng(b"/bin/sh"))]
    ima = data.draw(damaged(passing.part("ima_log"), others=others, limit=1 << 20))
    unchanged(passing, passing.but(ima_log=ima), policy)


def test_what_follows_the_quoted_part_of_an_ima_list_proves_nothing(
    hosts: dict[str, Attempt], policy: AppraisalPolicy
) -> None:
    passing = hosts["secureboot-on"]
    longer = passing.but(ima_log=passing.part("ima_log") + ng(b"/bin/sh"))
    assert unchanged(passing, longer, policy)


# --- what does not pass ------------------------------------------------------------------------------------------


def passes(changed: Attempt, policy: AppraisalPolicy) -> bool:
    try:
        return verdict(changed.claims(), policy).affirming
    except Refusal:
        return False


def test_no_mixture_of_two_answers_passes(hosts: dict[str, Attempt], policy: AppraisalPolicy) -> None:
    """Two genuine answers of one host to two challenges; the transport key in them is the same."""
    passing, later = hosts["secureboot-on"], hosts["later"]
    names = (*SIGNED, *SIGNATURES)
    mixtures = [mixture for count in range(1, 5) for mixture in combinations(names, count)]
    assert not any(passes(passing.but(**{name: later.part(name) for name in mixture}), policy) for mixture in mixtures)
    assert passes(later, policy)


def test_no_parts_of_a_passing_hosts_evidence_make_another_host_pass(
    hosts: dict[str, Attempt], policy: AppraisalPolicy
) -> None:
    passing, failing = hosts["secureboot-on"], hosts["cmdline-drift"]
    names = (*PARTS, *LOGS, "pcr_values")
    mixtures = [mixture for count in range(len(names) + 1) for mixture in combinations(names, count)]
    assert not any(passes(failing.with_parts_of(passing, mixture), policy) for mixture in mixtures)


@MANY
@given(data=st.data())
def test_no_damage_to_its_log_makes_a_failing_host_pass(
    hosts: dict[str, Attempt], policy: AppraisalPolicy, data: st.DataObject
) -> None:
    failing, others = hosts["cmdline-drift"], [boot("secureboot-on").log]
    log = data.draw(damaged(failing.part("event_log"), others=others, limit=EVENT_LOG_LIMIT))
    assert not passes(failing.but(event_log=log), policy)
