"""Whoever has stolen keys of this fabric, an old pair too, signs links that this fabric knows it has not signed."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from kps import errors, service
from kps.core.chain import VerifiedChain, make_machine, sign_statement, succeed, verify_chain
from kps.core.guardian import Guardian, GuardianKeys
from kps.core.protector import open_protector, roll_protector, verify_protector, wrap_again
from kps.core.release_policy import ReleasePolicy
from kps.guardianship import our_guardian, prepare_successor
from kps.models import GuardianPair, KeyProtectorRecord, MadeMachine
from kps.remembered import remembered
from ledger import service as ledger
from tests.kps.conftest import Host
from tests.kps.parties import FABRIC, KEY, OTHER_FABRIC, OWNER, STRANGER
from tests.kps.shielding import data_in, statement, whole_file

Protect = Callable[..., dict[str, Any]]
MAY_FOLLOW = ReleasePolicy(successors=True)


def now() -> datetime:
    return datetime.now(UTC)


def keys_of(guardian: Guardian) -> GuardianKeys:
    """Return what a thief has: the private keys of a pair of this fabric's."""
    return remembered(None).ours.keys(guardian)


def rotated() -> Guardian:
    """Put a new pair into use, and return its card."""
    pair = prepare_successor(now=now())
    GuardianPair.objects.filter(state="primary").update(state="former", primary_until=now())
    GuardianPair.objects.filter(pk=pair.pk).update(state="primary", primary_since=now())
    return our_guardian(now=now())


def disable(guardian: Guardian) -> None:
    GuardianPair.objects.filter(fingerprint=guardian.fingerprint).update(state="disabled", disabled_at=now())


def presents(chain: VerifiedChain, signer: GuardianKeys) -> dict[str, Any]:
    """Return the protector of this chain as a thief wraps and seals it, after the roll that everybody may seal."""
    return wrap_again(chain, roll=1, key=KEY, signer=signer.signing)


def called(keys: GuardianKeys, name: str) -> GuardianKeys:
    """A successor has the name of the one before it."""
    return replace(keys, name=name)


@dataclass
class Stolen:
    """An owner who has named both pairs of this fabric and allows successors, and a thief of the older one."""

    chain: VerifiedChain
    old: GuardianKeys
    new: GuardianKeys

    @property
    def thief(self) -> GuardianKeys:
        return called(STRANGER, self.old.name)


@pytest.fixture
def stolen(protect: Protect, guardian: Guardian) -> Stolen:
    new = rotated()
    document = protect(guardian, new, policy=MAY_FOLLOW)
    return Stolen(verify_chain(document["chain"]), keys_of(guardian), keys_of(new))


# --- refused -----------------------------------------------------------------------------------------------------


def test_a_successor_that_is_not_ours_gets_no_key(host: Host, stolen: Stolen) -> None:
    """The owner names this fabric by another pair too, by which it would wrap the next key for the thief."""
    forged = succeed(stolen.chain, stolen.old, stolen.thief.guardian)
    answer = host.starts(presents(forged, stolen.thief))
    assert answer["code"] == "link_forged"
    assert stolen.thief.guardian.fingerprint[:16] in answer["detail"]


def test_the_refusal_is_in_the_records_as_any_other(host: Host, stolen: Stolen) -> None:
    forged = succeed(stolen.chain, stolen.old, stolen.thief.guardian)
    host.starts(presents(forged, stolen.thief))
    row = service.releases().get()
    assert (row.released, row.code, row.protector_id) == (False, "link_forged", forged.statement.id)
    assert ledger.leaves(act_prefix="key.refused").get().detail["code"] == "link_forged"
    assert ledger.leaves(act_prefix="key.refused").get().subject == forged.subject


def test_nothing_is_remembered_of_a_forged_chain(host: Host, stolen: Stolen) -> None:
    host.starts(presents(succeed(stolen.chain, stolen.old, stolen.thief.guardian), stolen.thief))
    assert not KeyProtectorRecord.objects.exists()
    assert not ledger.leaves(act_prefix="chain.").exists()


def test_a_forged_chain_of_a_protector_that_is_known_changes_nothing(host: Host, stolen: Stolen) -> None:
    honest = wrap_again(stolen.chain, roll=0, key=KEY, signer=OWNER.signing)
    assert "wrapped_keys" in host.starts(honest)
    before = KeyProtectorRecord.objects.values().get()
    newer = sign_statement(replace(stolen.chain.statement, serial=1), OWNER)
    forged = succeed(newer, stolen.old, stolen.thief.guardian)
    assert host.starts(presents(forged, stolen.thief))["code"] == "link_forged"
    assert KeyProtectorRecord.objects.values().get() == before


