"""Changes that count for a time: an amended baseline beside the approved one, from one moment to another.

The amended baseline and the policy that names it are one draft, tried and decided together; when its time is over, the
approved baseline counts alone again, and nobody has to remember to take the other one back.
"""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction

from attestation import policies
from attestation.acts import require
from attestation.baselines import amended_row, save
from attestation.core.amendment import Amendments
from attestation.core.document import BaselineEntry, to_json
from attestation.errors import CannotApprove
from attestation.models import Baseline

LONGEST_NAME = 60


def announce_change(
    baseline_id: UUID,
    amendments: Amendments,
    *,
    begins: datetime | None,
    ends: datetime,
    by: User,
    reason: str,
    now: datetime,
    source: int | None = None,
) -> Baseline:
    """Draft a policy in which an amended baseline counts beside the one that it amends, from `begins` up to `ends`.

    Returns the baseline; `drafts_naming` finds the draft.
    """
    require(by, "attestation.propose")
    if ends <= max(begins or now, now):
        raise CannotApprove("The time is over before it begins. Choose a later end.")
    baseline = amended_row(baseline_id, amendments, by=by, now=now, source=source)
    baseline.state = Baseline.State.DRAFTED
    with transaction.atomic():
        draft = policies.start_draft(str(baseline.group_id), title=_title(baseline, ends), by=by, now=now)
        document = draft.content()
        baseline.name = _free_name(baseline)
        detail = {"pcrs": sorted(amendments), "amends": str(baseline.amends_id), "until": ends.isoformat()}
        save(baseline, "baseline.drafted", {**detail, "reason": reason}, by=by, now=now)
        utc = None if begins is None else begins.astimezone(UTC)
        entry = BaselineEntry(str(baseline.pk), utc, ends.astimezone(UTC))
        changed = to_json(replace(document, baselines=(*document.baselines, entry)))
        policies.change_draft(draft.pk, changed, revision=draft.revision, by=by, now=now)
    return baseline


def _title(baseline: Baseline, ends: datetime) -> str:
    return f"Accept a change of {baseline.name[:LONGEST_NAME]} until {ends.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _free_name(baseline: Baseline) -> str:
    """A name that no other baseline of the group has, since two of one name would be taken for each other."""
    taken = set(Baseline.objects.filter(group=baseline.group_id).values_list("name", flat=True))
    numbers = range(2, len(taken) + 3)
    return next(name for number in numbers if (name := f"{baseline.name[:LONGEST_NAME]} ({number})") not in taken)
