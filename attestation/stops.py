"""Stops: no key goes to a host, to a group of hosts or to any, from one moment to the next, until two persons lift it.

One person stops, because it may have to be at once. To go on again is put forward by one and decided by another.
"""

from datetime import datetime
from uuid import UUID

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet

from attestation.acts import open_proposal, queue, record, require
from attestation.errors import CannotStop, NotFound
from attestation.models import Attester, HostGroup, Proposal, Stop

Scope = Stop.Scope


def stops() -> QuerySet[Stop]:
    """Return every stop there was, the newest first."""
    return Stop.objects.select_related("attester", "group")


def stops_in_force() -> QuerySet[Stop]:
    return stops().filter(lifted_at=None)


def stop_of(host: Attester) -> Stop | None:
    """Return the stop that keeps keys from a host, the widest if there are several."""
    mine = Q(scope=Scope.FABRIC) | Q(group=host.group_id) | Q(attester=host.pk)
    return stops_in_force().filter(mine).order_by("scope").first()


def stop_fabric(*, by: User, reason: str, now: datetime) -> Stop:
    """Stop every release of this fabric."""
    require(by, "attestation.revoke")
    return _begin(Stop(scope=Scope.FABRIC), by, reason=reason, now=now)


def stop_group(group_id: str, *, by: User, reason: str, now: datetime) -> Stop:
    """Stop the releases to the hosts that are in a group, as long as they are."""
    require(by, "attestation.revoke")
    found = HostGroup.objects.filter(pk=group_id).first()
    if found is None:
        raise NotFound("There is no such group of hosts.")
    return _begin(Stop(scope=Scope.GROUP, group=found), by, reason=reason, now=now)


def stop_host(attester_id: UUID, *, by: User, reason: str, now: datetime) -> Stop:
    """Stop the releases to one host, which stays approved: what a revocation ends, this only holds."""
    require(by, "attestation.revoke")
    found = Attester.objects.filter(pk=attester_id, state=Attester.State.APPROVED).first()
    if found is None:
        raise NotFound("There is no such host among the approved ones.")
    return _begin(Stop(scope=Scope.HOST, attester=found), by, reason=reason, now=now)


def _begin(stop: Stop, by: User, *, reason: str, now: datetime) -> Stop:
    stop.at, stop.by, stop.reason = now, by.get_username(), reason
    with transaction.atomic():
        queue()
        _save(stop)
        detail = {"stop": stop.pk, "scope": stop.scope, "name": stop.name, "reason": reason}
        record(by, "stop.begun", stop.subject, detail, now)
    return stop


def _save(stop: Stop) -> None:
    try:
        with transaction.atomic():
            stop.save(force_insert=True)
    except IntegrityError:
        raise CannotStop(f"Releases to {stop.name} are stopped already.") from None


def propose_lift(stop_id: int, *, by: User, reason: str, now: datetime) -> Proposal:
    """Put forward that a stop ends; somebody else decides it."""
    require(by, "attestation.revoke")
    with transaction.atomic():
        queue()
        found = stops_in_force().filter(pk=stop_id).first()
        if found is None:
            raise NotFound("There is no such stop in force.")
        proposal = open_proposal(Proposal(stop=found, proposed_by=by, proposed_at=now, reason=reason))
        record(by, "lift.proposed", found.subject, {"name": found.name, "stop": found.pk, "reason": reason}, now)
    return proposal


def settle(stop: Stop, by: User, *, approve: bool, now: datetime) -> None:
    """Let a decision about a lift take effect, in its transaction."""
    if not approve:
        return
    mine = Stop.objects.filter(pk=stop.pk, lifted_at=None)
    if mine.update(lifted_at=now, lifted_by=by.get_username()) != 1:
        raise CannotStop(f"The stop of {stop.name} is lifted already.")
