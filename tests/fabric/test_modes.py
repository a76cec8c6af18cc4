"""Switching the attestation mode in the portal: rehearsal, proposal, decision, grace, and back."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from attestation import service
from attestation.models import ModeSwitch, Proposal
from tests.attestation.conftest import Portal
from tests.attestation.test_host_keys import KeyHost
from tests.fabric.conftest import PASSWORD, REASON
from tests.machines import Machine

Browse = Callable[[User | None], Client]


@pytest.fixture
def ada(browse: Browse, admin: User) -> Client:
    return browse(admin)


@pytest.fixture
def ben(browse: Browse, approver: User) -> Client:
    return browse(approver)


def text(answer: Any) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", answer.content.decode()).split())


def put_forward(client: Client, mode: str, **changes: str) -> Any:
    sent = {"grace": "8", "reason": REASON, "password": PASSWORD, **changes}
    return client.post(f"/mode/{mode}/propose/", sent)


def decide(client: Client, answer: Any) -> None:
    sent = {"decision": "approve", "reason": REASON, "password": PASSWORD}
    assert client.post(answer["Location"], sent).status_code == 302


def switched(ada: Client, ben: Client, mode: str, **changes: str) -> None:
    answer = put_forward(ada, mode, **changes)
    assert answer.status_code == 302
    decide(ben, answer)
    assert service.mode_in_force() == mode


def test_the_mode_is_told_with_what_it_proves_and_does_not(fleet: Portal, ada: Client) -> None:
    page = text(ada.get("/mode/"))
    assert "Which machine it is, what it booted" in page
    assert "root on a host can copy it" in page
    assert "Take the last switch back" not in page


def test_a_rehearsal_shows_who_would_lose_and_why(fleet: Portal, ada: Client, healthy: Machine) -> None:
    page = text(ada.get("/mode/hostkey/"))
    assert f"1 that passes now would lose new starts: {healthy.name}" in page
    assert "No host of this name is known in Host key mode" in page
    assert "No VM started there last" in page


@pytest.mark.parametrize("mode", ["tpm", "nonsense"])
def test_there_is_no_rehearsal_of_the_mode_in_force_or_of_none(fleet: Portal, ada: Client, mode: str) -> None:
    assert ada.get(f"/mode/{mode}/").status_code == 404
    assert ada.get(f"/mode/{mode}/propose/").status_code == 404


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "Type the name"),
        ({"name": "TPM"}, "not"),
        ({"name": "Host key", "reason": "short"}, "Write a reason of at least a sentence"),
        ({"name": "Host key", "password": "wrong"}, "This is not your password"),
        ({"name": "Host key", "grace": "99"}, "Select a valid choice"),
    ],
)
def test_a_weaker_mode_is_typed_and_reasoned(fleet: Portal, ada: Client, changes: dict[str, str], said: str) -> None:
    answer = put_forward(ada, "hostkey", **changes)
    assert answer.status_code == 200
    assert said in text(answer)
    assert not Proposal.objects.filter(plan__isnull=False).exists()


def test_a_switch_goes_from_a_rehearsal_to_both_ends(
    fleet: Portal, ada: Client, ben: Client, healthy: Machine, admin: User, approver: User
) -> None:
    answer = put_forward(ada, "hostkey", name="Host key")
    assert answer.status_code == 302
    proposal = text(ben.get(answer["Location"]))
    assert "Switch to Host key mode" in proposal
    assert "Host key mode proves less than TPM mode" in proposal
    assert "go on counting for 8 h" in proposal
    assert "waits for a decision" in text(ada.get("/mode/"))
    decide(ben, answer)
    page = text(ben.get("/mode/"))
    assert "Certificates of TPM mode go on counting until" in page
    assert "This fabric is in Host key mode. No host has to show what it booted." in page
    assert "Take the last switch back" in page
    assert "Host key mode" in text(ben.get("/proposals/"))
    back = {"name": "TPM", "reason": REASON, "password": PASSWORD}
    assert ben.post("/mode/back/", back).status_code == 302
    assert service.mode_in_force() == "tpm"
    assert ModeSwitch.objects.count() == 3


def test_a_switch_back_to_tpm_needs_no_typing_and_shows_who_is_ready(
    fleet: Portal, ada: Client, ben: Client, healthy: Machine
) -> None:
    switched(ada, ben, "hostkey", name="Host key", grace="0")
    host = KeyHost(fleet, healthy.name, ec.generate_private_key(ec.SECP256R1()))
    host.register()
    waiting = text(ben.get("/proposals/"))
    assert "Host key" in waiting
    offered = ada.post(f"/hosts/{host.attester}/propose/", {"group": "default", "reason": REASON})
    assert offered.status_code == 302
    decide(ben, offered)
    assert host.attest().json()["certificate"]
    page = text(ada.get(f"/hosts/{host.attester}/"))
    assert "It says nothing of what runs on it" in page
    assert "Passed its trial" in text(ada.get("/mode/tpm/"))
    switched(ada, ben, "tpm")


def test_what_cannot_be_taken_back_says_so(fleet: Portal, ada: Client, ben: Client) -> None:
    assert "cannot be taken back by one person" in text(ben.get("/mode/back/"))
    answer = ben.post("/mode/back/", {"name": "TPM", "reason": REASON, "password": PASSWORD})
    assert answer.status_code == 409
    switched(ada, ben, "hostkey", name="Host key")
    switched(ada, ben, "tpm", grace="1")
    ModeSwitch.objects.bulk_create(
        [
            ModeSwitch(
                mode="tpm",
                since=timezone.now(),
                by="ada",
                reason=REASON,
                before="hostkey",
                before_until=timezone.now() - timedelta(hours=1),
            )
        ]
    )
    answer = ben.post("/mode/back/", {"name": "Host key", "reason": REASON, "password": PASSWORD})
    assert answer.status_code == 409
    assert service.mode_in_force() == "tpm"


def test_hosts_of_another_mode_are_listed_as_such(fleet: Portal, ada: Client, ben: Client, healthy: Machine) -> None:
    switched(ada, ben, "hostkey", name="Host key")
    assert "Mode not in force" in text(ada.get(f"/hosts/?q={healthy.name}"))
    assert "2 more are known in a mode that is not in force" in text(ada.get("/fleet/"))
    assert "hosts do not have to meet this policy" in text(ada.get("/policies/default/"))
    for address in ("/hosts/", "/releases/", "/audit/"):
        assert "No host has to show what it booted" in text(ada.get(address))
    certificate = service.live_certificate(UUID(healthy.attester), now=timezone.now())
    assert certificate is not None


def test_no_page_says_of_a_host_key_that_it_proves_a_boot(
    fleet: Portal, ada: Client, ben: Client, healthy: Machine, browse: Browse, owner: User
) -> None:
    assert "hosts that have just proved what they booted" in text(browse(owner).get("/tenants/brandt/"))
    switched(ada, ben, "hostkey", name="Host key", grace="0")
    host = KeyHost(fleet, healthy.name, ec.generate_private_key(ec.SECP256R1()))
    host.register()
    decide(ben, ada.post(f"/hosts/{host.attester}/propose/", {"group": "default", "reason": REASON}))
    host.attest()
    row = service.attestations(attester_id=UUID(host.attester))[0]
    pages = [f"/hosts/{host.attester}/", f"/attestations/{row.pk}/", "/attestations/", f"/hosts/?q={healthy.name}"]
    for address in pages:
        page = text(ada.get(address))
        assert "Holds its registered key" in page, address
        assert "baseline ," not in page, address
        assert "Baseline  " not in page, address
        assert "v0" not in page, address
    assert "It says nothing of what the host booted" in text(ada.get(pages[0]))
    assert "hosts that hold a registered key, whatever they booted" in text(browse(owner).get("/tenants/brandt/"))
    assert "of that only the last point holds" in text(browse(owner).get("/proves/"))


def test_a_host_of_the_mode_before_is_shown_as_it_counts(
    fleet: Portal, ada: Client, ben: Client, healthy: Machine
) -> None:
    switched(ada, ben, "hostkey", name="Host key", grace="8")
    page = text(ada.get(f"/hosts/{healthy.attester}/"))
    assert "Its certificate goes on counting until" in page
    assert "Usable" in page
    assert "No key is released with it" not in page
    switched(ada, ben, "tpm", grace="0")
    switched(ada, ben, "hostkey", name="Host key", grace="0")
    page = text(ada.get(f"/hosts/{healthy.attester}/"))
    assert "What it shows is a trial, and earns no key" in page
    assert "No key is released with it any more: its mode is not in force" in page
    assert "Not usable" in page


def test_the_dashboard_counts_certificates_by_mode_while_a_switch_is_on_its_way(
    fleet: Portal, ada: Client, ben: Client, healthy: Machine
) -> None:
    assert "Certificates by mode" not in text(ada.get("/fleet/"))
    switched(ada, ben, "hostkey", name="Host key", grace="8")
    page = text(ada.get("/fleet/"))
    assert "Host key 0 in force TPM 1 until" in page
    assert re.search(r"min left\s*by TPM", text(ada.get(f"/hosts/?q={healthy.name}")))
    assert f"1 host has not followed, and gets no keys after that: {healthy.name}" in page
    host = KeyHost(fleet, healthy.name, ec.generate_private_key(ec.SECP256R1()))
    host.register()
    decide(ben, ada.post(f"/hosts/{host.attester}/propose/", {"group": "default", "reason": REASON}))
    host.attest()
    page = text(ada.get("/fleet/"))
    assert "Host key 1 in force TPM 1 until" in page
    assert "Every host that had a certificate has followed." in page
    switched(ada, ben, "tpm", grace="0")
    assert "Certificates by mode" not in text(ada.get("/fleet/"))
    lapsing = text(ada.get("/fleet/")).partition("Certificates lapsing next")[2]
    assert "by Host key" not in lapsing  # cut off at once, they open nothing
