"""What pages show of groups and their policies. Nothing here changes anything or opens a transaction."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Count, Max, Q, QuerySet

from attestation.core.appraise import Checked
from attestation.core.document import PolicyDocument, changes_in_words
from attestation.core.policy import PolicyException
from attestation.errors import NotFound
from attestation.models import (
    Attestation,
    Attester,
    Baseline,
    CodeIntegrityPolicy,
    HostGroup,
    Mode,
    PolicyDraft,
    PolicyVersion,
    RuntimePolicy,
)
from attestation.policy import NO_POLICY, policy_of, version_in_force
from attestation.stored import checked_again

SOON, LATELY = timedelta(days=14), timedelta(days=7)


def groups() -> QuerySet[HostGroup]:
    return HostGroup.objects.select_related("canary_of").annotate(
        hosts=Count("attesters", filter=Q(attesters__state=Attester.State.APPROVED))
    )


def group(slug: str) -> HostGroup:
    found = groups().filter(pk=slug).first()
    if found is None:
        raise NotFound("There is no such group of hosts.")
    return found


def versions(slug: str) -> QuerySet[PolicyVersion]:
    """Return a group's policy versions, newest first."""
    return PolicyVersion.objects.filter(group_id=slug).select_related("restores")


def policy_now(slug: str, *, now: datetime) -> PolicyVersion | None:
    """Return the version that is in force for a group."""
    return version_in_force(slug, now=now)


def drafts(slug: str = "") -> QuerySet[PolicyDraft]:
    found = PolicyDraft.objects.select_related("group")
    return found.filter(group_id=slug) if slug else found


def draft(draft_id: UUID) -> PolicyDraft:
    found = drafts().filter(pk=draft_id).first()
    if found is None:
        raise NotFound("There is no such draft.")
    return found


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a draft of a group may name."""

    baselines: tuple[Baseline, ...]
    runtime: tuple[RuntimePolicy, ...]
    code_policies: tuple[CodeIntegrityPolicy, ...]
    hosts: tuple[Attester, ...]


def candidates(slug: str) -> Candidates:
    """Return what a group's policy can be made of: its baselines, and every runtime and code policy.

    Baselines that were once approved, and those that are drafts and would be decided together with the policy.
    """
    known = (Baseline.State.APPROVED, Baseline.State.RETIRED, Baseline.State.DRAFTED)
    runtime = RuntimePolicy.objects.defer("signers", "excludes")
    return Candidates(
        baselines=tuple(Baseline.objects.filter(group_id=slug, state__in=known)),
        runtime=tuple(runtime),
        code_policies=tuple(CodeIntegrityPolicy.objects.all()),
        hosts=tuple(Attester.objects.filter(group_id=slug, state=Attester.State.APPROVED, mode=Mode.TPM)),
    )


def standings(*, now: datetime) -> dict[str, tuple[int, int]]:
    """Return, for each group, how many of its approved hosts pass now, and how many do not."""
    passes = Q(status="Passed", certified_until__gt=now)
    rows = Attester.objects.filter(state=Attester.State.APPROVED).order_by().values_list("group_id")
    counted = rows.annotate(passing=Count("pk", filter=passes), total=Count("pk"))
    return {str(group): (passing, total - passing) for group, passing, total in counted}


def versions_in_force(*, now: datetime) -> dict[str, PolicyVersion]:
    """Return each group's version in force."""
    begun = PolicyVersion.objects.filter(effective_at__lte=now).order_by().values("group_id")
    newest = begun.annotate(newest=Max("version")).values("newest")
    return {str(row.group_id): row for row in PolicyVersion.objects.filter(version__in=newest)}


@dataclass(frozen=True, slots=True)
class Ending:
    """Something that a group's policy in force accepts for a time only, which is over soon or was a short while ago."""

    group: HostGroup
    until: datetime
    exception: PolicyException | None = None
    baseline: Baseline | None = None


def endings(*, now: datetime) -> list[Ending]:
    """Return what hosts will fail for unless somebody sees to it, or fail for since lately; the first to end first."""
    found: list[Ending] = []
    every = HostGroup.objects.in_bulk()
    ending_baselines: list[tuple[HostGroup, str, datetime]] = []
    for slug, row in versions_in_force(now=now).items():
        content = row.content()
        found += [Ending(every[slug], each.until, each) for each in content.exceptions if _is_near(each.until, now)]
        ending_baselines += [
            (every[slug], each.id, each.accepted_until)
            for each in content.baselines
            if each.accepted_until is not None and _is_near(each.accepted_until, now)
        ]
    rows = Baseline.objects.in_bulk([UUID(identifier) for _, identifier, _ in ending_baselines])
    found += [
        Ending(group, until, baseline=rows[UUID(identifier)])
        for group, identifier, until in ending_baselines
        if UUID(identifier) in rows
    ]
    return sorted(found, key=lambda each: each.until)


def _is_near(until: datetime, now: datetime) -> bool:
    return now - LATELY < until < now + SOON


def named_by(*, now: datetime) -> dict[str, tuple[HostGroup, ...]]:
    """Return, for each runtime and code integrity policy that counts now, the groups whose policy names it."""
    names: dict[str, tuple[HostGroup, ...]] = {}
    every = HostGroup.objects.in_bulk()
    for slug, row in versions_in_force(now=now).items():
        content = row.content()
        for each in {content.runtime, *content.code_policies} - {""}:
            names[each] = (*names.get(each, ()), every[slug])
    return names


def version(number: int) -> PolicyVersion:
    found = PolicyVersion.objects.select_related("group").filter(pk=number).first()
    if found is None:
        raise NotFound("There is no such policy version.")
    return found


def changes_between(before: PolicyVersion | None, after: PolicyVersion) -> tuple[str, ...]:
    """Say in sentences what a version changed of the one before it."""
    old = PolicyDocument(required=frozenset()) if before is None else before.content()
    names = names_of((old, after.content()))
    return changes_in_words(old, after.content(), lambda each: names.get(each, each))


def names_of(documents: Iterable[PolicyDocument]) -> dict[str, str]:
    """Return the names of everything that documents refer to by id."""
    ids = set[str]()
    for document in documents:
        ids |= {each.id for each in document.baselines} | set(document.code_policies)
        ids |= {document.runtime} - {""} | {host for each in document.exceptions for host in each.hosts}
    names: dict[str, str] = {}
    for model in (Baseline, RuntimePolicy, CodeIntegrityPolicy, Attester):
        names |= {str(row.pk): str(row) for row in model._default_manager.filter(pk__in=ids)}
    return names


def changes_of(wanted: PolicyDraft) -> tuple[str, ...]:
    """Say in sentences what a draft changes of the version that it began from."""
    old = PolicyVersion.objects.filter(pk=wanted.base_version).first()
    before = PolicyDocument(required=frozenset()) if old is None else old.content()
    after = wanted.content()
    names = names_of((before, after))
    return changes_in_words(before, after, lambda each: names.get(each, each))


def checks_of(found: Attestation) -> tuple[Checked, ...]:
    """Return every check's answer to an attestation, by the policy version that it was judged by."""
    version = PolicyVersion.objects.filter(pk=found.policy_version).first()
    return checked_again(found, NO_POLICY if version is None else policy_of(version), now=found.at)
