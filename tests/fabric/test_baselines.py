"""Baselines through the pages: captured, uploaded, amended, announced, and what people see before they decide."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from attestation import service
from attestation.models import Baseline, PolicyDraft, Proposal
from tests.attestation.conftest import Portal, approve_host
from tests.boot_logs import boot
from tests.fabric.conftest import PASSWORD, REASON, newest
from tests.machines import Machine
from tests.updates import with_new_kernel

Browse = Callable[[User | None], Client]
LOG = boot("secureboot-on").log
PCRS = "\n".join(f"{pcr} {value.hex()}" for pcr, value in boot("secureboot-on").pcrs.items()).encode()
OTHER = "\n".join(f"{pcr} {value.hex()}" for pcr, value in boot("cmdline-drift").pcrs.items()).encode()
NEW = "ab" * 32


def text(answer: Any) -> str:
    return " ".join(answer.content.decode().split())


def approve(client: Client, proposal: str) -> None:
    answer = client.post(proposal, {"decision": "approve", "reason": REASON, "password": PASSWORD})
    assert answer.status_code == 302, text(answer)


@pytest.fixture
def ada(admin: User, browse: Browse) -> Client:
    return browse(admin)


@pytest.fixture
def ben(approver: User, browse: Browse) -> Client:
    return browse(approver)


@pytest.fixture
def patched(fleet: Portal, updated: Machine, admin: User, approver: User) -> Portal:
    """The fleet, with a host more that was updated."""
    approve_host(fleet, updated, admin, approver)
    assert status(fleet, updated) == "InsecureHostConfiguration"
    return fleet


def status(portal: Portal, machine: Machine) -> str:
    return str(portal.attest(machine).json()["status"])


def by_events(client: Client, decider: Client, machine: Machine, **more: Any) -> Baseline:
    """Capture a machine's boot by events in place of the baseline by value, and have it approved."""
    body = {"name": "trixie", "reason": REASON, "by_events": ["4", "8", "9"], "group": "default"} | more
    answer = client.post(f"/attestations/{newest(machine)}/capture/", body)
    assert answer.status_code == 302, text(answer)
    approve(decider, answer["Location"])
    return Baseline.objects.get(name="trixie", state="approved")


# --- captured ----------------------------------------------------------------------------------------------------


def test_a_baseline_is_captured_from_two_hosts_by_events(
    patched: Portal, healthy: Machine, updated: Machine, ada: Client, ben: Client
) -> None:
    baseline = by_events(ada, ben, healthy, others=updated.name)
    assert (status(patched, healthy), status(patched, updated)) == ("Passed", "Passed")
    page = text(ada.get(f"/baselines/{baseline.pk}/"))
    assert "PCR 9, files that the boot loader read" in page
    assert "or instead" in page
    assert "<b>Known by its digest alone</b>" not in page
    assert updated.name in page
    assert "PCRs 4, 8, 9 by events" in text(ada.get("/baselines/"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": ""}, "Give the baseline a name"),
        ({"reason": "ok"}, "at least a sentence"),
        ({"others": "nobody-here nbg-a03"}, "nobody-here, nbg-a03"),
        ({"others": "x" * 2001}, "at most 2000 characters"),
        ({"by_events": ["7"]}, "not one of the available choices"),
        ({"by_events": ["x"]}, "not one of the available choices"),
        ({"group": "nowhere"}, "not one of the available choices"),
    ],
    ids=str,
)
def test_a_capture_that_is_filled_in_badly_keeps_the_answers(
    changes: dict[str, Any], said: str, fleet: Portal, healthy: Machine, ada: Client
) -> None:
    body = {"name": "my baseline", "reason": REASON} | changes
    page = text(ada.post(f"/attestations/{newest(healthy)}/capture/", body))
    assert "Not recorded" in page
    assert said in page
    assert "my baseline" in page or not body["name"]
    assert not Proposal.objects.filter(state="open", baseline__isnull=False).exists()


def test_a_capture_that_the_service_refuses_says_why(
    patched: Portal, healthy: Machine, updated: Machine, admin: User, ada: Client
) -> None:
    service.revoke_host(UUID(healthy.attester), by=admin, reason="stolen", now=datetime.now(UTC))
    answer = ada.post(f"/attestations/{newest(healthy)}/capture/", {"name": "x", "reason": REASON})
    assert answer.status_code == 409
    assert "whose measurements these are, is revoked by now" in text(answer)


# --- uploaded ----------------------------------------------------------------------------------------------------


