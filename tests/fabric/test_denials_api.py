"""Denials by API and from a console: what they reach is said before, and they are what pages do."""

import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from attestation import service
from attestation.errors import DeniedBefore
from fabric.models import VirtualMachine
from kps import service as kps
from kps.core.release_policy import Offline, ReleasePolicy
from kps.models import KeyProtectorRecord
from ledger import service as ledger
from tests.attestation.conftest import Portal
from tests.fabric.conftest import REASON, known
from tests.fabric.test_api import Program, ada, ben, refused
from tests.kps.conftest import Host, guardian, host, protect
from tests.kps.parties import ID, OWNERS, STRANGER, STRANGERS, protector
from tests.kps.test_machines import shield
from tests.machines import Machine

__all__ = ["ada", "ben", "guardian", "host", "protect", "shield"]

Protect = Callable[..., dict[str, Any]]
NAME = str(ID)[:8]


def now() -> datetime:
    return datetime.now(UTC)


def recorded(owner: str = STRANGERS) -> KeyProtectorRecord:
    return KeyProtectorRecord.objects.get(owner_fingerprint=owner, protector_id=ID)


# --- by API ------------------------------------------------------------------------------------------------------


def test_a_key_is_denied_after_a_look_at_whom_that_reaches_and_allowed_again_by_two(
    host: Host, protect: Protect, ada: Program, ben: Program
) -> None:
    offline = ReleasePolicy(offline=Offline(starts=1, hours=2))
    rolled = host.starts(protect(owner=STRANGER, policy=offline))["key_protector"]
    (listed,) = ada.get("protectors").json()["results"]
    path = f"protectors/{listed['id']}"
    told = ada.get(path).json()
    assert {**listed, "machines": 0, "open_lift": None} == told
    assert (told["name"], told["registered"], told["tenant"], told["owner"]) == (NAME, None, None, STRANGERS)
    assert (told["holding"], told["called"], told["denied_at"]) == (["nbg-a01"], "payroll", None)
    assert told["offline_until"] is not None
    refused(ada.post(f"{path}/denial", {"reason": REASON, "confirm": "payroll"}), 409, "not_confirmed")
    refused(ada.post(f"{path}/denial", {"reason": REASON}), 400, "malformed_request")
    refused(ada.post(f"{path}/lift", {"reason": REASON}), 404, "not_found")
    denied = ada.post(f"{path}/denial", {"reason": REASON, "confirm": NAME})
    assert (denied.status_code, denied.json()["denied_by"], denied.json()["denied_reason"]) == (201, "ada", REASON)
    assert host.starts(rolled)["code"] == "protector_denied"
    refused(ada.post(f"{path}/denial", {"reason": REASON, "confirm": NAME}), 404, "not_found")
    lift = ada.post(f"{path}/lift", {"reason": REASON}).json()
    assert (lift["state"], lift["protector_record"], ada.get(path).json()["open_lift"]) == (
        *("open", listed["id"]),
        lift["id"],
    )
    refused(ada.post(f"{path}/lift", {"reason": REASON}), 409, "already_decided")
    verdict = {"reason": REASON, "decision": "approve"}
    assert host.starts(rolled)["code"] == "protector_denied"
    decided = ben.post(f"denial-lifts/{lift['id']}/decision", verdict)
    assert (decided.status_code, decided.json()["state"], decided.json()["decided_by"]) == (200, "approved", "ben")
    refused(ben.post(f"denial-lifts/{lift['id']}/decision", verdict), 409, "already_decided")
    assert "wrapped_keys" in host.starts(rolled)
    leaves = ledger.leaves(act_prefix="protector.")
    assert [leaf.act for leaf in leaves] == ["protector.allowed", "protector.lift_proposed", "protector.denied"]
    assert all(leaf.detail["token"] for leaf in leaves), "each act names the token that it came by"
    assert ada.get("denial-lifts?state=open").json()["count"] == 0
    assert ada.get(f"denial-lifts/{lift['id']}").json() == ada.get("denial-lifts?state=approved").json()["results"][0]


