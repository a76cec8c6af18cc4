"""A group of the directory on the pages: what is decided about it, in words, and a host that joined by it."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from attestation import service, strangers
from attestation.errors import DirectoryUnavailable, TicketRefused
from attestation.kerberos import Caller
from attestation.models import Attester, KerberosGroup, ModeSwitch
from tests.attestation.conftest import Portal
from tests.attestation.keys import TRANSPORT, spki
from tests.fabric.conftest import PASSWORD, REASON
from tests.fabric.test_modes import text

Browse = Callable[[User | None], Client]
SID = "S-1-5-21-1-2-3-1104"
MEMBER = Caller("NBG-D01$", "FABRIC.TEST", "S-1-5-21-1-2-3-1201", frozenset({SID}))


def test_a_group_is_decided_on_its_page(fleet: Portal, browse: Browse, admin: User, approver: User) -> None:
    proposal = service.propose_kerberos_group(SID, "Guarded Hosts", by=admin, reason=REASON, now=timezone.now())
    address = f"/proposals/{proposal.pk}/"
    page = text(browse(approver).get(address))
    assert "Let hosts of Guarded Hosts attest" in page
    assert SID in page
    assert "Guarded Hosts" in text(browse(approver).get("/proposals/"))
    sent = {"decision": "approve", "reason": REASON, "password": PASSWORD}
    assert browse(approver).post(address, sent).status_code == 302
    assert KerberosGroup.objects.get().state == "approved"
    assert "approved the directory's group Guarded Hosts" in text(browse(admin).get("/audit/")).replace("&#x27;", "'")


def test_a_host_that_joined_by_its_group_has_a_page(fleet: Portal, browse: Browse, admin: User, approver: User) -> None:
    now = timezone.now()
    ModeSwitch.objects.create(mode="kerberos", since=now, by="system", reason="a test")
    proposal = service.propose_kerberos_group(SID, "Guarded Hosts", by=admin, reason=REASON, now=now)
    service.decide(proposal.id, by=approver, approve=True, reason=REASON, now=now)
    assert service.appraise_membership(MEMBER, spki(TRANSPORT), trial=False, now=now).status == "Passed"
    host = Attester.objects.get(identity=MEMBER.sid)
    page = text(browse(admin).get(f"/hosts/{host.pk}/"))
    assert MEMBER.sid in page
    assert "membership of Guarded Hosts" in page
    assert "nbg-d01" in text(browse(admin).get("/hosts/"))


def test_a_group_goes_its_whole_way_in_the_portal(fleet: Portal, browse: Browse, admin: User, approver: User) -> None:
    ada, ben = browse(admin), browse(approver)
    assert "No group of the directory has been put forward" in text(ada.get("/directory-groups/"))
    sent = {"name": "Guarded Hosts", "sid": SID, "group": "default", "reason": REASON, "password": PASSWORD}
    answer = ada.post("/directory-groups/propose/", sent)
    assert answer.status_code == 302
    decision = {"decision": "approve", "reason": REASON, "password": PASSWORD}
    assert ben.post(answer["Location"], decision).status_code == 302
    page = text(ada.get("/directory-groups/"))
    assert SID in page
    assert "Approved" in page
    row = KerberosGroup.objects.get()
    address = f"/directory-groups/{row.pk}/retire/"
    assert "those that they hold count no more" in text(ben.get(address))
    assert ben.post(address, {"name": "another", "reason": REASON, "password": PASSWORD}).status_code == 200
    assert ben.post(address, {"name": row.name, "reason": REASON, "password": PASSWORD}).status_code == 302
    row.refresh_from_db()
    assert row.state == "retired"
    assert ben.post(address, {"name": row.name, "reason": REASON, "password": PASSWORD}).status_code == 404


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sid": "S-1-5-21-1-2-3-515"}, "no group that a domain’s administrators have made"),
        ({"sid": "Guarded Hosts"}, "no group that a domain’s administrators have made"),
        ({"sid": ""}, "Type the group’s SID"),
        ({"group": "nonsense"}, "Select a valid choice"),
        ({"reason": "short"}, "Write a reason of at least a sentence"),
        ({"password": "wrong"}, "This is not your password"),
    ],
)
def test_a_group_that_cannot_be_is_refused(
    fleet: Portal, browse: Browse, admin: User, changes: dict[str, str], said: str
) -> None:
    sent = {"name": "Guarded Hosts", "sid": SID, "group": "default", "reason": REASON, "password": PASSWORD}
    answer = browse(admin).post("/directory-groups/propose/", sent | changes)
    assert answer.status_code in {200, 409, 422, 403}
    assert said in text(answer)
    assert not KerberosGroup.objects.exists()


def test_there_is_nothing_to_retire_where_there_is_no_group(fleet: Portal, browse: Browse, approver: User) -> None:
    assert browse(approver).get("/directory-groups/00000000-0000-4000-8000-000000000000/retire/").status_code == 404


def test_posture_says_whether_who_leaves_a_group_is_refused_at_once(
    fleet: Portal, browse: Browse, admin: User, settings: Settings
) -> None:
    now, ada = timezone.now(), browse(admin)
    unasked, silent = "passes until its ticket ends", "no domain controller answered"

    def posture() -> str:
        return text(ada.get("/policies/default/"))

    assert unasked not in posture()  # that mode is not in force
    ModeSwitch.objects.create(mode="kerberos", since=now, by="system", reason="a test")
    assert unasked in posture()
    assert "one until its ticket ends, ten hours at most" in text(ada.get("/directory-groups/"))
    settings.DIRECTORY = ["ldap://dc1.fabric.test", "ldap://dc2.fabric.test:3890"]
    assert unasked not in posture()
    assert "asks dc1.fabric.test or dc2.fabric.test too" in text(ada.get("/directory-groups/"))
    strangers.refused("ticket.refused", "kerberos", TicketRefused("spent"), now=now)
    strangers.refused("ticket.refused", "account:S-1", DirectoryUnavailable("silent"), now=now - timedelta(minutes=11))
    assert silent not in posture()
    strangers.refused("ticket.refused", "account:S-1", DirectoryUnavailable("silent"), now=now)
    assert silent in posture()
