"""Patch day through the pages: a change is shown once, accepted once, and what a digest is can be said."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from attestation import service
from attestation.models import Baseline, Component, PolicyDraft, Proposal
from ledger import service as ledger
from tests.attestation.conftest import Portal, approve_host
from tests.fabric.conftest import PASSWORD, REASON, newest
from tests.fabric.test_baselines import Browse, ada, approve, ben, by_events, status, text
from tests.machines import Machine

__all__ = ["ada", "ben"]
Change = Callable[[], str]


@pytest.fixture
def patched(
    fleet: Portal, healthy: Machine, updated: Machine, admin: User, approver: User, ada: Client, ben: Client
) -> Portal:
    """By events: one host that passes, one with a new kernel, one with another command line."""
    by_events(ada, ben, healthy)
    assert status(fleet, healthy) == "Passed"
    approve_host(fleet, updated, admin, approver)
    assert status(fleet, updated) == "InsecureHostConfiguration"
    return fleet


@pytest.fixture
def kernel(patched: Portal, updated: Machine) -> str:
    """The address of the change that the new kernel makes."""
    change = next(each for each in service.changes() if each.hosts[0].name == updated.name)
    return f"/changes/{change.signature}/"


def test_a_change_is_shown_once_with_both_digests(
    kernel: str, patched: Portal, updated: Machine, browse: Browse, auditor: User
) -> None:
    page = text(browse(auditor).get("/changes/"))
    assert "1 host of Default" in page
    change = service.change(kernel.split("/")[2])
    for each in change.differences:
        assert each["expected"] in page
        assert page.count(f'<code class="dg long">{each["seen"]}</code>') == 1
    assert f"on {updated.name}</a>; on 1 failing host now" in page
    assert "Accept this change" not in page
    assert "Announce digests" not in page


def test_a_change_shows_what_accepting_it_does(kernel: str, updated: Machine, drifted: Machine, ada: Client) -> None:
    page = text(ada.get(kernel))
    assert '<span class="big">1</span><span class="soft small">pass at their next attestation' in page
    assert page.count("accepted in a place") == 3
    assert "Boot log against baseline trixie" in page
    assert "first seen" in page
    assert drifted.name not in page


def test_a_change_is_accepted_for_good(
    kernel: str, patched: Portal, healthy: Machine, updated: Machine, ada: Client, ben: Client
) -> None:
    answer = ada.post(f"{kernel}accept/", {"when": "good", "reason": REASON})
    assert answer.status_code == 302, text(answer)
    shown = text(ben.get(answer["Location"]))
    assert "1 of them fails today" in shown
    assert status(patched, updated) == "InsecureHostConfiguration"
    approve(ben, answer["Location"])
    assert (status(patched, updated), status(patched, healthy)) == ("Passed", "Passed")
    assert ada.get(kernel).status_code == 410


def test_a_change_is_accepted_for_a_time(
    kernel: str, patched: Portal, updated: Machine, ada: Client, ben: Client
) -> None:
    ends = f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%dT%H:%M}"
    answer = ada.post(f"{kernel}accept/", {"when": "time", "ends": ends, "reason": REASON}, follow=True)
    draft = PolicyDraft.objects.get()
    assert f'href="/drafts/{draft.pk}/"' in text(answer)
    run = ada.post(f"/drafts/{draft.pk}/try/")["Location"]
    ada.post(run)
    proposal = ada.post(f"/drafts/{draft.pk}/propose/", {"reason": REASON})["Location"]
    approve(ben, proposal)
    assert status(patched, updated) == "Passed"


def test_a_change_that_moved_is_not_accepted(
    kernel: str, patched: Portal, healthy: Machine, updated: Machine, ada: Client, ben: Client
) -> None:
    """Somebody had another baseline approved, and the hosts attested by it, while the form was open."""
    by_events(ada, ben, healthy)
    assert status(patched, updated) == "InsecureHostConfiguration"
    before = Baseline.objects.count()
    answer = ada.post(f"{kernel}accept/", {"when": "good", "reason": REASON})
    assert answer.status_code == 410
    assert "No host shows this change any more as you saw it." in text(answer)
    assert "change_gone" in text(answer)
    assert Baseline.objects.count() == before


def test_a_change_against_a_replaced_baseline_offers_no_act(
    kernel: str, healthy: Machine, ada: Client, ben: Client
) -> None:
    by_events(ada, ben, healthy)
    page = text(ada.get(f"{kernel}accept/"))
    assert "It cannot be accepted as it is." in page
    assert "Put it forward</h2>" in page
    assert 'name="when"' not in page
    answer = ada.post(f"{kernel}accept/", {"when": "good", "reason": REASON})
    assert answer.status_code == 409
    assert not Proposal.objects.filter(state="open").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"when": ""}, "Choose how long it counts"),
        ({"when": "time"}, "Say until when it counts"),
        ({"when": "time", "ends": "2001-01-01T00:00"}, "This moment is past"),
        ({"reason": "ok"}, "at least a sentence"),
    ],
    ids=str,
)
def test_an_acceptance_that_is_filled_in_badly_is_not_recorded(
    changes: dict[str, str], said: str, kernel: str, ada: Client
) -> None:
    page = text(ada.post(f"{kernel}accept/", {"when": "good", "reason": REASON} | changes))
    assert "Not recorded" in page
    assert said in page
    assert not Proposal.objects.filter(state="open").exists()


@pytest.mark.parametrize("signature", ["0" * 64, "x", "-"])
def test_an_unknown_change_has_no_page(signature: str, patched: Portal, ada: Client) -> None:
    for address in (f"/changes/{signature}/", f"/changes/{signature}/accept/"):
        assert ada.get(address).status_code == 410
    assert ada.post(f"/changes/{signature}/accept/", {"when": "good", "reason": REASON}).status_code == 410


def test_nothing_to_accept_says_that_all_is_well(fabric: Portal, ada: Client) -> None:
    assert "No host boots what its baseline does not accept" in text(ada.get("/changes/"))


def test_digests_are_announced_from_the_page_of_changes(patched: Portal, ada: Client) -> None:
    baseline = Baseline.objects.get(name="trixie", state="approved")
    assert f'href="/baselines/{baseline.pk}/amend/"' in text(ada.get("/changes/"))


def test_the_page_of_changes_asks_no_more_for_more_changes(
    patched: Portal, updated: Machine, drifted: Machine, healthy: Machine, admin: User, ada: Client
) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert ada.get("/changes/").status_code == 200
        return len(captured)

    assert len(service.changes()) == 2
    many = queries()
    service.revoke_host(service.changes()[0].hosts[0].pk, by=admin, reason="stolen", now=datetime.now(UTC))
    assert len(service.changes()) == 1
    assert queries() == many


def test_pages_of_changes_need_nothing_inline(kernel: str, ada: Client) -> None:
    for address in ("/changes/", kernel, f"{kernel}accept/"):
        page = text(ada.get(address))
        assert " style=" not in page
        assert "<script>" not in page


def test_the_page_of_changes_is_fetched_in_fragments(patched: Portal, ada: Client) -> None:
    fragments = text(ada.get("/changes/", headers={"HX-Request": "true"}))
    assert "<html" not in fragments
    assert fragments.count("hx-swap-oob") >= 2


# --- what a digest is --------------------------------------------------------------------------------------------


def test_the_diff_of_a_host_says_where_an_event_was_first_seen(
    patched: Portal, updated: Machine, browse: Browse, auditor: User
) -> None:
    client = browse(auditor)
    for address in (f"/hosts/{updated.attester}/", f"/attestations/{newest(updated)}/"):
        page = text(client.get(address))
        assert page.count(f"on {updated.name}</a>; on 1 failing host now") >= 3


def test_an_approver_says_what_a_digest_is(
    patched: Portal, updated: Machine, approver: User, ada: Client, ben: Client
) -> None:
    digest = Component.objects.get(text="/boot/vmlinuz").pk
    body = {"package": "linux-image 6.12.60", "reason": REASON, "password": PASSWORD}
    answer = ben.post(f"/components/{digest}/vouch/", body, follow=True)
    assert "<b>linux-image 6.12.60</b>, says ben" in text(answer)
    assert "linux-image 6.12.60</a>, says ben" in text(ada.get(f"/hosts/{updated.attester}/"))
    assert "linux-image 6.12.60</a>, says ben" in text(ada.get("/changes/"))
    audit = text(ada.get("/audit/?act=component."))
    assert "said that a digest is" in audit
    assert ledger.leaves(act_prefix="component.vouched").count() == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"package": ""}, "Name the package"),
        ({"package": "x" * 201}, "at most 200 characters"),
        ({"reason": ""}, "Write a reason"),
        ({"password": "guessed"}, "This is not your password"),
    ],
    ids=str,
)
def test_a_word_about_a_digest_that_is_filled_in_badly_is_not_recorded(
    changes: dict[str, str], said: str, patched: Portal, ben: Client
) -> None:
    digest = Component.objects.earliest("pk").pk
    body: dict[str, Any] = {"package": "linux", "reason": REASON, "password": PASSWORD} | changes
    page = text(ben.post(f"/components/{digest}/vouch/", body))
    assert "Not recorded" in page
    assert said in page
    assert not Component.objects.exclude(package="").exists()


def test_what_nobody_has_shown_has_no_page(patched: Portal, ben: Client) -> None:
    for address in (f"/components/{'00' * 32}/", f"/components/{'00' * 32}/vouch/", "/components/x/"):
        assert ben.get(address).status_code == 404


def test_a_label_with_markup_stays_text(patched: Portal, ben: Client, ada: Client) -> None:
    digest = Component.objects.earliest("pk").pk
    body = {"package": "<script>x</script>", "reason": REASON, "password": PASSWORD}
    assert ben.post(f"/components/{digest}/vouch/", body).status_code == 302
    for address in (f"/components/{digest}/", "/changes/", "/audit/"):
        assert "<script>x" not in text(ada.get(address))
