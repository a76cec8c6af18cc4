"""The owner's release policy at the moment of a release: what it asks for holds, and is recorded."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from rest_framework.test import APIClient

from attestation import service as attestation
from kps import errors, service
from kps.core.guardian import GuardianKeys
from kps.core.owner_message import Approval, build_approval
from kps.core.release_policy import ReleasePolicy, parse_policy
from kps.models import KeyReturn, ReleaseApproval
from ledger import service as ledger
from tests.attestation.conftest import Portal
from tests.kps.conftest import Host, holding
from tests.kps.parties import ID, OWNER, OWNERS, STRANGER, SUBJECT

Protect = Callable[..., dict[str, Any]]


def now() -> datetime:
    return datetime.now(UTC)


def other_hours() -> str:
    """A window that this moment is not in, nor the next quarter of an hour."""
    later = now() + timedelta(hours=2)
    return f"{later:%H:%M}-{later + timedelta(hours=1):%H:%M}"


def these_hours() -> str:
    return f"{now() - timedelta(hours=1):%H:%M}-{now() + timedelta(hours=1):%H:%M}"


REFUSED: list[tuple[Callable[[], dict[str, Any]], str]] = [
    (lambda: {"host_groups": ["elsewhere"]}, "host_group_not_allowed"),
    (lambda: {"not_before": int(now().timestamp()) + 600}, "release_too_early"),
    (lambda: {"not_after": int(now().timestamp()) - 600}, "release_too_late"),
    (lambda: {"hours": other_hours()}, "outside_hours"),
    (lambda: {"approval": "portal"}, "approval_required"),
    (lambda: {"approval": "key"}, "approval_required"),
]


@pytest.mark.parametrize(("policy", "code"), REFUSED, ids=[f"{n} {code}" for n, (_, code) in enumerate(REFUSED)])
def test_what_the_owner_does_not_allow_is_refused_and_recorded(
    host: Host, protect: Protect, policy: Callable[[], dict[str, Any]], code: str
) -> None:
    answer = host.posts(host.asks(protect(policy=parse_policy(policy()))))
    assert (answer.status_code, answer.json()["code"]) == (403, code)
    row = service.releases(owner_fingerprint=OWNERS).get()
    assert (row.released, row.code, row.owner_serial, row.group) == (False, code, 0, "default")
    leaf = ledger.leaves(act_prefix="key.refused").get()
    assert (leaf.detail["code"], leaf.detail["owner_serial"], leaf.detail["group"]) == (code, 0, "default")
    assert leaf.subject == SUBJECT


def test_what_the_owner_allows_is_released(host: Host, protect: Protect) -> None:
    policy = {
        "host_groups": ["default", "reserve"],
        "minimum_mode": "tpm",
        "not_before": int(now().timestamp()) - 60,
        "not_after": int(now().timestamp()) + 600,
        "hours": these_hours(),
        "simultaneous_hosts": 1,
        "offline": {"starts": 2, "hours": 24},
        "successors": True,
    }
    answer = host.posts(host.asks(protect(policy=parse_policy(policy))))
    assert answer.status_code == 200, answer.json()
    row = service.releases().get()
    assert (row.released, row.group, row.approval_id) == (True, "default", None)


def test_a_weaker_mode_than_the_owner_s_gets_no_key(host: Host, protect: Protect) -> None:
    """What the certificate says counts, and this fabric is in TPM mode: the policy is tried in the other direction."""
    from kps.core.release import require_policy
    from kps.core.release_policy import Circumstances

    assert host.posts(host.asks(protect(policy=ReleasePolicy(minimum_mode="tpm")))).status_code == 200
    for mode in ("kerberos", "hostkey"):
        with pytest.raises(errors.ModeTooWeak):
            require_policy(ReleasePolicy(minimum_mode="tpm"), Circumstances("default", mode, now(), 0, False))


# --- how many hosts at a time ------------------------------------------------------------------------------------

ONE = ReleasePolicy(simultaneous_hosts=1)


def test_a_second_host_waits_until_the_first_says_that_the_vm_has_stopped(
    host: Host, second: Host, protect: Protect
) -> None:
    document = protect(policy=ONE)
    assert host.posts(host.asks(document)).status_code == 200
    assert second.starts(document)["code"] == "too_many_hosts"
    assert host.posts(host.asks(document)).status_code == 200  # a start again on the same host is one host
    assert host.gives_back().json() == {"returned": True}
    assert second.posts(second.asks(document)).status_code == 200
    assert host.starts(document)["code"] == "too_many_hosts"


def test_two_hosts_may_where_the_owner_allows_two(host: Host, second: Host, protect: Protect) -> None:
    document = protect(policy=ReleasePolicy(simultaneous_hosts=2))
    assert [each.posts(each.asks(document)).status_code for each in (host, second)] == [200, 200]
    assert set(service.holders(OWNERS, ID, now=now())) == {UUID(each.machine.attester) for each in (host, second)}


def test_what_was_released_before_the_owner_limited_it_counts(host: Host, second: Host, protect: Protect) -> None:
    from tests.kps.parties import changed

    document = protect()
    host.starts(document)
    service.take_chain(changed(document, policy=ONE).document, now=now())
    assert second.starts(document)["code"] == "too_many_hosts"


def test_a_host_whose_certificates_are_revoked_counts_no_longer(
    host: Host, second: Host, protect: Protect, admin: User
) -> None:
    document = protect(policy=ONE)
    host.starts(document)
    attestation.revoke_certificate(host.serial, by=admin, reason="burnt down", now=now())
    assert second.posts(second.asks(document)).status_code == 200


def test_a_host_that_attests_again_goes_on_counting(
    host: Host, second: Host, fabric: Portal, protect: Protect, admin: User
) -> None:
    """A machine that runs for a month is not forgotten after the eight hours of the certificate it was started by."""
    document = protect(policy=ONE)
    host.starts(document)
    again = holding(fabric, host.machine)
    attestation.revoke_certificate(host.serial, by=admin, reason="renewed", now=now())
    assert second.starts(document)["code"] == "too_many_hosts"
    assert again.gives_back().json() == {"returned": True}
    assert second.posts(second.asks(document)).status_code == 200


def test_a_limit_is_of_one_owner_s_machine(host: Host, second: Host, protect: Protect) -> None:
    host.starts(protect(policy=ONE))
    alien = protect(policy=ONE, owner=STRANGER)
    assert second.posts(second.asks(alien)).status_code == 200


def test_a_refused_release_does_not_count(host: Host, second: Host, protect: Protect) -> None:
    document = protect(policy=ReleasePolicy(simultaneous_hosts=1, hours=other_hours()))
    host.starts(document)
    assert set(service.holders(OWNERS, ID, now=now())) == set()


def test_a_return_is_a_row_and_a_leaf(host: Host, protect: Protect) -> None:
    host.starts(protect(policy=ONE))
    host.gives_back()
    row = KeyReturn.objects.get()
    assert (row.host, row.vm, row.serial) == ("nbg-a01", "payroll", host.serial)
    assert row.release_id == service.releases()[0].pk
    leaf = ledger.leaves(act_prefix="key.returned").get()
    assert (leaf.subject, leaf.actor) == (SUBJECT, f"host:{host.machine.attester}")


def test_nobody_gives_back_for_another_host(host: Host, second: Host, protect: Protect) -> None:
    document = protect(policy=ONE)
    host.starts(document)
    assert second.gives_back().json() == {"returned": False}
    assert second.gives_back(secret=host.secret).json()["code"] == "release_request_refused"
    assert second.gives_back(serial=host.serial).json()["code"] == "release_request_refused"
    assert second.starts(document)["code"] == "too_many_hosts"
    assert not KeyReturn.objects.exists()


@pytest.mark.parametrize("seconds", [-90, 90])
def test_a_return_from_another_time_is_refused(host: Host, protect: Protect, seconds: int) -> None:
    host.starts(protect(policy=ONE))
    answer = host.gives_back(at=int(now().timestamp()) + seconds)
    assert (answer.status_code, answer.json()["code"]) == (401, "release_stale")


def test_a_replayed_return_does_not_take_the_next_release_back(host: Host, protect: Protect) -> None:
    document = protect(policy=ONE)
    host.starts(document)
    assert host.gives_back(nonce=b"n" * 32).status_code == 200
    host.starts(document)
    answer = host.gives_back(nonce=b"n" * 32)
    assert (answer.status_code, answer.json()["code"]) == (409, "release_replayed")
    assert service.holders(OWNERS, ID, now=now())


def test_a_return_of_nothing_leaves_nothing(host: Host, protect: Protect) -> None:
    host.starts(protect(policy=ONE))
    for changes in ({"protector": UUID(int=1)}, {"owner_fingerprint": "0" * 64}):
        assert host.gives_back(**changes).json() == {"returned": False}
    assert not KeyReturn.objects.exists()


@pytest.mark.parametrize("token", ["", "a.b.c", "x" * 5000, None, 7, {"a": 1}], ids=lambda t: str(t)[:8])
def test_what_is_no_return_is_malformed(db: None, token: object) -> None:
    answer = APIClient().post("/kps/v1/returns", {"message": token}, format="json")
    assert answer.status_code in {400, 413}


# --- the owner's approval ----------------------------------------------------------------------------------------

BY_PORTAL, BY_KEY = ReleasePolicy(approval="portal"), ReleasePolicy(approval="key")


def waiting() -> ReleaseApproval:
    return service.pending(owner_fingerprint=OWNERS, now=now()).get()


def decide(approve: bool = True, **changes: Any) -> ReleaseApproval:
    how: dict[str, Any] = {"owner_fingerprint": OWNERS, "actor": "user:olga", "reason": "planned", "now": now()}
    how |= changes
    return service.decide_in_portal(how.pop("approval_id", None) or waiting().pk, approve=approve, **how)


def approves(keys: GuardianKeys = OWNER, **changes: Any) -> Any:
    open_ = ReleaseApproval.objects.get()
    fields: dict[str, Any] = {
        "request": open_.pk,
        "protector": ID,
        "attester": open_.attester_id,
        "owner_fingerprint": OWNERS,
        "at": int(now().timestamp()),
    }
    token = build_approval(Approval(**(fields | changes)), keys)
    return APIClient().post("/kps/v1/approvals", {"approval": token}, format="json")


def test_a_refused_release_waits_for_its_owner_and_is_approved_once(host: Host, protect: Protect) -> None:
    document = protect(policy=BY_PORTAL)
    assert host.starts(document)["code"] == "approval_required"
    open_ = waiting()
    assert (open_.host, open_.vm, open_.needs_key) == ("nbg-a01", "payroll", False)
    assert service.waiting_numbers([OWNERS], now=now()) == 1
    decide()
    assert host.posts(host.asks(document)).status_code == 200
    released, refused = service.releases()
    assert released.approval_id == refused.approval_id == open_.pk
    assert ReleaseApproval.objects.get().state == "used"
    assert host.starts(document)["code"] == "approval_required"
    assert [leaf.act for leaf in ledger.leaves(subject=SUBJECT)][1:3] == ["key.released", "approval.given"]


def test_asking_again_is_one_request(host: Host, protect: Protect) -> None:
    document = protect(policy=BY_PORTAL)
    for _ in range(3):
        host.starts(document)
    assert ReleaseApproval.objects.count() == 1
    assert waiting().asked_last > waiting().asked_at


def test_the_owner_s_key_approves_either_way(host: Host, protect: Protect) -> None:
    for policy in (BY_PORTAL, BY_KEY):
        ReleaseApproval.objects.all().delete()
        document = protect(policy=policy, owner=OWNER)
        if policy is BY_KEY:
            from tests.kps.parties import changed

            service.take_chain(changed(document, policy=policy).document, now=now())
        host.starts(document)
        answer = approves()
        assert answer.status_code == 200, answer.json()
        assert host.posts(host.asks(document)).status_code == 200
    leaf = ledger.leaves(act_prefix="approval.given")[0]
    assert leaf.actor == f"owner:{OWNERS}"
    assert str(leaf.detail["signed"]).count(".") == 2


def test_a_click_is_no_approval_with_the_owner_s_key(host: Host, protect: Protect) -> None:
    host.starts(protect(policy=BY_KEY))
    with pytest.raises(errors.ApprovalNeedsKey):
        decide()
    assert waiting().needs_key


def test_a_click_given_before_the_owner_asked_for_its_key_counts_no_longer(host: Host, protect: Protect) -> None:
    from tests.kps.parties import changed

    document = protect(policy=BY_PORTAL)
    host.starts(document)
    decide()
    service.take_chain(changed(document, policy=BY_KEY).document, now=now())
    assert host.starts(document)["code"] == "approval_required"


def test_an_approval_is_for_one_host(host: Host, second: Host, protect: Protect) -> None:
    document = protect(policy=BY_PORTAL)
    host.starts(document)
    decide()
    assert second.starts(document)["code"] == "approval_required"
    assert host.posts(host.asks(document)).status_code == 200


def test_an_approval_lapses(host: Host, protect: Protect) -> None:
    document = protect(policy=BY_PORTAL)
    host.starts(document)
    approved = decide()
    assert approved.expires_at is not None
    later = approved.expires_at + timedelta(seconds=1)
    with pytest.raises(errors.ApprovalRequired):
        service.release(host.asks(document, at=int(later.timestamp())), now=later)


def test_a_declined_release_is_not_approved_any_more(host: Host, protect: Protect) -> None:
    document = protect(policy=BY_PORTAL)
    host.starts(document)
    open_ = waiting()
    decide(approve=False)
    with pytest.raises(errors.ApprovalUnknown):
        decide(approval_id=open_.pk)
    assert approves().json()["code"] == "approval_unknown"
    assert host.starts(document)["code"] == "approval_required"
    assert ledger.leaves(act_prefix="approval.declined").get().detail["reason"] == "planned"


def test_a_host_that_gave_up_yesterday_is_not_approved_today(host: Host, protect: Protect) -> None:
    host.starts(protect(policy=BY_PORTAL))
    with pytest.raises(errors.ApprovalUnknown):
        decide(approval_id=waiting().pk, now=now() + timedelta(days=1, minutes=1))


def test_an_approval_of_a_stranger_s_or_for_something_else_is_refused(host: Host, protect: Protect) -> None:
    host.starts(protect(policy=BY_KEY))
    with pytest.raises(errors.ApprovalUnknown):
        decide(approval_id=waiting().pk, owner_fingerprint=STRANGER.guardian.fingerprint)
    wrong: list[dict[str, Any]] = [
        {"request": UUID(int=1)},
        {"protector": UUID(int=1)},
        {"attester": UUID(int=1)},
        {"owner_fingerprint": STRANGER.guardian.fingerprint},
        {"at": int(now().timestamp()) - 400},
    ]
    for answer in (approves(STRANGER), *(approves(**changes) for changes in wrong)):
        assert answer.status_code == 401
        assert answer.json()["code"] in {"owner_message_refused", "owner_message_stale"}
    assert ReleaseApproval.objects.get().state == "pending"
    assert not ledger.leaves(act_prefix="approval.").exists()


def test_a_signed_approval_answers_once(host: Host, protect: Protect) -> None:
    document = protect(policy=BY_KEY)
    host.starts(document)
    first, second = approves(), approves()
    assert (first.status_code, second.json()["code"]) == (200, "approval_unknown")


def test_two_nodes_that_ask_at_once_make_one_request(host: Host, protect: Protect) -> None:
    host.starts(protect(policy=BY_PORTAL))
    double = waiting()
    double.pk = UUID(int=5)
    with pytest.raises(IntegrityError), transaction.atomic():
        double.save(force_insert=True)


@pytest.mark.parametrize("token", ["", "a.b.c", "x" * 9000, None, 7])
def test_what_is_no_approval_is_malformed(db: None, token: object) -> None:
    answer = APIClient().post("/kps/v1/approvals", {"approval": token}, format="json")
    assert answer.status_code in {400, 413}


def test_nothing_is_asked_of_the_owner_when_the_host_would_be_refused_anyway(host: Host, protect: Protect) -> None:
    policy = ReleasePolicy(approval="portal", host_groups=("elsewhere",))
    assert host.starts(protect(policy=policy))["code"] == "host_group_not_allowed"
    assert not ReleaseApproval.objects.exists()