def test_whoever_put_it_forward_does_not_decide_it(admin: User, approver: User, ada: Program) -> None:
    known(protector(owner=STRANGER), by=admin)
    kps.deny_protector(STRANGERS, ID, by=admin, reason=REASON, now=now())
    lift = kps.propose_lift(STRANGERS, ID, by=admin, reason=REASON, now=now())
    admin.groups.add(*approver.groups.all())
    refused(ada.post(f"denial-lifts/{lift.pk}/decision", {"reason": REASON, "decision": "approve"}), 403, "four_eyes")
    assert recorded().denied_at is not None


def test_the_list_is_paged_and_filtered(machine: VirtualMachine, admin: User, ada: Program) -> None:
    known(protector(), by=admin)
    known(protector(owner=STRANGER), by=admin)
    assert ada.get("protectors?page_size=1").json()["count"] == 2
    assert len(ada.get("protectors?page_size=1&page=2").json()["results"]) == 1
    assert {each["owner"] for each in ada.get("protectors?q=payroll").json()["results"]} == {OWNERS, STRANGERS}
    named = {each["owner"]: each for each in ada.get("protectors").json()["results"]}
    assert (named[OWNERS]["name"], named[OWNERS]["registered"], named[OWNERS]["tenant"]) == (
        *("payroll", "machine"),
        "brandt",
    )
    assert named[STRANGERS]["registered"] is None, "an id alone is anybody's"
    assert ada.get("protectors?denied=true").json()["results"] == []
    for wrong in ("protectors?owner=x", "protectors?denied=perhaps", "protectors?q=a%00b"):
        refused(ada.get(wrong), 400, "malformed_request")
    for gone in ("protectors/999999", "denial-lifts/999999", "protectors?page=9"):
        refused(ada.get(gone), 404, "not_found")


def test_shielding_data_is_denied_with_what_was_made_from_it(
    host: Host, shield: Callable[..., Any], ada: Program
) -> None:
    data = shield()
    made = host.starts(data.document["protector"])["key_protector"]
    path = f"protectors/{KeyProtectorRecord.objects.get(protector_id=data.id).pk}"
    assert ada.get(path).json()["machines"] == 1
    said = {"reason": REASON, "confirm": str(data.id)[:8], "with_machines": True}
    assert ada.post(f"{path}/denial", said).status_code == 201
    assert host.starts(made)["code"] == "protector_denied"


def test_certificates_are_denied_after_a_look_at_whom_that_reaches(host: Host, protect: Protect, ada: Program) -> None:
    host.starts(protect())
    ago = f"{now() - timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
    reach = ada.get("certificates/denial").json()
    assert (reach["hosts"], reach["running"], reach["owners"]) == (1, 1, 1)
    assert ada.get(f"certificates/denial?before={ago}").json() == {"before": ago, "hosts": 0, "running": 0, "owners": 0}
    refused(ada.post("certificates/denial", {"reason": REASON, "confirm": "other"}), 409, "not_confirmed")
    ahead = f"{now() + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
    late = {"reason": REASON, "confirm": "demo", "before": ahead}
    refused(ada.post("certificates/denial", late), 409, "cannot_approve")
    assert ada.post("certificates/denial", {**late, "before": ago}).json()["hosts"] == 0
    assert service.verify_certificate(host.certificate, now=now()).host == "nbg-a01", "it was issued since"
    assert ada.post("certificates/denial", {"reason": REASON, "confirm": "demo"}).json()["hosts"] == 1
    with pytest.raises(DeniedBefore):
        service.verify_certificate(host.certificate, now=now())
    assert ledger.leaves(act_prefix="certificates.")[0].detail["token"]


def test_what_a_stop_would_reach_is_what_its_page_says(host: Host, protect: Protect, ada: Program) -> None:
    host.starts(protect(policy=ReleasePolicy(offline=Offline(starts=2, hours=4))))
    whole = ada.get("stops/impact?scope=fabric").json()
    assert (whole["hosts"], whole["certified"], whole["running"], whole["owners"], whole["offline"]) == (1, 1, 1, 1, 1)
    assert whole["offline_until"] is not None
    assert ada.get("stops/impact?scope=group&target=default").json() == whole
    assert ada.get(f"stops/impact?scope=host&target={host.machine.attester}").json() == whole
    refused(ada.get("stops/impact"), 400, "malformed_request")
    refused(ada.get("stops/impact?scope=fabric&page=1"), 400, "malformed_request")
    for target in ("nowhere", str(UUID(int=7))):
        refused(ada.get(f"stops/impact?scope=host&target={target}"), 404, "not_found")
    assert not service.stops_in_force()


