"""The fleet page points to what people have to see to: exceptions that end, and changes that wait."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from attestation import service
from attestation.core.document import PolicyDocument, to_json
from attestation.core.policy import PolicyException
from attestation.models import HostGroup, PolicyVersion
from tests.attestation.conftest import Portal
from tests.fabric.test_baselines import Browse, status, text
from tests.fabric.test_changes import ada, ben, patched
from tests.machines import Machine

__all__ = ["ada", "ben", "patched"]


def version(group: HostGroup, exceptions: Iterable[PolicyException], *, begins: datetime) -> None:
    newest = PolicyVersion.objects.first()
    PolicyVersion.objects.create(
        version=1 if newest is None else newest.version + 1,
        group=group,
        document=to_json(PolicyDocument(exceptions=tuple(exceptions))),
        effective_at=begins,
        created_at=begins,
        created_by="user:ada",
        reason="Seen to.",
    )


def in_force(group: HostGroup, exceptions: Iterable[PolicyException], *, now: datetime) -> None:
    """Make a version that has been in force for a month, since before its exceptions ended."""
    version(group, exceptions, begins=now - timedelta(days=30))


def excepted(until: datetime, reason: str, **others: Any) -> PolicyException:
    return PolicyException("iommu", until, "ada", reason, **others)


def panel(client: Client) -> str:
    answer = client.get("/fleet/")
    assert answer.status_code == 200
    return " ".join(text(answer).partition('id="policy-endings"')[2].partition("</section>")[0].split())


@pytest.fixture
def lab(db: None) -> HostGroup:
    return HostGroup.objects.create(slug="lab", name="Lab <b>", created_at=timezone.now())


@pytest.fixture
def eve(auditor: User, browse: Browse) -> Client:
    return browse(auditor)


def test_an_exception_that_ends_soon_is_shown_with_who_why_and_until_when(lab: HostGroup, eve: Client) -> None:
    now = timezone.now()
    until = now + timedelta(days=3, hours=2, minutes=1)
    in_force(lab, [excepted(until, "The boards come on Friday.")], now=now)
    shown = panel(eve)
    assert not shown.partition(">")[0].rstrip().endswith("hidden")
    assert '<a href="/policies/lab/">' in shown
    for part in (service.CHECKS["iommu"].title, "Lab &lt;b&gt; · ada: “The boards come on Friday.”", "3 d 2 h"):
        assert part in shown, part
    assert f'datetime="{until.isoformat()}"' in shown
    assert eve.get("/policies/lab/").status_code == 200


@pytest.mark.parametrize(
    ("days", "is_shown"), [(-7.01, False), (-6.9, True), (-0.1, True), (0.1, True), (13.9, True), (14.01, False)]
)
def test_two_weeks_ahead_and_one_week_back_are_shown(days: float, is_shown: bool, lab: HostGroup, eve: Client) -> None:
    now = timezone.now()
    in_force(lab, [excepted(now + timedelta(days=days), "The boards come on Friday.")], now=now)
    shown = panel(eve)
    assert ("The boards come on Friday." in shown) == is_shown
    assert ("ended" in shown.partition("<footer>")[0]) == (is_shown and days < 0)


def test_only_the_version_in_force_counts(lab: HostGroup, eve: Client) -> None:
    """What the next version leaves out nobody has to see to any more, and what has not begun is not yet accepted."""
    now = timezone.now()
    in_force(lab, [excepted(now + timedelta(days=3), "The first reason.")], now=now)
    in_force(lab, [excepted(now + timedelta(days=4), "The second reason.")], now=now)
    version(lab, [excepted(now + timedelta(days=5), "The third reason.")], begins=now + timedelta(hours=1))
    shown = panel(eve)
    assert [word for word in ("first", "second", "third") if f"The {word} reason." in shown] == ["second"]


def test_the_fleet_page_asks_no_more_for_more_groups_and_exceptions(lab: HostGroup, eve: Client) -> None:
    now = timezone.now()

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            panel(eve)
        return len(captured)

    in_force(lab, [excepted(now + timedelta(days=3), "A reason.")], now=now)
    few = queries()
    for number in range(4):
        group = HostGroup.objects.create(slug=f"g{number}", name=f"Group {number}", created_at=now)
        for _ in range(3):
            in_force(group, [excepted(now + timedelta(days=day), "A reason.") for day in range(1, 9)], now=now)
    assert queries() == few
    assert len(service.endings(now=now)) == 1 + 4 * 8


# --- changes -----------------------------------------------------------------------------------------------------


def changes_link(client: Client) -> str:
    page = text(client.get("/fleet/")).partition('id="failing-hosts"')[2].partition("</header>")[0]
    return page.partition('href="/changes/">')[2].partition("</a>")[0]


def test_the_fleet_page_leads_to_the_changes_that_wait(
    patched: Portal, drifted: Machine, ada: Client, admin: User
) -> None:
    """A host that was judged by a baseline that is replaced meanwhile waits for its next attestation."""
    assert changes_link(ada) == "1 change to accept"
    assert status(patched, drifted) == "InsecureHostConfiguration"
    assert changes_link(ada) == "2 changes to accept"
    for change in service.changes():
        service.revoke_host(change.hosts[0].pk, by=admin, reason="The disk was stolen.", now=timezone.now())
    assert changes_link(ada) == ""


def test_a_fleet_without_changes_leads_to_none(fabric: Portal, ada: Client) -> None:
    assert changes_link(ada) == ""
