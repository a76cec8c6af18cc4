"""The fabric changes its guardian keys while VMs go on starting; and who may decide that."""

import io
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction

from kps import errors, service
from kps.chains import take_chain
from kps.core.guardian import Guardian, verify_metadata
from kps.core.protector import verify_protector
from kps.core.release_policy import ReleasePolicy
from kps.guardianship import our_guardian, prepare_successor
from kps.models import GuardianPair, KeyProtectorRecord, ServiceKey
from kps.our_pairs import OurPairs
from kps.remembered import remembered
from ledger import service as ledger
from tests.kps.conftest import Host
from tests.kps.parties import OTHER_FABRIC, changed

Protect = Callable[..., dict[str, Any]]
WHY = "the yearly change of keys"


def in_role(name: str, role: str) -> User:
    user = User.objects.create_user(name)
    user.groups.add(Group.objects.get(name=role))
    return user


@pytest.fixture
def ada(db: None) -> User:
    return in_role("adele", "fabric admin")


@pytest.fixture
def ben(db: None) -> User:
    return in_role("benno", "approver")


def now() -> datetime:
    return datetime.now(UTC)


def ours() -> OurPairs:
    return remembered(None).ours


def published() -> Any:
    return verify_metadata(service.metadata(now=now()))


def prepare(by: User) -> GuardianPair:
    return service.prepare(by=by, reason=WHY, now=now())


def change(pair: GuardianPair, what: str, ada: User, ben: User) -> GuardianPair:
    proposal = service.propose(pair.number, what, by=ada, reason=WHY, now=now())
    service.decide(proposal.pk, by=ben, approve=True, reason=WHY, now=now())
    return service.pairs().get(pk=pair.pk)


def rotate(ada: User, ben: User) -> GuardianPair:
    return change(prepare(ada), "promote", ada, ben)


def acts() -> list[str]:
    return [leaf.act for leaf in ledger.leaves(act_prefix="guardian.")][::-1]


# --- who may, and when -------------------------------------------------------------------------------------------


def test_other_roles_change_no_keys(guardian: Guardian, ada: User, ben: User) -> None:
    nobody = User.objects.create_user("nobody")
    for person in (ben, nobody):
        with pytest.raises(errors.NotAllowed):
            prepare(person)
    pair = prepare(ada)
    for person in (ben, nobody):
        with pytest.raises(errors.NotAllowed):
            service.propose(pair.number, "promote", by=person, reason=WHY, now=now())
    proposal = service.propose(pair.number, "promote", by=ada, reason=WHY, now=now())
    for person in (ada, nobody):
        with pytest.raises(errors.NotAllowed):
            service.decide(proposal.pk, by=person, approve=True, reason=WHY, now=now())
    assert published().guardian == guardian


def test_nobody_decides_what_they_have_put_forward(guardian: Guardian, ada: User, ben: User) -> None:
    ada.groups.add(*ben.groups.all())
    both = User.objects.get(pk=ada.pk)
    proposal = service.propose(prepare(both).number, "promote", by=both, reason=WHY, now=now())
    with pytest.raises(errors.FourEyes):
        service.decide(proposal.pk, by=both, approve=True, reason=WHY, now=now())


def test_without_four_eyes_one_person_may(guardian: Guardian, ada: User, ben: User, settings: Any) -> None:
    settings.FOUR_EYES = False
    ada.groups.add(*ben.groups.all())
    both = User.objects.get(pk=ada.pk)
    assert change(prepare(both), "promote", both, both).state == "primary"


def test_one_pair_is_prepared_at_a_time(guardian: Guardian, ada: User) -> None:
    prepare(ada)
    with pytest.raises(errors.CannotRotate, match="prepared already"):
        prepare(ada)
    with pytest.raises(IntegrityError), transaction.atomic():
        prepare_successor(now=now())
    assert GuardianPair.objects.count() == 2
    assert ServiceKey.objects.count() == 4


def test_one_change_of_a_pair_waits_at_a_time(guardian: Guardian, ada: User) -> None:
    pair = prepare(ada)
    service.propose(pair.number, "promote", by=ada, reason=WHY, now=now())
    with pytest.raises(errors.AlreadyDecided):
        service.propose(pair.number, "disable", by=ada, reason=WHY, now=now())


