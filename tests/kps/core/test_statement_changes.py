"""What a newer statement changes, in words: everything that differs, and nothing that does not."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from kps.core.chain import Statement, new_statement
from kps.core.guardian import Guardian
from kps.core.release_policy import Offline, ReleasePolicy
from kps.core.statement_changes import changes
from tests.kps.parties import FABRIC, ID, OTHER_FABRIC, OWNER

POLICY = ReleasePolicy(
    host_groups=("racks",),
    minimum_mode="tpm",
    not_before=1,
    not_after=2,
    hours="08:00-18:00",
    simultaneous_hosts=1,
    approval="portal",
    offline=Offline(2, 12),
    successors=True,
)
FIRST = new_statement(
    OWNER.guardian,
    [FABRIC.guardian],
    protector_id=ID,
    level="shielded",
    policy=ReleasePolicy(),
    now=datetime(2026, 11, 23, tzinfo=UTC),
)


def test_what_says_the_same_again_changes_nothing() -> None:
    assert changes(FIRST, replace(FIRST, serial=1, made_at=FIRST.made_at + 60)) == ()


@pytest.mark.parametrize("member", POLICY.document)
def test_each_member_of_a_policy_is_a_line_of_its_own(member: str) -> None:
    policy = ReleasePolicy(**{member: getattr(POLICY, member)})
    (asked_for,) = changes(FIRST, replace(FIRST, policy=policy))
    (given_up,) = changes(replace(FIRST, policy=policy), FIRST)
    assert asked_for.before == given_up.after == ""
    assert asked_for.after == given_up.before
    assert asked_for.after.endswith(".")
    assert "any healthy host" not in asked_for.after.lower()
    assert given_up.effect.startswith("Not asked for any more")


def test_a_policy_that_changes_everything_has_a_line_for_everything() -> None:
    assert len(changes(FIRST, replace(FIRST, policy=POLICY))) == len(POLICY.document)


@pytest.mark.parametrize(
    ("level", "words"), [("encryption-supported", "may have its console"), ("shielded", "no console")]
)
def test_another_level_says_what_the_hosts_people_may(level: str, words: str) -> None:
    before = "shielded" if level == "encryption-supported" else "encryption-supported"
    (change,) = changes(replace(FIRST, level=before), replace(FIRST, level=level))
    assert (change.before, change.after) == (before, level)
    assert words in change.effect


def test_a_fabric_that_goes_and_one_that_comes_are_two_lines() -> None:
    gone, come = changes(FIRST, replace(FIRST, guardians=(OTHER_FABRIC.guardian,)))
    assert (gone.before[:6], gone.after) == ("fabric", "")
    assert (come.before, come.after[:12]) == ("", "other fabric")
    assert FABRIC.guardian.fingerprint[:16] in gone.before
    assert "No key is released there" in gone.effect


def test_newer_keys_in_the_place_of_older_ones_of_one_name_are_no_farewell() -> None:
    newer = replace(OTHER_FABRIC.guardian, name="fabric")
    gone, come = changes(FIRST, replace(FIRST, guardians=(newer,)))
    assert "These keys count no more" in gone.effect
    assert come.after.startswith("fabric (")


@pytest.mark.parametrize("what", [{"owner": "other"}, {"guardians": "other"}])
def test_another_name_for_the_same_keys_is_called_that(what: dict[str, str]) -> None:
    def renamed(card: Guardian) -> Guardian:
        return replace(card, name="other")

    change: dict[str, Any] = (
        {"owner": renamed(FIRST.owner)} if "owner" in what else {"guardians": (renamed(FABRIC.guardian),)}
    )
    (found,) = changes(FIRST, replace(FIRST, **change))
    assert found.after == "other"
    assert "same" in found.effect


def test_what_is_listed_twice_is_so_in_the_statements_order() -> None:
    both = (FABRIC.guardian, OTHER_FABRIC.guardian)
    none: Statement = replace(FIRST, guardians=())
    assert [each.after.split(" (")[0] for each in changes(none, replace(FIRST, guardians=both))] == [
        "fabric",
        "other fabric",
    ]


FILE = replace(FIRST, makes_machines=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"level": "encryption-supported"}, "Those that are there stay as they are."),
        ({"guardians": ()}, "NO FABRIC makes machines from it then"),
        ({"guardians": (FABRIC.guardian, OTHER_FABRIC.guardian)}, "whose key the owner has wrapped for it too"),
        ({"policy": ReleasePolicy(hours="08:00-18:00")}, "for the machines that are made then"),
    ],
)
def test_what_follows_for_shielding_data_is_said_of_machines_made_from_then_on(
    change: dict[str, Any], words: str
) -> None:
    (found,) = changes(FILE, replace(FILE, **change))
    (of_vm,) = changes(FIRST, replace(FIRST, **change))
    assert words in found.effect
    assert words not in of_vm.effect


def test_a_change_is_a_sentence_where_there_is_no_table() -> None:
    everything = replace(FIRST, level="encryption-supported", policy=POLICY, guardians=(OTHER_FABRIC.guardian,))
    said = [str(change) for change in changes(FIRST, everything)]
    assert said[0].startswith("Level: encryption-supported. Before: shielded. LOST: ")
    assert said[1].startswith(f"May run it, no longer: fabric ({FABRIC.guardian.fingerprint[:16]}…). ")
    assert f"Its fingerprint is {OTHER_FABRIC.guardian.fingerprint}." in said[2]
    assert all(".." not in line and "  " not in line for line in said)