def upload(client: Client, **changes: Any) -> Any:
    body = {
        "name": "from the vendor",
        "event_log": SimpleUploadedFile("log.bin", LOG),
        "pcr_values": SimpleUploadedFile("pcrs.txt", PCRS),
        "platform": "linux",
        "group": "default",
        "by_events": ["9"],
    }
    return client.post("/baselines/upload/", body | changes)


def test_an_upload_is_shown_before_it_is_put_forward(
    fleet: Portal, ada: Client, ben: Client, auditor: User, browse: Browse
) -> None:
    answer = upload(ada)
    assert answer.status_code == 302, text(answer)
    address = answer["Location"]
    page = text(ada.get(address))
    assert "A draft: no host is judged by it." in page
    assert "<code>secure_boot</code>" in page
    assert "1 of 2" in page
    assert "Put forward" not in text(browse(auditor).get(address))
    listed = text(ada.get("/baselines/"))
    assert "an uploaded boot log" in listed
    assert "Not put forward" in listed
    proposal = ada.post(f"{address}propose/", {"reason": REASON})["Location"]
    shown = text(ben.get(proposal))
    assert "What the uploaded log proves" in shown
    assert "that the uploaded PCR values account for" in shown
    approve(ben, proposal)
    assert "without a limit" in text(ada.get(address))
    assert ada.post(f"{address}propose/", {"reason": REASON}).status_code == 404


def test_a_dropped_upload_cannot_be_put_forward(fleet: Portal, ada: Client) -> None:
    address = upload(ada)["Location"]
    assert ada.post(f"{address}drop/").status_code == 302
    assert "Rejected" in text(ada.get(address))
    assert ada.post(f"{address}propose/", {"reason": REASON}).status_code == 404
    assert ada.post(f"{address}drop/").status_code == 404
    assert ada.get(f"{address}drop/").status_code == 405


@pytest.mark.parametrize(
    ("changes", "status_code", "said"),
    [
        pytest.param({"pcr_values": (OTHER, "p")}, 422, "PCR 8", id="another boot"),
        pytest.param({"event_log": (LOG[:-5], "l")}, 400, "event log", id="cut short"),
        pytest.param({"event_log": (b"not a log at all", "l")}, 400, "event log", id="no log"),
        pytest.param({"event_log": (bytes((1 << 20) + 1), "l")}, 200, "so it is no boot log", id="a large log"),
        pytest.param({"pcr_values": (bytes((64 << 10) + 1), "p")}, 200, "so it is no list of PCR", id="many values"),
        pytest.param({"pcr_values": (b"0 zz", "p")}, 400, "PCR values", id="values that are none"),
        pytest.param({"event_log": (b"", "l")}, 200, "The boot log is empty", id="empty log"),
        pytest.param({"event_log": None}, 200, "Choose the boot log’s file", id="no file"),
        pytest.param({"platform": "beos"}, 200, "not one of the available choices", id="no such platform"),
        pytest.param({"group": ""}, 200, "Choose a group", id="no group"),
        pytest.param({"by_events": ["0"]}, 200, "not one of the available choices", id="keys by events"),
        pytest.param({"name": "\0"}, 200, "Null characters are not allowed", id="a NUL"),
    ],
)
def test_an_upload_that_cannot_be_read_leaves_nothing(
    changes: dict[str, Any], status_code: int, said: str, fleet: Portal, ada: Client
) -> None:
    files = {
        name: "" if value is None else SimpleUploadedFile(value[1], value[0]) if isinstance(value, tuple) else value
        for name, value in changes.items()
    }
    answer = upload(ada, **files)
    assert answer.status_code == status_code
    assert said in text(answer)
    assert Baseline.objects.count() == 1


# --- amended -----------------------------------------------------------------------------------------------------


def new_digests(baseline: Baseline) -> dict[str, str]:
    """What the form of an amendment sends for the new kernel: in each old digest's place its new one."""
    old, new = boot("secureboot-on"), with_new_kernel("secureboot-on")
    filled = {}
    for rule in service.rules_of(baseline):
        for place in rule.places:
            for event in place:
                at = old.log.find(bytes.fromhex(event.digest))
                fresh = new[at : at + 32].hex()
                if fresh != event.digest:
                    filled[f"instead-{rule.pcr}-{event.digest}"] = fresh
    return filled