def test_a_proposal_is_decided_once(guardian: Guardian, ada: User, ben: User) -> None:
    proposal = service.propose(prepare(ada).number, "promote", by=ada, reason=WHY, now=now())
    service.decide(proposal.pk, by=ben, approve=False, reason=WHY, now=now())
    with pytest.raises(errors.AlreadyDecided):
        service.decide(proposal.pk, by=ben, approve=True, reason=WHY, now=now())
    assert published().guardian == guardian
    assert acts() == ["guardian.prepared", "guardian.proposed", "guardian.rejected"]


@pytest.mark.parametrize("what", ["disable", "promote", "enable"])
def test_the_pair_in_use_is_neither_disabled_nor_anything_else(guardian: Guardian, ada: User, what: str) -> None:
    with pytest.raises(errors.CannotRotate):
        service.propose(1, what, by=ada, reason=WHY, now=now())


def test_what_is_not_there_is_not_found(guardian: Guardian, ada: User, ben: User) -> None:
    with pytest.raises(errors.NotFound):
        service.propose(9, "disable", by=ada, reason=WHY, now=now())
    with pytest.raises(errors.NotFound):
        service.decide(9, by=ben, approve=True, reason=WHY, now=now())
    with pytest.raises(errors.NotFound):
        ours().keys(Guardian("x", guardian.encryption, guardian.signing))


def test_a_change_that_is_overtaken_is_refused_when_it_is_decided(guardian: Guardian, ada: User, ben: User) -> None:
    pair = prepare(ada)
    proposal = service.propose(pair.number, "promote", by=ada, reason=WHY, now=now())
    GuardianPair.objects.filter(pk=pair.pk).update(state="disabled")
    with pytest.raises(errors.CannotRotate):
        service.decide(proposal.pk, by=ben, approve=True, reason=WHY, now=now())
    assert service.rotations().get(pk=proposal.pk).state == "open"
    assert published().guardian == guardian


# --- what tenants see --------------------------------------------------------------------------------------------


def test_a_prepared_pair_is_published_and_can_be_followed_to(guardian: Guardian, ada: User, ben: User) -> None:
    pair = prepare(ada)
    before = published()
    assert before.guardian == guardian
    assert [each.fingerprint for each in before.others] == [pair.fingerprint]
    change(pair, "promote", ada, ben)
    after = published()
    assert after.guardian.fingerprint == pair.fingerprint
    assert [each.fingerprint for each in after.others] == [guardian.fingerprint]
    assert after.follows([guardian.fingerprint]) == guardian


def test_two_rotations_later_the_first_fingerprint_still_leads_here(guardian: Guardian, ada: User, ben: User) -> None:
    rotate(ada, ben)
    newest = rotate(ada, ben)
    assert published().guardian.fingerprint == newest.fingerprint
    assert published().follows([guardian.fingerprint]) == guardian


def test_a_pair_that_is_given_up_leads_nowhere(guardian: Guardian, ada: User, ben: User) -> None:
    given_up = change(prepare(ada), "disable", ada, ben)
    newest = rotate(ada, ben)
    metadata = published()
    assert metadata.guardian.fingerprint == newest.fingerprint
    assert given_up.fingerprint not in {each.fingerprint for each in metadata.others}
    assert metadata.follows([given_up.fingerprint]) is None
    assert metadata.follows([guardian.fingerprint]) == guardian


def test_twenty_rotations_stay_within_the_document(guardian: Guardian, ada: User, ben: User) -> None:
    for _ in range(20):
        newest = rotate(ada, ben)
    metadata = published()
    assert metadata.guardian.fingerprint == newest.fingerprint
    assert len(metadata.successions) == 16


def test_a_former_pair_has_its_successor(guardian: Guardian, ada: User, ben: User) -> None:
    assert ours().successor_of(guardian) is None
    pair = rotate(ada, ben)
    assert ours().successor_of(guardian) == our_guardian(now=now())
    assert our_guardian(now=now()).fingerprint == pair.fingerprint
    assert ours().successor_of(our_guardian(now=now())) is None


# --- releases go on ----------------------------------------------------------------------------------------------


def test_a_vm_starts_before_during_and_after_a_rotation(host: Host, protect: Protect, ada: User, ben: User) -> None:
    protector = protect()
    for step in (lambda: prepare(ada), lambda: change(service.pairs()[0], "promote", ada, ben), lambda: None):
        answer = host.posts(host.asks(protector))
        assert answer.status_code == 200, answer.json()
        protector = answer.json()["key_protector"]
        step()
    assert host.opens(answer.json()["wrapped_keys"]).roll == 3


def test_an_owner_may_grant_a_pair_before_it_is_used(host: Host, protect: Protect, ada: User) -> None:
    prepare(ada)
    (prepared,) = published().others
    assert host.posts(host.asks(protect(prepared))).status_code == 200


