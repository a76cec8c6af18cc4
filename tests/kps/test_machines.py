"""A host gets the key of shielding data, and with it the protector of a new machine, whose owner is not there."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, transaction

from attestation import service as attestation
from kps import errors, service
from kps.chains import newest_of
from kps.core.chain import sign_statement, subject_of
from kps.core.guardian import Guardian
from kps.core.protector import VerifiedProtector, open_protector, roll_protector, verify_protector
from kps.core.release_policy import ReleasePolicy
from kps.core.shielding_data import ShieldingData
from kps.models import KeyProtectorRecord, MadeMachine
from ledger import service as ledger
from tests.kps.conftest import Host, lifted
from tests.kps.parties import FABRIC, KEY, OWNER, OWNERS, STRANGER
from tests.kps.shielding import FILE_ID, data_in, made, shielding_data, statement, whole_file
from tests.kps.test_chains import brings

Shield = Callable[..., ShieldingData]
ONE = ReleasePolicy(simultaneous_hosts=1)


@pytest.fixture
def shield(guardian: Guardian) -> Shield:
    """Make shielding data whose machines this fabric may run."""

    def make(*guardians: Guardian, policy: ReleasePolicy | None = None, **changes: Any) -> ShieldingData:
        said = replace(statement(), guardians=guardians or (guardian,), **changes)
        said = said if policy is None else replace(said, policy=policy)
        return data_in(whole_file(OWNER, said, now=_now()))

    return make


def _now() -> datetime:
    return datetime.now(UTC)


def makes(host: Host, data: ShieldingData, vm: str = "web1") -> tuple[VerifiedProtector, Any]:
    """Let a host make a machine; return its protector, and the keys that came with it."""
    answer = host.starts(data.document["protector"], vm=vm)
    return verify_protector(answer["key_protector"]), host.opens(answer["wrapped_keys"])


def record_of(protector: VerifiedProtector) -> KeyProtectorRecord:
    return KeyProtectorRecord.objects.get(owner_fingerprint=OWNERS, protector_id=protector.id)


def test_a_healthy_host_opens_the_file_and_has_a_machine_of_its_owner_s(host: Host, shield: Shield) -> None:
    data = shield()
    machine, keys = makes(host, data)
    assert keys.ingress == KEY
    assert (machine.owner, machine.level, machine.roll) == (OWNER.guardian, "shielded", 1)
    assert machine.chain.made_from == data.id != machine.id
    assert (keys.protector, keys.roll, keys.level) == (machine.id, 1, "shielded")
    assert open_protector(machine, OWNER.encryption) == keys.egress != KEY


def test_the_machine_starts_as_any_other(host: Host, second: Host, shield: Shield) -> None:
    born = host.starts(shield().document["protector"])
    first = verify_protector(born["key_protector"])
    answer = second.starts(born["key_protector"])
    again = verify_protector(answer["key_protector"])
    assert (again.id, again.roll) == (first.id, 2)
    assert second.opens(answer["wrapped_keys"]).ingress == host.opens(born["wrapped_keys"]).egress
    assert [row.protector_id for row in service.releases()] == [first.id, FILE_ID]


def test_one_file_serves_many_machines(host: Host, shield: Shield) -> None:
    data = shield()
    machines = [makes(host, data, vm=f"web{number}")[0].id for number in range(3)]
    assert len(set(machines)) == 3
    made_from = MadeMachine.objects.filter(made_from=data.id)
    assert [(row.record.protector_id, row.vm) for row in reversed(made_from)] == [
        (machine, f"web{number}") for number, machine in enumerate(machines)
    ]


def test_the_making_is_in_the_log(host: Host, shield: Shield) -> None:
    machine, _ = makes(host, shield())
    (leaf,) = ledger.leaves(act_prefix="machine.made")
    assert leaf.subject == subject_of(OWNERS, machine.id)
    assert leaf.actor.startswith("host:")
    assert (leaf.detail["shielding_data"], leaf.detail["name"]) == (str(FILE_ID), "web1")
    assert leaf.detail["statement"] == machine.chain.statement_sha256
    assert record_of(machine).guardian_fingerprint == service.guardian_fingerprint(now=_now())


def test_the_making_stays_as_it_was_written(host: Host, shield: Shield) -> None:
    makes(host, shield())
    with pytest.raises(DatabaseError), transaction.atomic():
        MadeMachine.objects.update(vm="other")
    with pytest.raises(DatabaseError), transaction.atomic():
        MadeMachine.objects.all().delete()


def test_the_owner_s_policy_holds_for_the_making(host: Host, shield: Shield) -> None:
    answer = host.starts(shield(policy=ReleasePolicy(host_groups=("other",))).document["protector"])
    assert answer["code"] == "host_group_not_allowed"
    assert not MadeMachine.objects.exists()
    assert not ledger.leaves(act_prefix="machine.made")


def test_a_machine_at_a_time_is_no_limit_to_making_them(host: Host, second: Host, shield: Shield) -> None:
    data = shield(policy=ONE)
    assert makes(host, data)[0].id != makes(second, data)[0].id


def test_the_host_that_made_a_machine_is_its_first_holder(host: Host, second: Host, shield: Shield) -> None:
    born = host.starts(shield(policy=ONE).document["protector"], vm="web1")["key_protector"]
    machine = verify_protector(born).id
    assert set(service.holders(OWNERS, machine, now=_now())) == {UUID(host.machine.attester)}
    assert second.starts(born)["code"] == "too_many_hosts"
    assert [row.vm for row in service.holding(OWNERS, machine, now=_now())] == ["web1"]
    following = host.starts(born)["key_protector"]  # it may start what it has made
    assert second.starts(following)["code"] == "too_many_hosts"


def test_a_host_that_does_not_run_what_it_made_says_so_and_another_starts_it(
    host: Host, second: Host, shield: Shield
) -> None:
    born = host.starts(shield(policy=ONE).document["protector"], vm="web1")["key_protector"]
    machine = verify_protector(born).id
    assert second.gives_back(protector=machine, vm="web1").json() == {"returned": False}
    assert second.starts(born)["code"] == "too_many_hosts"
    assert host.gives_back(protector=machine, vm="web1").json() == {"returned": True}
    assert host.gives_back(protector=machine, vm="web1").json() == {"returned": False}
    assert "wrapped_keys" in second.starts(born)
    assert host.starts(born)["code"] == "too_many_hosts"


def test_a_maker_whose_certificates_are_revoked_holds_nothing(
    host: Host, second: Host, shield: Shield, admin: User
) -> None:
    born = host.starts(shield(policy=ONE).document["protector"])["key_protector"]
    attestation.revoke_certificate(host.serial, by=admin, reason="burnt down", now=_now())
    assert "wrapped_keys" in second.starts(born)


def test_one_machine_s_maker_holds_no_other_machine_of_the_file(host: Host, second: Host, shield: Shield) -> None:
    data = shield(policy=ONE)
    host.starts(data.document["protector"])
    other = second.starts(data.document["protector"])["key_protector"]
    assert "wrapped_keys" in second.starts(other)
    assert host.starts(other)["code"] == "too_many_hosts"


def test_the_making_says_in_row_and_leaf_which_machine_it_made(host: Host, second: Host, shield: Shield) -> None:
    born = host.starts(shield(policy=ONE).document["protector"])["key_protector"]
    row, machine = service.releases().get(), verify_protector(born).id
    assert (row.protector_id, row.made_id, row.machine_id) == (FILE_ID, machine, machine)
    assert ledger.leaves(act_prefix="key.released").get().detail["machine"] == str(machine)
    second.starts(born)
    host.starts(born)
    assert [(each.code, each.made_id) for each in service.releases()[:2]] == [("", None), ("too_many_hosts", None)]


def test_a_refused_making_made_nothing(host: Host, shield: Shield) -> None:
    host.starts(shield(policy=ReleasePolicy(host_groups=("other",))).document["protector"])
    assert service.releases().get().made_id is None
    assert ledger.leaves(act_prefix="key.refused").get().detail["machine"] == ""


def test_a_denied_file_makes_no_machine_and_those_it_made_start(host: Host, shield: Shield, second: Host) -> None:
    data = shield()
    answer = host.starts(data.document["protector"])
    warden = User.objects.create_superuser("wanda")
    service.deny_protector(OWNERS, data.id, by=warden, reason="lost", now=_now())
    assert host.starts(data.document["protector"])["code"] == "protector_denied"
    assert "wrapped_keys" in second.starts(answer["key_protector"])


def test_the_owner_s_newer_word_on_the_file_binds_machines_made_after_it(host: Host, shield: Shield) -> None:
    data = shield()
    before, _ = makes(host, data)
    said = replace(data.protector.chain.statement, serial=1, level="encryption-supported")
    assert brings(sign_statement(said, OWNER)).status_code == 200
    after, keys = makes(host, data)
    assert (before.level, after.level, keys.level) == ("shielded", "encryption-supported", "encryption-supported")
    assert (after.chain.statement.serial, after.chain.made_from) == (1, data.id)
    assert newest_of(record_of(before)).statement.level == "shielded"


def test_the_owner_takes_the_file_back(host: Host, shield: Shield) -> None:
    data = shield()
    makes(host, data)
    said = replace(data.protector.chain.statement, serial=1, guardians=())
    assert brings(sign_statement(said, OWNER)).status_code == 200
    assert host.starts(data.document["protector"])["code"] == "guardian_revoked"


def test_the_owner_speaks_about_a_made_machine_as_about_any_other(host: Host, shield: Shield) -> None:
    answer = host.starts(shield().document["protector"])
    machine = verify_protector(answer["key_protector"])
    following = replace(machine.chain.statement, serial=1, policy=ReleasePolicy(host_groups=("other",)))
    assert brings(sign_statement(following, OWNER)).status_code == 200
    assert host.starts(answer["key_protector"])["code"] == "host_group_not_allowed"
    assert newest_of(record_of(machine)).made_from is None


def test_what_is_known_of_a_made_machine_can_be_verified_again(host: Host, shield: Shield) -> None:
    machine, _ = makes(host, shield())
    assert newest_of(record_of(machine)) == replace(machine.chain, links=machine.chain.word)


def test_a_machine_that_another_fabric_made_is_known_when_it_starts(
    host: Host, shield: Shield, guardian: Guardian
) -> None:
    data = shield(FABRIC.guardian, guardian)
    chain = made(data.protector.chain, FABRIC)
    first = roll_protector(data.protector, chain, key=bytes(32), signer=FABRIC.signing)
    answer = host.starts(first, vm="elsewhere")
    assert verify_protector(answer["key_protector"]).roll == 2
    assert MadeMachine.objects.get().record.protector_id == chain.statement.id


def test_a_fabric_that_the_owner_has_not_named_makes_no_machine(host: Host, shield: Shield) -> None:
    data = shield()
    elsewhere = data_in(shielding_data())
    born = roll_protector(elsewhere.protector, made(elsewhere.protector.chain), key=KEY, signer=FABRIC.signing)
    forged = born | {"chain": [data.protector.chain.links[0], born["chain"][1]]}
    assert host.starts(forged)["code"] == "protector_stranger"
    assert host.starts(elsewhere.document["protector"])["code"] == "guardian_not_named"
    assert not MadeMachine.objects.exists()


def test_a_file_of_another_owner_makes_that_owner_s_machines(host: Host, guardian: Guardian) -> None:
    keys = STRANGER
    said = replace(statement(owner=keys), guardians=(guardian,))
    data = data_in(whole_file(keys, said, now=_now()))
    machine, _ = makes(host, data)
    assert machine.owner == keys.guardian
    assert not KeyProtectorRecord.objects.filter(owner_fingerprint=OWNERS).exists()


def test_a_lapsed_request_makes_no_machine(host: Host, shield: Shield) -> None:
    at = int((_now() - timedelta(hours=1)).timestamp())
    assert host.starts(shield().document["protector"], at=at)["code"] == "release_stale"
    assert not MadeMachine.objects.exists()


def test_a_file_is_denied_with_all_its_machines(host: Host, shield: Shield) -> None:
    data = shield()
    one, two, three = (host.starts(data.document["protector"], vm=f"web{n}")["key_protector"] for n in range(3))
    warden = User.objects.create_superuser("wanda")
    by: dict[str, Any] = {"by": warden, "reason": "the file leaked", "now": _now()}
    service.deny_protector(OWNERS, verify_protector(two).id, **by)
    service.deny_protector(OWNERS, data.id, with_machines=True, **by)
    assert {host.starts(each)["code"] for each in (one, two, three, data.document["protector"])} == {"protector_denied"}
    assert {row.protector_id for row in service.denied()} == {data.id, verify_protector(two).id}
    assert ledger.leaves(act_prefix="protector.denied")[0].detail["machines"] == 2
    waits = service.propose_lift(OWNERS, verify_protector(one).id, **by)
    lifted(OWNERS, verify_protector(three).id, **by)
    lifted(OWNERS, data.id, **by)
    assert [host.starts(each).get("code") for each in (one, two, three)] == [None, "protector_denied", None]
    with pytest.raises(errors.DenialUnchanged):
        service.decide_lift(waits.pk, approve=True, **{**by, "by": User.objects.get(username="walter")})
    waits.refresh_from_db()
    assert waits.state == "open", "what took no effect is not decided"


def test_a_machine_that_was_made_elsewhere_is_denied_with_its_file(host: Host, shield: Shield) -> None:
    """This fabric sees it for the first time after the denial."""
    data = shield()
    host.starts(data.document["protector"])
    stranger = host.starts(data.document["protector"])["key_protector"]
    known = record_of(verify_protector(stranger))
    with transaction.atomic():
        _forget(known)
        service.deny_protector(
            OWNERS, data.id, by=User.objects.create_superuser("wanda"), reason="leaked", now=_now(), with_machines=True
        )
        assert host.starts(stranger)["code"] == "protector_denied"
    again = record_of(verify_protector(stranger))
    assert (again.denied_with, again.denied_reason) == (data.id, "leaked")


def _forget(known: KeyProtectorRecord) -> None:
    """Make this fabric know a protector no more, which nothing in it can do: its id becomes another."""
    KeyProtectorRecord.objects.filter(pk=known.pk).update(protector_id=STRANGER_ID)


STRANGER_ID = UUID(int=7)
