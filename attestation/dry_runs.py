"""Dry runs: what a draft would make of the newest Evidence of every host of its group, before anybody approves it.

A run is worked off some hosts at a time by whoever looks at it, on any node; its rows and its place are in the
database, so that a closed browser or a dead node loses nothing.
"""

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet

from attestation.acts import require
from attestation.core.appraise import AttestationResult
from attestation.core.policy import AppraisalPolicy
from attestation.errors import NotFound
from attestation.models import Attestation, Attester, DryRun, DryRunRow, Mode, PolicyDraft
from attestation.policy import compiled, policy_in_force
from attestation.stored import appraise_again

AT_ONCE = 200
SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Tally:
    """How a dry run came out: hosts that would pass, that would fail, and of those the ones for which that is new."""

    passes: int
    fails: int
    gains: int
    loses: int
    unknown: int


def start(draft_id: UUID, *, by: User, now: datetime) -> DryRun:
    """Begin to try a draft, as it is now, on the hosts of its group."""
    require(by, "attestation.propose")
    draft = PolicyDraft.objects.filter(pk=draft_id).first()
    if draft is None:
        raise NotFound("There is no such draft.")
    return DryRun.objects.create(
        draft=draft,
        revision=draft.revision,
        base_version=draft.base_version,
        total=_hosts(draft).count(),
        started_at=now,
        started_by=by.get_username(),
    )


def go_on(run_id: UUID, *, now: datetime) -> DryRun:
    """Try the next hosts, for about a second; of two who go on at once, one waits. Returns the run as it is then."""
    with transaction.atomic():
        run = DryRun.objects.select_for_update().select_related("draft").filter(pk=run_id).first()
        if run is None:
            raise NotFound("There is no such dry run.")
        if run.finished_at is None and run.revision == run.draft.revision:
            _work(run, now)
    return run


def _work(run: DryRun, now: datetime) -> None:
    draft = run.draft
    after = compiled(draft.content(), version=0)
    before = policy_in_force(draft.group_id, now=now)
    at = max(draft.effective_at or now, now)
    deadline = time.monotonic() + SECONDS
    hosts = _hosts(draft).filter(pk__gt=run.after) if run.after else _hosts(draft)
    rows = []
    for host in hosts.order_by("pk")[:AT_ONCE]:
        rows.append(_row(run, host, before, after, now=now, at=at))
        run.after, run.done = host.pk, run.done + 1
        if time.monotonic() > deadline:
            break
    else:
        if len(rows) < AT_ONCE:
            run.finished_at, run.total = now, run.done
    DryRunRow.objects.bulk_create(rows)
    run.save(update_fields=["after", "done", "total", "finished_at"])


def _hosts(draft: PolicyDraft) -> QuerySet[Attester]:
    return Attester.objects.filter(group_id=draft.group_id, state=Attester.State.APPROVED, mode=Mode.TPM)


def _row(
    run: DryRun, host: Attester, before: AppraisalPolicy, after: AppraisalPolicy, *, now: datetime, at: datetime
) -> DryRunRow:
    newest = Attestation.objects.filter(attester=host, code="").order_by("-pk").first()
    was = appraise_again(newest, before, now=now) if newest is not None else None
    would = appraise_again(newest, after, now=at) if newest is not None else None
    return DryRunRow(
        dry_run=run,
        attester=host,
        attestation=newest if would is not None else None,
        passes=_affirms(was),
        would_pass=_affirms(would),
        findings=[asdict(each) for each in would.findings] if would is not None else [],
        excepted=[asdict(each) for each in would.excepted] if would is not None else [],
    )


def _affirms(result: AttestationResult | None) -> bool:
    return result is not None and result.affirming


def newest_run(draft: PolicyDraft) -> DryRun | None:
    """Return the newest dry run of a draft as it is now."""
    return DryRun.objects.filter(draft=draft, revision=draft.revision).order_by("-started_at").first()


def dry_run(run_id: UUID) -> DryRun:
    found = DryRun.objects.select_related("draft__group").filter(pk=run_id).first()
    if found is None:
        raise NotFound("There is no such dry run.")
    return found


def rows(run: DryRun) -> QuerySet[DryRunRow]:
    """Return the rows of a run, those first that would lose, then those that would gain."""
    return run.rows.select_related("attester", "attestation").order_by("would_pass", "-passes", "attester__name")


def tally(found: Iterable[DryRunRow]) -> Tally:
    """Count what rows say."""
    passes = fails = gains = loses = unknown = 0
    for row in found:
        passes += row.would_pass
        fails += not row.would_pass
        gains += row.would_pass and not row.passes
        loses += row.passes and not row.would_pass
        unknown += row.attestation_id is None
    return Tally(passes, fails, gains, loses, unknown)