def test_a_disabled_pair_opens_nothing_until_it_is_enabled_again(
    host: Host, protect: Protect, guardian: Guardian, ada: User, ben: User
) -> None:
    protector = protect()
    assert host.posts(host.asks(protector)).status_code == 200
    newest = rotate(ada, ben)
    first = change(service.pairs().get(number=1), "disable", ada, ben)
    answer = host.posts(host.asks(protector))
    assert (answer.status_code, answer.json()["code"]) == (403, "guardian_disabled")
    assert service.releases()[0].code == "guardian_disabled"
    with pytest.raises(errors.GuardianDisabled):
        ours().keys(guardian)
    assert host.posts(host.asks(protect(service.card(newest), serial=1))).status_code == 200
    change(first, "enable", ada, ben)
    assert host.posts(host.asks(protector)).status_code == 200


def test_a_protector_that_names_both_pairs_does_not_need_the_old_one(
    host: Host, protect: Protect, guardian: Guardian, ada: User, ben: User
) -> None:
    newest = rotate(ada, ben)
    both = protect(guardian, service.card(newest), serial=1)
    change(service.pairs().get(number=1), "disable", ada, ben)
    assert host.posts(host.asks(both)).status_code == 200


def test_it_is_known_which_pair_a_protector_depends_on(
    host: Host, protect: Protect, guardian: Guardian, ada: User, ben: User
) -> None:
    host.posts(host.asks(protect()))
    newest = rotate(ada, ben)
    first = service.pairs().get(number=1)
    assert service.dependants(first).count() == 1
    assert service.impact_of("disable", first)["protectors"] == 1
    host.posts(host.asks(protect(guardian, service.card(newest), serial=1)))
    assert service.dependants(first).count() == 0
    assert service.dependants_by_pair() == {newest.fingerprint: 1}
    assert KeyProtectorRecord.objects.count() == 1


def awaits(pair: GuardianPair) -> list[str]:
    return [each.awaits for each in service.awaited(service.dependants(pair))]


def test_it_is_said_what_each_protector_waits_for(
    host: Host, protect: Protect, guardian: Guardian, ada: User, ben: User
) -> None:
    protector = protect()
    host.posts(host.asks(protector))
    newest = rotate(ada, ben)
    first = service.pairs().get(number=1)
    assert awaits(first) == ["owner"]
    take_chain(changed(protector, guardians=(guardian, service.card(newest))).document, now=now())
    assert awaits(first) == ["start"]
    assert host.posts(host.asks(protector)).status_code == 200
    assert awaits(first) == []
    assert service.dependants_by_pair() == {newest.fingerprint: 1}


def test_a_protector_that_may_follow_does_so_by_itself_any_number_of_times(
    host: Host, protect: Protect, guardian: Guardian, ada: User, ben: User
) -> None:
    protector = protect(policy=ReleasePolicy(successors=True))
    protector = host.posts(host.asks(protector)).json()["key_protector"]
    for _ in range(2):
        before = service.pairs().get(state="primary")
        newest = rotate(ada, ben)
        assert awaits(service.pairs().get(pk=before.pk)) == ["itself"]
        protector = host.posts(host.asks(protector)).json()["key_protector"]
        assert service.dependants_by_pair() == {newest.fingerprint: 1}
    change(service.pairs().get(number=2), "disable", ada, ben)
    assert host.posts(host.asks(protector)).status_code == 200


def test_what_waits_for_itself_waits_for_its_owner_once_the_pair_is_disabled(
    host: Host, protect: Protect, guardian: Guardian, ada: User, ben: User
) -> None:
    host.posts(host.asks(protect(policy=ReleasePolicy(successors=True))))
    rotate(ada, ben)
    assert awaits(change(service.pairs().get(number=1), "disable", ada, ben)) == ["owner"]


def test_a_protector_whose_owner_left_waits_for_nothing(
    host: Host, protect: Protect, guardian: Guardian, ada: User, ben: User
) -> None:
    protector = protect()
    host.posts(host.asks(protector))
    rotate(ada, ben)
    take_chain(changed(protector, guardians=(OTHER_FABRIC.guardian,)).document, now=now())
    assert awaits(service.pairs().get(number=1)) == ["nothing"]


def test_a_protector_that_never_started_depends_on_the_pair_it_was_made_for(
    protect: Protect, guardian: Guardian, ada: User
) -> None:
    service.know_protector(verify_protector(protect()).chain, by=ada, now=now())
    assert service.dependants(service.pairs().get(number=1)).count() == 1