# --- from a console ----------------------------------------------------------------------------------------------


def console(*words: str) -> str:
    printed = io.StringIO()
    call_command("deny", *words, stdout=printed)
    return printed.getvalue()


def by(person: User) -> tuple[str, ...]:
    return ("--by", person.username, "--reason", REASON)


def test_a_key_is_denied_from_a_console_and_allowed_again_by_two(
    host: Host, protect: Protect, admin: User, approver: User
) -> None:
    rolled = host.starts(protect(owner=STRANGER, policy=ReleasePolicy(offline=Offline(starts=1, hours=2))))
    host.starts(protect())
    assert console("find", STRANGERS[:12]).count(str(ID)) == 1
    with pytest.raises(CommandError, match="--owner"):
        console("protector", str(ID), *by(admin), "--yes")
    stranger = (str(ID), "--owner", STRANGERS[:12])
    tried = console("protector", *stranger, *by(admin), "--dry-run")
    for words in ("runs on, as far as this fabric knows: nbg-a01", "without this fabric until", "nothing was done"):
        assert words in tried
    assert recorded().denied_at is None
    with pytest.raises(CommandError, match="not_allowed"):
        console("protector", *stranger, *by(approver), "--yes")
    assert "no host gets its key from now on" in console("protector", *stranger, *by(admin), "--yes")
    assert host.starts(rolled["key_protector"])["code"] == "protector_denied"
    with pytest.raises(CommandError, match="not_found"):
        console("protector", *stranger, *by(admin), "--yes")
    assert REASON in console("show")
    number = console("lift", *stranger, *by(admin)).split()[1].rstrip(":")
    for wrong in (("decide", number, *by(admin)), ("decide", "999", *by(approver))):
        with pytest.raises(CommandError):
            console(*wrong)
    assert "proposal" in console("show")
    assert "approved" in console("decide", number, *by(approver))
    assert "wrapped_keys" in host.starts(rolled["key_protector"])


@pytest.mark.parametrize("answer", ["", "no\n", "y\n", "YES\n"])
def test_a_console_asks_first_and_without_a_yes_does_nothing(
    answer: str, admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(protector(owner=STRANGER), by=admin)
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    with pytest.raises(CommandError, match="Nothing was done"):
        console("protector", str(ID), *by(admin))
    assert recorded().denied_at is None
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))
    console("protector", str(ID), *by(admin))
    assert recorded().denied_by == "ada"


def test_certificates_are_denied_from_a_console(fleet: Portal, healthy: Machine, approver: User, auditor: User) -> None:
    certificate = bytes(service.certificates(UUID(healthy.attester))[0].der)
    ago = f"{now() - timedelta(hours=1):%Y-%m-%dT%H:%M:%S}"
    assert "attest again: 1; VMs" in console("certificates", *by(approver), "--dry-run")
    assert "attest again: 0; VMs" in console("certificates", "--before", ago, *by(approver), "--yes")
    with pytest.raises(CommandError, match="not_allowed"):
        console("certificates", *by(auditor), "--yes")
    with pytest.raises(CommandError):
        console("certificates", "--before", "yesterday", *by(approver), "--yes")
    assert service.verify_certificate(certificate, now=now()).host == healthy.name
    console("certificates", *by(approver), "--yes")
    with pytest.raises(DeniedBefore):
        service.verify_certificate(certificate, now=now())


def test_nobody_is_denied_in_the_name_of_somebody_who_is_not_there(admin: User) -> None:
    known(protector(owner=STRANGER), by=admin)
    nemo, unknown = ("--by", "nemo", "--reason", REASON), str(UUID(int=9))
    for words in (("protector", str(ID), *nemo, "--yes"), ("protector", unknown, *by(admin), "--yes")):
        with pytest.raises(CommandError):
            console(*words)
    assert recorded().denied_at is None
