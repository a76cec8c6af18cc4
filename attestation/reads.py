"""The reading half of this app's door: what pages show. Nothing here changes anything or opens a transaction."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Case, CharField, Count, F, Q, QuerySet, Subquery, Value, When
from django.db.models.functions import TruncHour
from django.utils import timezone

from attestation import modes
from attestation.certificates import FAILING, mode_in_force
from attestation.core.reference import ByValue, Rule, meets
from attestation.errors import NotFound
from attestation.models import (
    Attestation,
    Attester,
    Baseline,
    HealthCertificate,
    Mode,
    ModeSwitch,
    PolicyVersion,
    Proposal,
)
from attestation.stored import boot_of

HOURS = 24
ABOUT = {  # the column that a proposal of a kind fills
    "host": "attester",
    "baseline": "baseline",
    "policy": "draft",
    "mode": "plan",
    "kerberos": "kerberos_group",
    "lift": "stop",
}
GONE = (Attester.State.REJECTED, Attester.State.REVOKED)


@dataclass(frozen=True, slots=True)
class Counts:
    hosts: int
    baselines: int
    open_proposals: int


@dataclass(slots=True)
class Cause:
    """Hosts that fail for one and the same reason, since the first of them did."""

    finding: dict[str, object]
    status: str
    since: datetime
    hosts: list[Attester] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Hour:
    start: datetime
    passed: int
    failed: int


@dataclass(frozen=True, slots=True)
class Effect:
    """What approving a proposal would do, over the newest Evidence of every host."""

    fits: tuple[Attester, ...]
    differs: tuple[Attester, ...]
    loses: tuple[Attester, ...]  # pass today, and would match no baseline any more
    retires: Baseline | None
    replaces: Attester | None

    @property
    def gains(self) -> tuple[Attester, ...]:
        """The approved hosts that do not pass today and have what is proposed."""
        return tuple(host for host in self.fits if host.state == Attester.State.APPROVED and host.status != "Passed")


def policy_version() -> int:
    """Return the newest version of any group's policy."""
    newest = PolicyVersion.objects.first()
    return 0 if newest is None else newest.version


def counts() -> Counts:
    return Counts(
        hosts=Attester.objects.exclude(state__in=GONE).count(),
        baselines=Baseline.objects.filter(state=Baseline.State.APPROVED).count(),
        open_proposals=Proposal.objects.filter(state=Proposal.State.OPEN).count(),
    )


# --- hosts -------------------------------------------------------------------------------------------------------


def _shown(now: datetime) -> Case:
    """The one word for a host: what people decided about it, and about the mode, comes before what it last proved."""
    in_force = Subquery(ModeSwitch.objects.values("mode")[:1])
    lapsed = Q(status="Passed") & (Q(certified_until=None) | Q(certified_until__lte=now))
    return Case(
        When(~Q(state=Attester.State.APPROVED), then=F("state")),
        When(~Q(mode=in_force), then=Value("NotInForce")),
        When(status__in=("Unknown", "UnauthorizedHost"), then=Value("Unknown")),  # approved, and silent since
        When(lapsed, then=Value("Expired")),
        default=F("status"),
        output_field=CharField(),
    )


def shown_status(attester: Attester, *, now: datetime) -> str:
    return str(Attester.objects.values_list(_shown(now), flat=True).get(pk=attester.pk))


def attesters(*, query: str = "", status: str = "", group: str = "", now: datetime) -> QuerySet[Attester]:
    """Return the hosts, with the status to show as `shown`; searched by name, digest or certificate serial."""
    found = Attester.objects.select_related("latest", "group").defer("latest__evidence", "latest__pcrs")
    if group:
        found = found.filter(group_id=group)
    if query:
        found = found.filter(_matching(query))
    found = found.annotate(shown=_shown(now))
    return found.filter(shown=status) if status else found


def _matching(query: str) -> Q:
    wanted = query.strip()
    lowered = wanted.lower().replace(":", "")
    return (
        Q(name__icontains=wanted)
        | Q(ek_fingerprint__startswith=lowered)
        | Q(ak_name__startswith=lowered)
        | Q(pk__in=HealthCertificate.objects.filter(serial__startswith=lowered).values("attester_id"))
    )


def status_counts(*, now: datetime) -> dict[str, int]:
    """Return how many hosts show each status."""
    rows = Attester.objects.order_by().annotate(shown=_shown(now)).values_list("shown").annotate(count=Count("pk"))
    return dict(rows)


def attester(attester_id: UUID) -> Attester:
    found = Attester.objects.select_related("latest__baseline", "replaces", "group").filter(pk=attester_id).first()
    if found is None:
        raise NotFound("There is no such host.")
    return found