def test_every_act_is_a_leaf_with_its_effect(
    host: Host, protect: Protect, guardian: Guardian, ada: User, ben: User
) -> None:
    host.posts(host.asks(protect()))
    rotate(ada, ben)
    change(service.pairs().get(number=1), "disable", ada, ben)
    assert acts() == [
        "guardian.prepared",
        "guardian.proposed",
        "guardian.promoted",
        "guardian.proposed",
        "guardian.disabled",
    ]
    last = ledger.leaves(act_prefix="guardian.disabled")[0]
    assert (last.detail["protectors"], last.subject) == (1, f"guardian:{guardian.fingerprint}")
    assert last.actor == f"user:{ben.username}"


# --- what owners have allowed beforehand -------------------------------------------------------------------------


def test_a_host_wraps_again_where_the_owner_has_allowed_successors(
    host: Host, protect: Protect, guardian: Guardian, ada: User, ben: User
) -> None:
    before = protect(policy=ReleasePolicy(successors=True))
    newest = rotate(ada, ben)
    first = service.pairs().get(number=1)
    rolled = host.starts(before)["key_protector"]
    assert verify_protector(rolled).guardians == (service.card(newest),)
    assert service.dependants(first).count() == 0
    change(first, "disable", ada, ben)
    again = host.posts(host.asks(rolled))
    assert again.status_code == 200, again.json()
    assert verify_protector(again.json()["key_protector"]).chain == verify_protector(rolled).chain
    assert host.starts(before)["code"] == "guardian_disabled"  # a backup from before


def test_nobody_succeeds_whom_the_owner_has_not_allowed_to(
    host: Host, protect: Protect, guardian: Guardian, ada: User, ben: User
) -> None:
    before = protect()
    rotate(ada, ben)
    rolled = host.starts(before)["key_protector"]
    assert verify_protector(rolled).guardians == (guardian,)


def test_a_fabric_that_has_both_pairs_does_not_name_itself_twice(
    host: Host, protect: Protect, guardian: Guardian, ada: User, ben: User
) -> None:
    both = (guardian, service.card(rotate(ada, ben)))
    rolled = host.starts(protect(*both, policy=ReleasePolicy(successors=True)))["key_protector"]
    assert verify_protector(rolled).guardians == both


def test_a_fabric_that_was_renamed_succeeds_under_the_name_its_owner_knows(
    host: Host, protect: Protect, guardian: Guardian, ada: User, ben: User, settings: Any
) -> None:
    before = protect(policy=ReleasePolicy(successors=True))
    rotate(ada, ben)
    settings.FABRIC_NAME = "renamed"
    (successor,) = verify_protector(host.starts(before)["key_protector"]).guardians
    assert successor.name == guardian.name
    assert successor.fingerprint == service.guardian_fingerprint(now=now())


# --- from a console ----------------------------------------------------------------------------------------------


def console(*words: str) -> str:
    printed = io.StringIO()
    call_command("guardian", *words, stdout=printed)
    return printed.getvalue()


def by(person: User) -> tuple[str, ...]:
    return ("--by", person.username, "--reason", WHY)


def test_a_rotation_from_the_console_is_that_of_two_persons(guardian: Guardian, ada: User, ben: User) -> None:
    assert "2  " in console("prepare", *by(ada))
    number = console("propose", "promote", "2", *by(ada)).split()[1].rstrip(":")
    assert f"proposal {number}: promote key pair 2, by adele" in console("list")
    with pytest.raises(CommandError, match="not_allowed"):
        console("decide", number, *by(ada))
    assert "approved; key pair 2 is: in use" in console("decide", number, *by(ben))
    first, second = reversed(console("list").splitlines())
    assert first.startswith(f"1  Opens still  {guardian.fingerprint}")
    assert second.startswith("2  In use  ")
    assert [leaf.actor for leaf in ledger.leaves(act_prefix="guardian.")] == ["user:benno", "user:adele", "user:adele"]


def test_the_console_gives_nobody_more_rights(guardian: Guardian, ada: User, ben: User) -> None:
    for words in (["prepare", *by(ben)], ["propose", "disable", "1", *by(ben)], ["propose", "disable", "1", *by(ada)]):
        with pytest.raises(CommandError, match=r"\((not_allowed|cannot_rotate)\)"):
            console(*words)
    for words in (["prepare", "--by", "nobody at all", "--reason", WHY], ["decide", "9", *by(ben)]):
        with pytest.raises(CommandError, match=r"no person|no such proposal"):
            console(*words)
    assert acts() == []