def test_a_new_kernel_is_amended_in_its_place(
    patched: Portal, healthy: Machine, updated: Machine, ada: Client, ben: Client
) -> None:
    baseline = by_events(ada, ben, healthy)
    filled = new_digests(baseline)
    assert len(filled) == 3
    answer = ada.post(f"/baselines/{baseline.pk}/amend/", {"when": "good", "reason": REASON, **filled})
    assert answer.status_code == 302, text(answer)
    shown = text(ben.get(answer["Location"]))
    assert "Accept an amendment of baseline trixie" in shown
    assert "accepts more than before" in shown
    assert shown.count("accepted in a place") == 3
    assert "1 of them fails today" in shown
    approve(ben, answer["Location"])
    assert (status(patched, healthy), status(patched, updated)) == ("Passed", "Passed")
    page = text(ada.get(f"/baselines/{Baseline.objects.get(name='trixie', state='approved').pk}/"))
    assert "Amended by ada" in page
    assert "/boot/vmlinuz" in page
    assert "An amended baseline took its place." in text(ada.get(f"/baselines/{baseline.pk}/"))
    assert ada.get(f"/baselines/{baseline.pk}/amend/").status_code == 200
    gone = ada.post(f"/baselines/{baseline.pk}/amend/", {"when": "good", "reason": REASON, "accept-7": NEW})
    assert gone.status_code == 404


def test_a_new_kernel_is_announced_for_a_time(
    patched: Portal, healthy: Machine, updated: Machine, ada: Client, ben: Client
) -> None:
    baseline = by_events(ada, ben, healthy)
    ends = datetime.now(UTC) + timedelta(days=2)
    body = {"when": "time", "ends": f"{ends:%Y-%m-%dT%H:%M}", "reason": REASON, **new_digests(baseline)}
    answer = ada.post(f"/baselines/{baseline.pk}/amend/", body, follow=True)
    assert "Part of a change that is under way" in text(answer)
    draft = PolicyDraft.objects.get()
    drafted = Baseline.objects.get(state="drafted")
    page = text(ada.get(f"/drafts/{draft.pk}/"))
    assert "Baseline trixie (2) is accepted until" in page
    assert page.count("checked") >= 2
    run = ada.post(f"/drafts/{draft.pk}/try/")["Location"]
    assert ada.post(run).status_code == 302
    assert updated.name in text(ada.get(run))
    proposal = ada.post(f"/drafts/{draft.pk}/propose/", {"reason": REASON})["Location"]
    shown = text(ben.get(proposal))
    assert f"/baselines/{drafted.pk}/" in shown
    assert shown.count("accepted in a place") == 3
    assert status(patched, updated) == "InsecureHostConfiguration"
    approve(ben, proposal)
    assert (status(patched, healthy), status(patched, updated)) == ("Passed", "Passed")
    certificate = service.certificates(UUID(updated.attester)).first()
    assert certificate is not None
    assert certificate.not_after <= ends
    assert set(Baseline.objects.filter(state="approved").values_list("name", flat=True)) == {"trixie", "trixie (2)"}
    assert "until" in text(ada.get(f"/baselines/{drafted.pk}/"))


def test_a_draft_with_a_drafted_baseline_can_be_kept_again(
    patched: Portal, healthy: Machine, ada: Client, ben: Client
) -> None:
    baseline = by_events(ada, ben, healthy)
    ends = f"{datetime.now(UTC) + timedelta(days=2):%Y-%m-%dT%H:%M}"
    ada.post(f"/baselines/{baseline.pk}/amend/", {"when": "time", "ends": ends, "reason": REASON, "accept-7": NEW})
    draft, drafted = PolicyDraft.objects.get(), Baseline.objects.get(state="drafted")
    content = draft.content()
    kept = {
        "title": "Two days for the new keys",
        "revision": draft.revision,
        "baselines": [each.id for each in content.baselines],
        "required": sorted(content.required),
        f"until-{drafted.pk}": ends,
    }
    assert ada.post(f"/drafts/{draft.pk}/", kept).status_code == 302
    draft.refresh_from_db()
    assert [each.id for each in draft.content().baselines][-1] == str(drafted.pk)
    assert draft.content().baselines[-1].accepted_until is not None