def test_a_detour_over_our_own_card_is_no_way_round(host: Host, protect: Protect, guardian: Guardian) -> None:
    first, second = keys_of(guardian), keys_of(rotated())
    chain = succeed(verify_chain(protect(policy=MAY_FOLLOW)["chain"]), first, second.guardian)
    forged = succeed(chain, second, called(STRANGER, guardian.name).guardian)
    assert host.starts(presents(forged, called(STRANGER, guardian.name)))["code"] == "link_forged"


def test_half_of_our_card_is_not_our_card(host: Host, stolen: Stolen, guardian: Guardian) -> None:
    """Our signing key beside the thief's encryption key: the next key would be wrapped for the thief."""
    chain = sign_statement(replace(stolen.chain.statement, guardians=(guardian,)), OWNER)
    half = replace(stolen.new, encryption=STRANGER.encryption)
    forged = succeed(chain, stolen.old, half.guardian)
    assert host.starts(presents(forged, half))["code"] == "link_forged"


def test_a_link_that_a_disabled_pair_could_not_have_signed_is_refused(
    host: Host, protect: Protect, guardian: Guardian
) -> None:
    """The successor was made after the old pair was disabled."""
    old, chain = keys_of(guardian), verify_chain(protect(policy=MAY_FOLLOW)["chain"])
    rotated()
    disable(guardian)
    late = rotated()
    assert host.starts(presents(succeed(chain, old, late), keys_of(late)))["code"] == "link_forged"


def test_a_machine_that_a_disabled_pair_makes_is_refused(host: Host, guardian: Guardian) -> None:
    old, new = keys_of(guardian), rotated()
    said = replace(statement(), guardians=(guardian, new))
    data = data_in(whole_file(OWNER, said, now=now()))
    forged = make_machine(data.protector.chain, old, nonce=bytes(16), now=now())
    disable(guardian)
    first = roll_protector(data.protector, forged, key=KEY, signer=old.signing)
    assert host.starts(first)["code"] == "link_forged"
    assert not MadeMachine.objects.exists()


@pytest.mark.parametrize("times", [1, 2])
def test_a_forged_chain_that_is_brought_is_refused_and_leaves_one_trace(host: Host, stolen: Stolen, times: int) -> None:
    host.starts(wrap_again(stolen.chain, roll=0, key=KEY, signer=OWNER.signing))
    newer = sign_statement(replace(stolen.chain.statement, serial=1), OWNER)
    forged = succeed(newer, stolen.old, stolen.thief.guardian)
    for _ in range(times):
        answer = APIClient().post("/kps/v1/chains", forged.document, format="json")
        assert (answer.status_code, answer.json()["code"]) == (422, "link_forged")
    assert KeyProtectorRecord.objects.get().serial == 0
    assert ledger.leaves(act_prefix="chain.refused").get().detail["code"] == "link_forged"


def test_a_forged_chain_is_not_registered(stolen: Stolen, admin: User) -> None:
    forged = succeed(stolen.chain, stolen.old, stolen.thief.guardian)
    with pytest.raises(errors.LinkForged):
        service.know_protector(forged, by=admin, now=now())
    assert not KeyProtectorRecord.objects.exists()


# --- accepted ----------------------------------------------------------------------------------------------------


def test_our_own_succession_is_followed_after_the_old_pair_was_disabled(
    host: Host, protect: Protect, guardian: Guardian
) -> None:
    rotated()
    moved = host.starts(protect(policy=MAY_FOLLOW))["key_protector"]
    assert [old.fingerprint for old, _ in verify_protector(moved).chain.successions] == [guardian.fingerprint]
    disable(guardian)
    assert "wrapped_keys" in host.starts(moved)


def test_a_machine_made_before_the_pair_was_disabled_starts_by_the_other(host: Host, guardian: Guardian) -> None:
    new = rotated()
    said = replace(statement(), guardians=(guardian, new))
    data = data_in(whole_file(OWNER, said, now=now()))
    machine = host.starts(data.document["protector"], vm="web1")["key_protector"]
    assert verify_protector(machine).chain.maker == guardian
    disable(guardian)
    assert "wrapped_keys" in host.starts(machine)


def test_a_succession_of_another_fabric_is_for_the_owner_to_judge(
    host: Host, protect: Protect, guardian: Guardian
) -> None:
    """Nobody here can know another fabric's pairs; `docs/keys.md` says what remains."""
    chain = verify_chain(protect(guardian, FABRIC.guardian, policy=MAY_FOLLOW)["chain"])
    moved = succeed(chain, FABRIC, called(OTHER_FABRIC, FABRIC.name).guardian)
    answer = host.starts(presents(moved, keys_of(guardian)))
    rolled = verify_protector(answer["key_protector"])
    assert open_protector(rolled, OTHER_FABRIC.encryption) == host.opens(answer["wrapped_keys"]).egress
