"""Policies of groups: drafts that are written and tried, versions that never change, and the way back.

A draft changes nothing. Put forward, it changes no more; approved, it is the group's next version, in force from its
moment on every node, because every node asks the database which version is newest.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import F

from attestation.acts import open_proposal, queue, record, require
from attestation.core.document import PolicyDocument, parse_document, to_json
from attestation.errors import CannotApprove, DraftMoved, NotFound, ParseError
from attestation.models import (
    Attester,
    Baseline,
    CodeIntegrityPolicy,
    DryRun,
    HostGroup,
    PolicyDraft,
    PolicyVersion,
    Proposal,
    RuntimePolicy,
)
from attestation.policy import base_document
from attestation.sources import require_sources


def add_group(slug: str, name: str, *, description: str, canary_of: str | None, by: User, now: datetime) -> HostGroup:
    """Make a group of hosts; without a policy of its own it trusts nothing."""
    require(by, "attestation.propose")
    if HostGroup.objects.filter(pk=slug).exists() or HostGroup.objects.filter(name=name).exists():
        raise CannotApprove("There is a group of that name already.")
    if canary_of and not HostGroup.objects.filter(pk=canary_of, canary_of=None).exists():
        raise NotFound("There is no such group to be a canary of.")
    with transaction.atomic():
        group = HostGroup.objects.create(
            slug=slug,
            name=name,
            description=description,
            canary_of_id=canary_of or None,
            created_at=now,
            created_by=by.get_username(),
        )
        record(by, "group.added", group.subject, {"name": name, "canary_of": canary_of or ""}, now)
    return group


def start_draft(group: str, *, title: str, by: User, now: datetime, restores: int | None = None) -> PolicyDraft:
    """Begin a change of a group's policy from its newest version, or from the older one that it restores."""
    require(by, "attestation.propose")
    if not HostGroup.objects.filter(pk=group).exists():
        raise NotFound("There is no such group of hosts.")
    base, document = base_document(group)
    old = None
    if restores is not None:
        old = PolicyVersion.objects.filter(pk=restores, group_id=group).first()
        if old is None:
            raise NotFound("This group has no such version.")
        document = old.content()
    return PolicyDraft.objects.create(
        group_id=group,
        title=title,
        document=to_json(document),
        base_version=base,
        restores=old,
        created_by=by.get_username(),
        created_at=now,
        changed_at=now,
    )


def promote(group: str, *, to: str, by: User, now: datetime) -> PolicyDraft:
    """Begin a change that gives a group what its canary group has tried; the group's own exceptions stay."""
    require(by, "attestation.propose")
    canary = HostGroup.objects.filter(pk=group, canary_of_id=to).first()
    tried, document = base_document(group)
    if canary is None or not tried:
        raise NotFound("There is no such canary group with a policy.")
    base, own = base_document(to)
    return PolicyDraft.objects.create(
        group_id=to,
        title=f"As tried by {canary.name} (v{tried})",
        document=to_json(replace(document, exceptions=own.exceptions)),
        base_version=base,
        created_by=by.get_username(),
        created_at=now,
        changed_at=now,
    )


def change_draft(
    draft_id: UUID,
    document: Mapping[str, Any],
    *,
    revision: int,
    by: User,
    now: datetime,
    title: str | None = None,
    effective_at: datetime | None = None,
) -> PolicyDraft:
    """Write a draft anew; `revision` is the one that the writer has seen, so that nobody overwrites another's words."""
    require(by, "attestation.propose")
    parsed = parse_document(document)
    with transaction.atomic():
        draft = PolicyDraft.objects.select_for_update().filter(pk=draft_id, state=PolicyDraft.State.DRAFT).first()
        if draft is None:
            raise NotFound("There is no such draft, or it was put forward already.")
        _require_known(parsed, draft.group_id)
        same = PolicyDraft.objects.filter(pk=draft_id, revision=revision)
        changed = same.update(
            document=to_json(parsed),
            revision=F("revision") + 1,
            title=draft.title if title is None else title,
            effective_at=effective_at,
            changed_at=now,
        )
        if changed != 1:
            raise DraftMoved("Somebody else changed this draft meanwhile. Look at it again.")
    draft.refresh_from_db()
    return draft


def drop_draft(draft_id: UUID, *, by: User, now: datetime) -> None:
    """Give a draft up."""
    require(by, "attestation.propose")
    dropped = PolicyDraft.objects.filter(pk=draft_id, state=PolicyDraft.State.DRAFT)
    if dropped.update(state=PolicyDraft.State.DROPPED, changed_at=now) != 1:
        raise NotFound("There is no such draft, or it was put forward already.")