def failing(*, now: datetime) -> list[Cause]:
    """Group the approved hosts that fail by what is wrong, the widest cause first."""
    causes: dict[str, Cause] = {}
    approved = Attester.objects.filter(state=Attester.State.APPROVED, mode=mode_in_force(), latest__isnull=False)
    for row in approved.exclude(status="Passed").select_related("latest"):
        for finding in row.latest.findings if row.latest else []:
            since = row.status_at or now
            cause = causes.setdefault(str(finding.get("what")), Cause(finding=finding, status=row.status, since=since))
            cause.hosts.append(row)
            cause.since = min(cause.since, since)
    return sorted(causes.values(), key=lambda cause: (-len(cause.hosts), cause.since))


def last_failure() -> Attestation | None:
    return Attestation.objects.exclude(status="Passed").select_related("attester").first()


def waiting() -> QuerySet[Attester]:
    """Return the hosts that wait for a person, oldest first."""
    return Attester.objects.filter(state=Attester.State.PENDING).order_by("enrolled_at")


def lapsing(*, now: datetime, limit: int) -> list[Attester]:
    """Return the certified hosts whose certificates end soonest."""
    return list(_certified(now).order_by("certified_until")[:limit])


def certified(*, now: datetime) -> int:
    """Return how many hosts hold a certificate that they get keys with."""
    return _certified(now).count()


def certified_among(hosts: Collection[UUID], *, now: datetime) -> set[UUID]:
    """Return which of these hosts hold a certificate that they get keys with."""
    return set(_certified(now).filter(pk__in=hosts).values_list("pk", flat=True))


def certified_before(moment: datetime, *, now: datetime) -> set[UUID]:
    """Return the hosts that would hold none if certificates issued before a moment counted no more."""
    since = HealthCertificate.objects.filter(revoked_at=None, not_after__gt=now, issued_at__gte=moment)
    return set(_certified(now).exclude(pk__in=since.values("attester_id")).values_list("pk", flat=True))


def _certified(now: datetime) -> QuerySet[Attester]:
    """The hosts that would get keys: those that fail have a certificate for nothing, as those of another mode have."""
    standing = Attester.objects.filter(
        state=Attester.State.APPROVED, mode__in=modes.counting(modes.in_force(), now=now)
    )
    return standing.filter(certified_until__gt=now).exclude(status__in=FAILING)


@dataclass(frozen=True, slots=True)
class Turnover:
    """How far hosts have followed a switch while certificates of the mode before count: how many each mode has.

    `behind` are the hosts that have one of the mode before alone.
    """

    mode: Mode
    before: Mode
    until: datetime
    followed: int
    of_before: int
    behind: list[Attester]


def turnover(*, now: datetime) -> Turnover | None:
    """Return how far a switch has come, while it is on its way; None when only one mode counts."""
    current = modes.in_force()
    if current.before_until is None or current.before_until <= now:
        return None
    new, old = (_certified(now).filter(mode=mode) for mode in (current.mode, current.before))
    behind = old.exclude(name__in=new.values("name")).order_by("name")
    return Turnover(
        Mode(current.mode), Mode(current.before), current.before_until, new.count(), old.count(), list(behind)
    )


def certificates(attester_id: UUID) -> QuerySet[HealthCertificate]:
    return HealthCertificate.objects.filter(attester_id=attester_id).select_related("attestation", "signer", "attester")


def live_certificate(attester_id: UUID, *, now: datetime) -> HealthCertificate | None:
    return certificates(attester_id).filter(revoked_at=None, not_after__gt=now).first()


def certificate(serial: str) -> HealthCertificate:
    if "\0" in serial:  # from the address of a page; PostgreSQL cannot even be asked
        raise NotFound("There is no such certificate.")
    found = HealthCertificate.objects.select_related("attester", "attestation").filter(serial=serial).first()
    if found is None:
        raise NotFound("There is no such certificate.")
    return found


# --- attestations ------------------------------------------------------------------------------------------------


def attestations(*, attester_id: UUID | None = None, query: str = "", status: str = "") -> QuerySet[Attestation]:
    """Return verdicts, newest first."""
    found = Attestation.objects.select_related("attester", "baseline", "certificate")
    if attester_id is not None:
        found = found.filter(attester_id=attester_id)
    if query:
        serial = query.strip().lower().replace(":", "")
        found = found.filter(Q(attester__name__icontains=query.strip()) | Q(certificate__serial__startswith=serial))
    if status:
        found = found.filter(status=status)
    return found


def attestation(attestation_id: int) -> Attestation:
    found = attestations().select_related("event_log", "ima_log").filter(pk=attestation_id).first()
    if found is None:
        raise NotFound("There is no such attestation.")
    return found


