"""The attestation mode of the fabric: who is ready for another one, how it is switched, and how that is taken back."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Final

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet

from attestation.acts import open_proposal, queue, record, require
from attestation.errors import CannotSwitch
from attestation.models import Attester, Mode, ModePlan, ModeSwitch, Proposal

# What a mode proves, more to the right: membership, possession, what was booted.
STRENGTH: Final = (Mode.KERBEROS, Mode.HOST_KEY, Mode.TPM)
DEFAULT_GRACE: Final = timedelta(hours=8)  # as long as a certificate lasts, so that no host has to hurry
LONGEST_GRACE: Final = timedelta(days=7)
TRIAL_COUNTS: Final = timedelta(days=1)  # what a host has shown of another mode longer ago says little about today
MOST_NAMED: Final = 20
HOW_TO_JOIN: Final = {
    Mode.TPM: "Run “guardhouse host enrol” on it, and have it approved.",
    Mode.HOST_KEY: "Run “guardhouse host enrol --mode hostkey” on it, and have it approved.",
    Mode.KERBEROS: (
        "Put its machine account into an approved group of the directory,"
        " and run “guardhouse host enrol --mode kerberos” on it."
    ),
}


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a host would get keys in another mode: as the mode in force knows it, and as the `other` does."""

    host: Attester | None
    other: Attester | None
    ready: bool
    why: str
    remedy: str

    @property
    def known(self) -> Attester:
        """The host as it is known today, or as it would be."""
        known = self.host or self.other
        if known is None:
            raise ValueError("a host is known in one of the two modes")
        return known

    @property
    def loses(self) -> bool:
        """Whether it passes today and would not."""
        return not self.ready and self.host is not None and self.host.status == "Passed"


@dataclass(frozen=True, slots=True)
class Impact:
    """What a switch would do: how many hosts are ready, how many are not, and those that would lose new starts."""

    ready: int
    unready: int
    losing: int
    names: tuple[str, ...]  # of those that would lose, the first few

    def kept(self) -> dict[str, object]:
        """Return it as it is kept with the plan of a switch."""
        return {**asdict(self), "names": list(self.names)}


def in_force() -> ModeSwitch:
    return ModeSwitch.objects.select_related("plan")[0]


def switches() -> QuerySet[ModeSwitch]:
    """Return the history, newest first."""
    return ModeSwitch.objects.select_related("plan")


def weakens(mode: str, than: str) -> bool:
    return STRENGTH.index(Mode(mode)) < STRENGTH.index(Mode(than))


def rehearsal(mode: Mode, *, now: datetime) -> list[Readiness]:
    """Say of every host whether it is ready for another mode, and if not, why not.

    Of all that the mode in force has approved, and of those that the other one knows besides. From what is stored:
    hosts that are registered for the other mode try it by themselves, which earns them nothing.
    """
    approved = Attester.objects.filter(state=Attester.State.APPROVED, mode=in_force().mode).select_related("group")
    today = {host.name: host for host in approved}
    then: dict[str, Attester] = {}
    alive = (Attester.State.PENDING, Attester.State.APPROVED)
    rows = Attester.objects.filter(mode=mode, state__in=alive).select_related("latest", "group")
    for row in rows.order_by("state"):  # "approved" comes before "pending"
        then.setdefault(row.name, row)
    return [_readiness(today.get(name), then.get(name), mode, now) for name in sorted({*today, *then})]


def _readiness(host: Attester | None, other: Attester | None, mode: Mode, now: datetime) -> Readiness:
    latest = None if other is None else other.latest
    if other is None:
        why, remedy = f"No host of this name is known in {mode.label} mode.", HOW_TO_JOIN[mode]
    elif other.state != Attester.State.APPROVED:
        why = f"It is registered for {mode.label} mode, and nobody has approved that."
        remedy = "Put it forward, and let another person approve it."
    elif latest is None or latest.at < now - TRIAL_COUNTS:
        why = f"It has not tried {mode.label} mode within a day."
        remedy = "Its agent tries every hour; “guardhouse host rehearse” on the host tries at once."
    elif latest.status != "Passed":
        found = latest.findings[0] if latest.findings else {"what": latest.status, "remedy": ""}
        why, remedy = f"It tried and did not pass: {found['what']}", found["remedy"]
    else:
        return Readiness(host, other, ready=True, why="", remedy="")
    return Readiness(host, other, ready=False, why=why, remedy=remedy)


