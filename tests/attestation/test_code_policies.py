"""Code integrity policies are registered once, as they were read, and judge what Windows measures of them."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from struct import pack
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, transaction

from attestation import service
from attestation.core.check import Verdict
from attestation.core.checks import CHECKS
from attestation.core.ci_words import describe_ci_policy
from attestation.core.document import PolicyDocument
from attestation.core.windows import parse_si_policy
from attestation.errors import AlreadyDecided, NotAllowed, NotFound, ParseError, Refusal, TooLarge
from attestation.models import Blob, CodeIntegrityPolicy
from attestation.policy import compiled
from ledger import service as ledger
from tests.attestation.conftest import person
from tests.attestation.core.test_checks import windows_host
from tests.ci_policies import ALLOW_ALL, ALWAYS, AUDIT, STRICT, SUPPLEMENTAL, UMCI, Policy, sign

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
AUDITING = replace(STRICT, flags=ALWAYS | UMCI | AUDIT)


def add(content: bytes, by: User, name: str = "Hosts") -> CodeIntegrityPolicy:
    return service.add_code_policy(content, name=name, file_name="SiPolicy.p7b", by=by, now=NOW)


def measured(policy: Policy, algorithm: int = 0x800C, name: str = "sha256") -> str:
    """What an attestation proves of a host that has this policy in force: the record of wbcl.h, read as it is there."""
    digest, path = hashlib.new(name, policy.binary).digest(), "SiPolicy.p7b\0".encode("utf-16-le")
    return " ".join(parse_si_policy(pack("<QHHI", 1, len(path), algorithm, len(digest)) + path + digest))


def answers(measured: str, *rows: CodeIntegrityPolicy) -> dict[str, Verdict]:
    """What the three checks of code integrity say when a policy names these rows."""
    document = PolicyDocument(code_policies=tuple(str(row.pk) for row in rows))
    policies = compiled(document, version=1).code_policies
    proved = windows_host(*policies, changes={"code_integrity_policies": (measured,)})
    codes = ("code_integrity_policy", "code_integrity_enforced", "code_integrity_not_trivial")
    rules = {code: CHECKS[code].windows for code in codes}
    return {code: rule(proved).verdict for code, rule in rules.items() if rule is not None}


def test_a_policy_is_kept_with_what_it_says(admin: User) -> None:
    row = add(STRICT.binary, admin)
    assert (row.name, row.audits, row.trivial, row.added_by) == ("Hosts", False, [], "ada")
    assert row.digests["sha256"] == hashlib.sha256(STRICT.binary).hexdigest()
    assert row.origin == "Version 10.0.0.0, not signed, from SiPolicy.p7b"
    assert service.code_policy_file(row) == STRICT.binary
    assert describe_ci_policy(service.code_policy_decoded(row))[0].startswith("Enforces")
    leaf = ledger.leaves(act_prefix="codepolicy.added").get()
    assert (leaf.subject, leaf.actor, leaf.detail["name"]) == (row.subject, "user:ada", "Hosts")
    assert leaf.detail["sha256"] == row.digests["sha256"]


def test_a_policy_that_audits_or_allows_everything_says_so(admin: User) -> None:
    assert add(AUDITING.binary, admin).audits
    trivial = add(ALLOW_ALL.binary, admin)
    assert "allows every kernel driver" in trivial.trivial[0]
    assert ledger.leaves(act_prefix="codepolicy.added").get(subject=trivial.subject).detail["trivial"] is True


def test_a_signed_policy_is_kept_as_it_came_and_known_by_what_is_measured(admin: User) -> None:
    row = add(sign(STRICT.binary), admin)
    assert service.code_policy_file(row) == sign(STRICT.binary)
    assert ", signed, " in row.origin
    assert set(answers(measured(STRICT), row).values()) == {Verdict.PASS}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (STRICT.binary, STRICT.binary),
        (STRICT.binary, sign(STRICT.binary)),
        (sign(STRICT.binary), STRICT.binary),
    ],
    ids=["the same file", "signed the second time", "signed the first time"],
)
def test_a_policy_is_not_added_twice(admin: User, approver: User, first: bytes, second: bytes) -> None:
    add(first, admin, "Hosts of winter")
    with pytest.raises(AlreadyDecided, match="ada has added this policy already, as “Hosts of winter”"):
        add(second, approver, "Another name")
    assert service.code_policies().count() == 1
    assert len(ledger.leaves(act_prefix="codepolicy.added")) == 1
    assert Blob.objects.filter(pk=hashlib.sha256(second).hexdigest()).exists() == (first == second)


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        pytest.param(b"", ParseError, id="nothing"),
        pytest.param(b"<?xml version='1.0'?><SiPolicy/>", ParseError, id="the XML it is made from"),
        pytest.param(STRICT.binary[:-1], ParseError, id="a policy cut short"),
        pytest.param(sign(STRICT.binary) + b"\0", ParseError, id="a byte more"),
        pytest.param(bytes((4 << 20) + 1), TooLarge, id="too large"),
    ],
)
def test_what_is_not_understood_is_not_added(admin: User, content: bytes, refusal: type[Refusal]) -> None:
    blobs = Blob.objects.count()
    with pytest.raises(refusal):
        add(content, admin)
    assert not CodeIntegrityPolicy.objects.exists()
    assert not ledger.leaves(act_prefix="codepolicy.").exists()
    assert Blob.objects.count() == blobs


def test_only_who_may_propose_adds_a_policy(db: None) -> None:
    for user in (person("rob"), person("eve", "decide", "revoke")):
        with pytest.raises(NotAllowed):
            add(STRICT.binary, user)
    assert not CodeIntegrityPolicy.objects.exists()


def test_what_is_registered_is_what_the_checks_look_for(admin: User) -> None:
    assert set(answers(measured(STRICT), add(STRICT.binary, admin)).values()) == {Verdict.PASS}


def test_each_check_sees_what_its_policy_does(admin: User) -> None:
    audits, trivial, strict = add(AUDITING.binary, admin), add(ALLOW_ALL.binary, admin), add(STRICT.binary, admin)
    assert answers(measured(AUDITING), audits, strict)["code_integrity_enforced"] == Verdict.FAIL
    assert answers(measured(ALLOW_ALL), trivial, strict)["code_integrity_not_trivial"] == Verdict.FAIL
    assert answers(measured(STRICT), audits, trivial) == {
        "code_integrity_policy": Verdict.FAIL,
        "code_integrity_enforced": Verdict.UNPROVEN,
        "code_integrity_not_trivial": Verdict.UNPROVEN,
    }


def test_a_supplemental_policy_that_adds_everything_is_found_by_what_its_file_says(admin: User) -> None:
    adding = replace(ALLOW_ALL, flags=ALWAYS | UMCI | SUPPLEMENTAL)
    strict, supplement = add(STRICT.binary, admin), add(adding.binary, admin)
    document = PolicyDocument(code_policies=(str(strict.pk), str(supplement.pk)))
    policies = compiled(document, version=1).code_policies
    assert {policy.supplemental for policy in policies if policy.trivial} == {True}
    proved = windows_host(*policies, changes={"code_integrity_policies": (measured(STRICT), measured(adding))})
    rule = CHECKS["code_integrity_not_trivial"].windows
    assert rule is not None
    assert rule(proved).verdict == Verdict.FAIL


@pytest.mark.parametrize(
    ("algorithm", "name", "known"),
    [
        (0x4, "sha1", False),
        (0x8004, "sha1", False),
        (0xB, "sha256", True),
        (0xC, "sha384", True),
        (0xD, "sha512", True),
    ],
)
def test_a_policy_is_known_by_every_digest_but_sha1(admin: User, algorithm: int, name: str, known: bool) -> None:
    """Two policies can be made that share a SHA-1 digest: one is shown here, the other one runs."""
    row = add(STRICT.binary, admin)
    assert row.digests[name] in measured(STRICT, algorithm, name)
    verdict = answers(measured(STRICT, algorithm, name), row)["code_integrity_policy"]
    assert (verdict == Verdict.PASS) == known
    assert service.code_policy_decoded(row).is_measured_as(f"{name}:{row.digests[name]}") == known


def test_two_policies_are_set_side_by_side(admin: User) -> None:
    strict, audits = add(STRICT.binary, admin), add(AUDITING.binary, admin)
    change = service.code_policy_difference(strict, audits)
    assert [(each.kind, each.words) for each in change] == [("added", "Enabled:Audit Mode")]
    assert service.code_policy_difference(strict, strict) == ()


def test_a_policy_that_is_not_there_is_not_found(db: None) -> None:
    with pytest.raises(NotFound):
        service.code_policy(uuid4())


def test_a_registered_policy_never_changes(admin: User) -> None:
    row = add(AUDITING.binary, admin)
    with pytest.raises(DatabaseError), transaction.atomic():
        CodeIntegrityPolicy.objects.filter(pk=row.pk).update(audits=False)
    with pytest.raises(DatabaseError), transaction.atomic():
        row.delete()
