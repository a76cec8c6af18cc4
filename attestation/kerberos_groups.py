"""Which groups of the directory hosts may be in: put forward, approved by somebody else, retired (HGS: host groups)."""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Final
from uuid import UUID

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from attestation.acts import open_proposal, queue, record, require
from attestation.errors import AlreadyDecided, CannotApprove, NotFound
from attestation.models import DEFAULT_GROUP, HostGroup, KerberosGroup, Proposal

# A group that somebody has made in a domain: lower RIDs are the directory's own, whose members nobody has picked.
OWN_GROUP: Final = re.compile(r"S-1-5-21-(?:0|[1-9][0-9]{0,9})(?:-(?:0|[1-9][0-9]{0,9})){2}-([1-9][0-9]{0,9})")
FIRST_OWN_RID: Final = 1000


def propose_kerberos_group(
    sid: str, name: str, *, by: User, reason: str, now: datetime, group: str = DEFAULT_GROUP
) -> Proposal:
    """Put a group of the directory forward; once approved, every machine account in it is a host of the fabric."""
    require(by, "attestation.propose")
    found = OWN_GROUP.fullmatch(sid)
    if found is None or int(found.group(1)) < FIRST_OWN_RID:
        raise CannotApprove(
            f"{sid} is no group that a domain’s administrators have made. Give the whole SID, as in"
            " S-1-5-21-1-2-3-1104; every machine of the domain is in groups such as Domain Computers."
        )
    with transaction.atomic():
        queue()
        wanted = HostGroup.objects.filter(pk=group).first()
        if wanted is None:
            raise NotFound("There is no such group of hosts.")
        row = _new(KerberosGroup(sid=sid, name=name, group=wanted, proposed_by=by.get_username(), proposed_at=now))
        proposal = open_proposal(
            Proposal(kerberos_group=row, group=wanted, proposed_by=by, proposed_at=now, reason=reason)
        )
        detail = {"name": name, "sid": sid, "group": wanted.name, "reason": reason}
        record(by, "kerberos.proposed", row.subject, detail, now)
    return proposal


def _new(row: KerberosGroup) -> KerberosGroup:
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        raise AlreadyDecided(f"{row.sid} is approved already, or waits for a decision.") from None
    return row


def settle(row: KerberosGroup, *, approve: bool) -> None:
    """Let a decision take effect, in its transaction."""
    state = KerberosGroup.State.APPROVED if approve else KerberosGroup.State.REJECTED
    if KerberosGroup.objects.filter(pk=row.pk, state=KerberosGroup.State.PROPOSED).update(state=state) != 1:
        raise CannotApprove(f"{row.name} does not wait for approval any more.")


def retire_kerberos_group(group_id: UUID, *, by: User, reason: str, now: datetime) -> None:
    """End a group's approval: certificates that rest on it alone count no more, from this commit on."""
    require(by, "attestation.revoke")
    with transaction.atomic():
        queue()
        row = approved().filter(pk=group_id).first()
        if row is None:
            raise NotFound("There is no such group among the approved ones.")
        KerberosGroup.objects.filter(pk=row.pk).update(state=KerberosGroup.State.RETIRED)
        record(by, "kerberos.retired", row.subject, {"name": row.name, "sid": row.sid, "reason": reason}, now)


def kerberos_groups() -> QuerySet[KerberosGroup]:
    """Every group that was ever put forward."""
    return KerberosGroup.objects.select_related("group")


def approved(sids: Iterable[str] | None = None) -> QuerySet[KerberosGroup]:
    """The groups that count now; with `sids`, those of them alone."""
    rows = KerberosGroup.objects.filter(state=KerberosGroup.State.APPROVED)
    return rows if sids is None else rows.filter(sid__in=sorted(sids))