def impact_of(rows: Iterable[Readiness]) -> Impact:
    counted = list(rows)
    losing = [row.known.name for row in counted if row.loses]
    ready = sum(row.ready for row in counted)
    return Impact(ready, len(counted) - ready, len(losing), tuple(losing[:MOST_NAMED]))


def propose_switch(mode: Mode, *, grace: timedelta, by: User, reason: str, now: datetime) -> Proposal:
    """Put a switch forward, with what it would do. Somebody else decides it.

    `grace` is how long certificates of the mode in force go on counting after the switch; none cuts them off at once.
    """
    require(by, "attestation.propose")
    if not timedelta() <= grace <= LONGEST_GRACE:
        raise CannotSwitch("Certificates of the old mode can go on counting for at most a week.")
    with transaction.atomic():
        queue()
        if in_force().mode == mode:
            raise CannotSwitch(f"{mode.label} mode is in force already.")
        impact = impact_of(rehearsal(mode, now=now)).kept()
        plan = ModePlan.objects.create(
            mode=mode, grace=grace, impact=impact, created_at=now, created_by=by.get_username()
        )
        proposal = open_proposal(Proposal(plan=plan, proposed_by=by, proposed_at=now, reason=reason))
        detail = {"name": plan.name, "grace_seconds": int(grace.total_seconds()), "reason": reason, **impact}
        record(by, "mode.proposed", plan.subject, detail, now)
    return proposal


def settle(plan: ModePlan, by: User, *, approve: bool, reason: str, now: datetime) -> None:
    """Switch, in the transaction of the decision: from its commit on every node asks for the new mode."""
    if not approve:
        return
    current = in_force()
    if current.mode == plan.mode:
        raise CannotSwitch(f"{plan.get_mode_display()} mode is in force already.")
    ModeSwitch.objects.create(
        mode=plan.mode,
        since=now,
        by=by.get_username(),
        reason=reason,
        before=current.mode,
        before_until=now + plan.grace if plan.grace else None,
        plan=plan,
    )


def can_roll_back(current: ModeSwitch, *, now: datetime) -> bool:
    """Say whether one person may take the last switch back.

    To a mode that proves more, always; to one that proves less only while its certificates count anyway. Later it is
    a switch like any other, which two persons decide.
    """
    if not current.before:
        return False
    still = current.before_until is not None and now < current.before_until
    return still or not weakens(current.before, current.mode)


def roll_back(*, by: User, reason: str, now: datetime) -> ModeSwitch:
    """Go back to the mode before, in one act; certificates of the one that is left go on counting for as long."""
    require(by, "attestation.decide")
    with transaction.atomic():
        queue()
        current = in_force()
        if not can_roll_back(current, now=now):
            raise CannotSwitch("The last switch cannot be taken back by one person any more. Put a switch forward.")
        grace = DEFAULT_GRACE if current.plan is None else current.plan.grace
        switch = ModeSwitch.objects.create(
            mode=current.before,
            since=now,
            by=by.get_username(),
            reason=reason,
            before=current.mode,
            before_until=now + grace if grace else None,
        )
        detail = {"name": f"{switch.get_mode_display()} mode", "reason": reason}
        record(by, "mode.rolled_back", f"mode:{switch.mode}", detail, now)
    return switch


def counting(current: ModeSwitch, *, now: datetime) -> tuple[str, ...]:
    """Return the modes whose certificates count: the one in force, and the one before it until its time is up."""
    grace = current.before_until is not None and now < current.before_until
    return (current.mode, current.before) if grace else (current.mode,)


def mode_counts(mode: str, *, now: datetime) -> bool:
    """Say whether a certificate of this mode counts."""
    return mode in counting(in_force(), now=now)