def propose_draft(draft_id: UUID, *, by: User, reason: str, now: datetime) -> Proposal:
    """Put a draft forward for another person's decision; it was tried on stored Evidence before, in this very form."""
    require(by, "attestation.propose")
    with transaction.atomic():
        queue()
        draft = PolicyDraft.objects.filter(pk=draft_id, state=PolicyDraft.State.DRAFT).first()
        if draft is None:
            raise NotFound("There is no such draft, or it was put forward already.")
        _require_base(draft)
        tried = DryRun.objects.filter(draft=draft, revision=draft.revision, base_version=draft.base_version)
        if not tried.filter(finished_at__isnull=False).exists():
            raise CannotApprove(
                "Try the draft on the stored Evidence of its hosts first; what it would do is not known."
            )
        PolicyDraft.objects.filter(pk=draft_id).update(state=PolicyDraft.State.PROPOSED)
        proposal = open_proposal(
            Proposal(draft=draft, group_id=draft.group_id, proposed_by=by, proposed_at=now, reason=reason)
        )
        record(
            by, "policy.proposed", draft.subject, {"name": draft.title, "group": draft.group_id, "reason": reason}, now
        )
    return proposal


def settle(draft: PolicyDraft, by: User, *, approve: bool, reason: str, now: datetime) -> None:
    """Let the decision about a draft take effect; one whose ground has moved meanwhile cannot be approved."""
    if not approve:
        PolicyDraft.objects.filter(pk=draft.pk).update(state=PolicyDraft.State.REJECTED)
        return
    _require_base(draft)
    PolicyDraft.objects.filter(pk=draft.pk).update(state=PolicyDraft.State.APPROVED)
    new_version(
        draft.group_id,
        draft.content(),
        by=by.get_username(),
        reason=reason,
        effective_at=max(draft.effective_at or now, now),
        restores=draft.restores_id,
        now=now,
    )


def _require_base(draft: PolicyDraft) -> None:
    base, _ = base_document(draft.group_id)
    if base != draft.base_version:
        raise DraftMoved(
            f"The group's policy went on to v{base}; this draft began at v{draft.base_version}. Write it anew on that."
        )


def new_version(
    group: str,
    document: PolicyDocument,
    *,
    by: str,
    reason: str,
    effective_at: datetime,
    now: datetime,
    restores: int | None = None,
) -> PolicyVersion:
    """Write a group's next version, in the caller's transaction, with the queue held; numbers are the fabric's."""
    _require_known(document, group)
    newest = PolicyVersion.objects.order_by("-version").first()
    version = PolicyVersion.objects.create(
        version=1 if newest is None else newest.version + 1,
        group_id=group,
        document=to_json(document),
        effective_at=effective_at,
        restores_id=restores,
        created_at=now,
        created_by=by,
        reason=reason,
    )
    _show_baselines(group, document)
    return version


def _show_baselines(group: str, document: PolicyDocument) -> None:
    """Let the group's baselines say whether its newest version names them."""
    named = [UUID(each.id) for each in document.baselines]
    mine = Baseline.objects.filter(group_id=group)
    mine.filter(state=Baseline.State.APPROVED).exclude(pk__in=named).update(state=Baseline.State.RETIRED)
    shown = (Baseline.State.RETIRED, Baseline.State.DRAFTED)
    mine.filter(state__in=shown, pk__in=named).update(state=Baseline.State.APPROVED)


def _require_known(document: PolicyDocument, group: str) -> None:
    """Refuse a document that names what is not there, what nobody approved, or two baselines of one name.

    A baseline that was drafted for it is decided together with it.
    """
    known = (Baseline.State.APPROVED, Baseline.State.RETIRED, Baseline.State.DRAFTED)
    found = Baseline.objects.filter(
        pk__in=[_uuid(each.id) for each in document.baselines], group_id=group, state__in=known
    ).select_related("amends")
    for baseline in found:
        if baseline.state == Baseline.State.DRAFTED:
            require_sources(baseline)
    names = [baseline.name for baseline in found]
    if len(names) != len(document.baselines):
        raise CannotApprove(
            "The policy names a baseline that is not there, is another group's, or that nobody approved."
        )
    if len(set(names)) != len(names):
        raise CannotApprove("The policy names two baselines of one name; give one of them another name.")
    if document.runtime and not RuntimePolicy.objects.filter(pk=_uuid(document.runtime)).exists():
        raise CannotApprove("The policy names a runtime policy that is not there.")
    policies = {_uuid(each) for each in document.code_policies}
    if CodeIntegrityPolicy.objects.filter(pk__in=policies).count() != len(policies):
        raise CannotApprove("The policy names a code integrity policy that is not there.")
    hosts = {_uuid(host) for each in document.exceptions for host in each.hosts}
    if Attester.objects.filter(pk__in=hosts).count() != len(hosts):
        raise CannotApprove("An exception names a host that is not there.")


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise ParseError(f"{text[:60]!r} is no id.") from None
