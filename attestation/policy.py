"""The Appraisal Policies for Evidence that are in force, one for each group of hosts, as the core understands them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from uuid import UUID

from attestation.core.check import CodePolicy
from attestation.core.ci_policy import parse_ci_policy
from attestation.core.document import NOTHING, BaselineEntry, PolicyDocument
from attestation.core.eventlog import parse_event_log
from attestation.core.ima_signature import parse_signer
from attestation.core.policy import AppraisalPolicy
from attestation.core.reference import ReferenceValues
from attestation.core.replay import VerifiedEvent, replay
from attestation.core.runtime import RuntimePolicy as RuntimeRules
from attestation.core.runtime_text import parse_runtime_text
from attestation.memory import Recent
from attestation.models import Baseline, CodeIntegrityPolicy, PolicyVersion, RuntimePolicy
from attestation.policy_records import Written


def version_in_force(group: str, *, now: datetime) -> PolicyVersion | None:
    """Return the newest version whose time has come; what a later decision says counts over an earlier one."""
    return PolicyVersion.objects.filter(group_id=group, effective_at__lte=now).order_by("-version").first()


def policy_in_force(group: str, *, now: datetime) -> AppraisalPolicy:
    """Return the policy of a group; one without any trusts nothing (version 0, no baselines)."""
    newest = version_in_force(group, now=now)
    return NO_POLICY if newest is None else policy_of(newest)


NO_POLICY = AppraisalPolicy(version=0, baselines=())


@dataclass(frozen=True, slots=True)
class InForce:
    """A policy as the core understands it, the id of the runtime policy that it names, "" for none, and its digest."""

    policy: AppraisalPolicy
    runtime: str = ""
    sha256: str = ""


NOTHING_IN_FORCE = InForce(NO_POLICY)


def in_force(version: PolicyVersion) -> InForce:
    """Return a version as the core understands it; made once in a process, since versions never change.

    The number alone would not do: a database that was restored from a backup may give it out a second time.
    """
    key = (version.version, version.created_at)
    return _compiled.get(key) or _compiled.put(key, _in_force(version))


def _in_force(version: PolicyVersion) -> InForce:
    document = version.content()
    policy = compiled(document, version=version.version)
    return InForce(policy, document.runtime, Written.down(version).digest)


def policy_of(version: PolicyVersion) -> AppraisalPolicy:
    return in_force(version).policy


MOST_COMPILED = 64
_compiled: Recent[tuple[int, datetime], InForce] = Recent(MOST_COMPILED)


def compiled(document: PolicyDocument, *, version: int) -> AppraisalPolicy:
    """Look up what a document names; a baseline that is not there any more simply counts no more."""
    rows = Baseline.objects.select_related("event_log").in_bulk([UUID(each.id) for each in document.baselines])
    entries = [(rows[UUID(each.id)], each) for each in document.baselines if UUID(each.id) in rows]
    return AppraisalPolicy(
        version=version,
        baselines=tuple(reference_values(row, entry) for row, entry in entries),
        required=document.required,
        parameters=document.parameters,
        exceptions=document.exceptions,
        runtime=runtime_rules(document.runtime) if document.runtime else None,
        code_policies=_code_policies(document.code_policies),
    )


def base_document(group: str) -> tuple[int, PolicyDocument]:
    """Return the newest version of a group, in force yet or not, and its document: what a change starts from."""
    newest = PolicyVersion.objects.filter(group_id=group).order_by("-version").first()
    return (0, NOTHING) if newest is None else (newest.version, newest.content())


def reference_values(baseline: Baseline, entry: BaselineEntry | None = None) -> ReferenceValues:
    """Return a baseline with its events, replayed anew from the log that it was captured with."""
    return ReferenceValues(
        id=str(baseline.id),
        name=baseline.name,
        bank=baseline.bank,
        pcrs=baseline.rules(),
        events=baseline_log(baseline),
        platform=baseline.platform,
        accepted_from=entry.accepted_from if entry is not None else None,
        accepted_until=entry.accepted_until if entry is not None else None,
    )


def baseline_log(baseline: Baseline) -> tuple[VerifiedEvent, ...]:
    """Return the events that explain a baseline; none for one that was uploaded without a log."""
    if baseline.event_log is None:
        return ()
    values = _bytes(baseline.explained_pcrs)
    return replay(parse_event_log(bytes(baseline.event_log.content)), quoted=values, bank=baseline.bank)


def _bytes(pcrs: Mapping[str, str]) -> dict[int, bytes]:
    return {int(pcr): bytes.fromhex(value) for pcr, value in pcrs.items()}


@lru_cache(maxsize=16)
def runtime_rules(policy_id: str) -> RuntimeRules:
    """Return a runtime policy, read once in a process. Raises `DoesNotExist`: a version that names it is broken."""
    row = RuntimePolicy.objects.select_related("content").get(pk=policy_id)
    signers = tuple(parse_signer(bytes.fromhex(der)) for der in row.signers)
    return parse_runtime_text(bytes(row.content.content), excludes=row.excludes, signers=signers)


@lru_cache(maxsize=256)
def _is_supplemental(policy_id: str) -> bool:
    """Return whether a code integrity policy only adds to another, read from its file once in a process."""
    row = CodeIntegrityPolicy.objects.select_related("content").get(pk=policy_id)
    return parse_ci_policy(bytes(row.content.content)).supplemental


def _code_policies(ids: tuple[str, ...]) -> tuple[CodePolicy, ...]:
    """Return what the checks need of code integrity policies; a SHA-1 is no policy's (`is_measured_as`)."""
    rows = CodeIntegrityPolicy.objects.in_bulk([UUID(each) for each in ids])
    return tuple(
        CodePolicy(
            name=row.name,
            digests=frozenset(f"{name}:{digest}" for name, digest in row.digests.items() if name != "sha1"),
            audits=row.audits,
            trivial=tuple(row.trivial),
            supplemental=_is_supplemental(str(row.id)),
        )
        for row in rows.values()
    )