def per_hour(*, now: datetime) -> list[Hour]:
    """Return passed and failed attestations of the last 24 hours, oldest hour first."""
    first = timezone.localtime(now).replace(minute=0, second=0, microsecond=0) - timedelta(hours=HOURS - 1)
    rows = (
        Attestation.objects.filter(at__gte=first)
        .order_by()
        .values_list(TruncHour("at"))
        .annotate(passed=Count("pk", filter=Q(status="Passed")), total=Count("pk"))
    )
    found = {hour: (passed, total - passed) for hour, passed, total in rows}
    hours = [first + timedelta(hours=n) for n in range(HOURS)]
    return [Hour(hour, *found.get(hour, (0, 0))) for hour in hours]


# --- proposals and baselines -------------------------------------------------------------------------------------


def proposals(*, state: str = "", kind: str = "") -> QuerySet[Proposal]:
    """Return what was put forward, newest first; of one kind, as a proposal’s `kind` names it."""
    found = Proposal.objects.select_related(
        *("attester__group", "baseline__captured_from__attester", "draft", "plan", "kerberos_group", "group"),
        *("stop__attester", "stop__group", "proposed_by", "decided_by"),
    )
    if kind:
        found = found.filter(**{f"{ABOUT[kind]}__isnull": False})
    return found.filter(state=state) if state else found


def proposal(proposal_id: int) -> Proposal:
    found = proposals().filter(pk=proposal_id).first()
    if found is None:
        raise NotFound("There is no such proposal.")
    return found


def open_proposal_for(attester_id: UUID) -> Proposal | None:
    return proposals(state=Proposal.State.OPEN).filter(attester_id=attester_id).first()


def baselines() -> QuerySet[Baseline]:
    found = Baseline.objects.select_related("captured_from__attester", "group")
    return found.defer("captured_from__evidence", "captured_from__findings", "captured_from__excepted")


def baseline(baseline_id: UUID) -> Baseline:
    found = baselines().filter(pk=baseline_id).first()
    if found is None:
        raise NotFound("There is no such baseline.")
    return found


def effect_of(proposal: Proposal) -> Effect:
    """Say what would change: which hosts have the proposed values, which baseline or host would go."""
    if proposal.baseline is None:
        replaces = _holder(proposal.attester) if proposal.attester else None
        return Effect(fits=(), differs=(), loses=(), retires=None, replaces=replaces)
    candidate = proposal.baseline
    fits, differs = matching(candidate)
    same_name = Baseline.objects.filter(name=candidate.name, group=candidate.group_id, state=Baseline.State.APPROVED)
    retires = same_name.exclude(pk=candidate.pk).first()
    loses = () if retires is None else tuple(_losing(differs, retires))
    return Effect(fits=fits, differs=differs, loses=loses, retires=retires, replaces=None)


def losing(retired: Baseline) -> tuple[Attester, ...]:
    """Return the hosts that pass with this baseline and would with no other, if it were retired."""
    return tuple(_losing(matching(retired)[0], retired))


def _holder(candidate: Attester) -> Attester | None:
    """Return the host that has this one's name now, which need not be the one that had it when this one enrolled."""
    named = Attester.objects.filter(name=candidate.name, mode=candidate.mode, state=Attester.State.APPROVED)
    return named.exclude(pk=candidate.pk).first()


def _losing(hosts: Iterable[Attester], retired: Baseline) -> Iterator[Attester]:
    mine = Baseline.objects.filter(state=Baseline.State.APPROVED, group=retired.group_id)
    kept = [each.rules() for each in mine.exclude(pk=retired.pk)]
    old = retired.rules()
    for host in hosts:
        passes = host.state == Attester.State.APPROVED and _fits(host, old)
        if passes and not any(_fits(host, rules) for rules in kept):
            yield host


def matching(candidate: Baseline) -> tuple[tuple[Attester, ...], tuple[Attester, ...]]:
    """Split the hosts of a baseline's group, and those that wait, by whether their newest Evidence is as it asks."""
    mine = Q(group=candidate.group_id) | Q(state=Attester.State.PENDING)
    hosts = Attester.objects.filter(mine, latest__isnull=False).exclude(state__in=GONE).select_related("latest")
    rules = candidate.rules()
    fits: list[Attester] = []
    differs: list[Attester] = []
    for host in hosts:
        (fits if _fits(host, rules) else differs).append(host)
    return tuple(fits), tuple(differs)


def _fits(host: Attester, rules: Mapping[int, Rule]) -> bool:
    if host.latest is None or not host.latest.pcrs:
        return False
    values = host.latest.pcr_bytes()
    if any(values.get(pcr) not in rule.values for pcr, rule in rules.items() if isinstance(rule, ByValue)):
        return False
    by_events = {pcr: rule for pcr, rule in rules.items() if not isinstance(rule, ByValue)}
    if by_events and host.latest.event_log_id is None:
        return False
    events = boot_of(host.latest).events if by_events else ()
    return all(
        meets(rule, values.get(pcr), [event for event in events if event.pcr == pcr]) for pcr, rule in by_events.items()
    )