@pytest.mark.parametrize(
    ("filled", "status_code", "said"),
    [
        ({"accept-9": "xyz"}, 200, "“xyz” is no SHA-256 digest"),
        ({"accept-9": "ab" * 20}, 200, "is no SHA-256 digest"),
        ({"accept-9": " ".join(f"{n:064x}" for n in range(65))}, 200, "At most 64 digests at a time"),
        ({"accept-9": "a" * 9000}, 200, "at most 8000 characters"),
        ({"accept-12": NEW}, 400, "accepts all of this already"),
        ({"accept-9": NEW, "when": ""}, 200, "Choose how long it counts"),
        ({"accept-9": NEW, "when": "for ever"}, 200, "not one of the available choices"),
        ({"accept-9": NEW, "when": "time"}, 200, "Say until when it counts"),
        ({"accept-9": NEW, "when": "time", "ends": "2020-01-01T00:00"}, 200, "This moment is past"),
        ({"accept-9": NEW, "when": "time", "ends": "soon"}, 200, "Enter a valid date/time"),
        (
            {"accept-9": NEW, "when": "time", "begins": "2090-01-02T00:00", "ends": "2090-01-01T00:00"},
            200,
            "not after the one before it",
        ),
        ({"accept-9": NEW, "reason": ""}, 200, "Write a reason"),
        ({}, 400, "accepts all of this already"),
    ],
    ids=str,
)
def test_an_amendment_that_is_filled_in_badly_changes_nothing(
    filled: dict[str, str], status_code: int, said: str, fleet: Portal, healthy: Machine, ada: Client, ben: Client
) -> None:
    baseline = by_events(ada, ben, healthy)
    before = Baseline.objects.count()
    answer = ada.post(f"/baselines/{baseline.pk}/amend/", {"when": "good", "reason": REASON} | filled)
    assert answer.status_code == status_code
    assert said in text(answer)
    assert Baseline.objects.count() == before
    assert not PolicyDraft.objects.exists()


def test_an_event_that_may_be_absent_is_said_as_a_warning(
    fleet: Portal, healthy: Machine, ada: Client, ben: Client
) -> None:
    baseline = by_events(ada, ben, healthy)
    event = next(rule for rule in service.rules_of(baseline) if rule.pcr == 9).places[0][0]
    filled = {f"absent-9-{event.digest}": "on", "accept-8": f"sha256:{NEW.upper()}"}
    answer = ada.post(f"/baselines/{baseline.pk}/amend/", {"when": "good", "reason": REASON, **filled})
    shown = text(ben.get(answer["Location"]))
    assert "need not be there" in shown
    assert "accepted anywhere" in shown
    assert NEW in shown


# --- what pages cost, and what is not there -----------------------------------------------------------------------


def queries(client: Client, address: str) -> int:
    with CaptureQueriesContext(
        connection,
    ) as captured:
        assert client.get(address).status_code == 200
    return len(captured)


def test_the_list_asks_no_more_for_more_baselines(fleet: Portal, healthy: Machine, admin: User, ada: Client) -> None:
    few = queries(ada, "/baselines/")
    for number in range(5):
        service.capture_baseline(newest(healthy), name=f"n{number}", by=admin, reason=REASON, now=datetime.now(UTC))
        upload(ada, name=f"u{number}")
    assert queries(ada, "/baselines/") <= few


def test_a_baseline_asks_no_more_for_more_events_and_hosts(
    patched: Portal, healthy: Machine, updated: Machine, ada: Client, ben: Client
) -> None:
    by_value = Baseline.objects.get(state="approved")
    few = queries(ada, f"/baselines/{by_value.pk}/")
    baseline = by_events(ada, ben, healthy, others=updated.name)
    assert queries(ada, f"/baselines/{baseline.pk}/") <= few + 3


@pytest.mark.parametrize("page", ["", "amend/", "propose/", "retire/"])
def test_an_unknown_baseline_has_no_page(page: str, fleet: Portal, ada: Client) -> None:
    assert ada.get(f"/baselines/{uuid4()}/{page}").status_code == 404
    assert ada.post(f"/baselines/{uuid4()}/drop/").status_code == 404


@pytest.mark.parametrize("role", ["approver", "auditor"])
def test_who_may_not_propose_is_offered_no_act(
    role: str, fleet: Portal, browse: Browse, request: pytest.FixtureRequest
) -> None:
    client = browse(request.getfixturevalue(role))
    page = text(client.get(f"/baselines/{Baseline.objects.get().pk}/"))
    assert "Amend" not in page
    assert "Upload a boot log" not in text(client.get("/baselines/"))


def test_pages_of_baselines_need_nothing_inline(fleet: Portal, healthy: Machine, ada: Client, ben: Client) -> None:
    baseline = by_events(ada, ben, healthy)
    addresses = ("", "amend/", "retire/", "propose/")
    pages = [text(ada.get(f"/baselines/{baseline.pk}/{each}")) for each in addresses]
    for page in (
        *pages,
        text(ada.get("/baselines/upload/")),
        text(ada.get(f"/attestations/{newest(healthy)}/capture/")),
    ):
        assert " style=" not in page
        assert "<script>" not in page
        assert " onclick=" not in page
