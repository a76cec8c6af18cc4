"""Components: measured events that some host had and no baseline knew, since when, and what people say they are.

What a person says about a digest is for people: no verdict rests on it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet

from attestation.acts import record, require
from attestation.comparison import Comparison
from attestation.core.checks import BASELINE
from attestation.core.difference import Difference
from attestation.errors import NotFound
from attestation.models import Attestation, Attester, Component, Mode
from ledger.statements import New

MOST = 40


@dataclass(frozen=True, slots=True)
class Known:
    """A component, and the hosts that have it now and do not pass."""

    component: Component
    hosts: tuple[Attester, ...]


def remember(host: Attester, attestation: Attestation, before: Attestation | None) -> list[New]:
    """Return the rows for what an approved host's failing attestation shows and the one before it did not.

    They are written with the attestation; a digest that is known already stays as it was first seen.
    """
    if host.state != Attester.State.APPROVED or attestation.status == "Passed":
        return []
    if before is None or before.status == "UnauthorizedHost":  # what a waiting host showed was not remembered
        shown = set[str]()
    else:
        shown = {each["seen"] for each in deviations(before.findings)}
    fresh = {each["seen"]: each for each in deviations(attestation.findings) if each["seen"] not in shown}
    return [
        New(
            Component(
                digest=digest,
                pcr=each["pcr"],
                name=each["name"][:120],
                text=each["text"],
                proved=each["proved"],
                first_seen_at=attestation.at,
                first_seen_on_id=host.pk,
            ),
            "keep",
        )
        for digest, each in list(fresh.items())[:MOST]
        if digest
    ]


def deviations(findings: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield what differs from the baseline in findings as they are stored."""
    for finding in findings:
        if finding.get("check") == BASELINE:
            yield from finding.get("deviations", ())


def failing_hosts() -> QuerySet[Attester]:
    """Return the approved hosts whose newest attestation failed, with it."""
    found = Attester.objects.filter(state=Attester.State.APPROVED, mode=Mode.TPM, latest__isnull=False)
    found = found.exclude(status="Passed")
    return found.select_related("latest", "group").defer("latest__evidence")


def hosts_with(digests: Iterable[str]) -> dict[str, list[Attester]]:
    """Return, for each digest, the hosts that do not pass and in whose newest attestation it deviates."""
    wanted = set(digests)
    found: defaultdict[str, list[Attester]] = defaultdict(list)
    for host in failing_hosts() if wanted else ():
        shown = {each["seen"] for each in deviations(host.latest.findings if host.latest else ())}
        for digest in shown & wanted:
            found[digest].append(host)
    return dict(found)


def known(digests: Iterable[str]) -> dict[str, Known]:
    """Return what is known of these digests; nothing for those that never deviated."""
    wanted = list(set(digests))
    rows = Component.objects.select_related("first_seen_on").in_bulk(wanted) if wanted else {}
    hosts = hosts_with(rows)
    return {digest: Known(row, tuple(hosts.get(digest, ()))) for digest, row in rows.items()}


def known_in(comparison: Comparison | None) -> dict[str, Known]:
    """Return what is known of the events that differ from a baseline."""
    groups = () if comparison is None else comparison.differing
    rows = (row for group in groups for row in group.rows if isinstance(row, Difference))
    return known(row.measured.digest.hex() for row in rows if row.measured is not None)


def component(digest: str) -> Known:
    found = known([digest]).get(digest)
    if found is None:
        raise NotFound("No host has shown this digest, so there is nothing to say about it.")
    return found


def vouch(digest: str, package: str, *, by: User, reason: str, now: datetime) -> None:
    """Say what a digest is: a package and its version. Whoever decides about changes answers for it."""
    require(by, "attestation.decide")
    with transaction.atomic():
        named = Component.objects.filter(pk=digest)
        if named.update(package=package, vouched_by=by.get_username(), vouched_at=now) != 1:
            raise NotFound("No host has shown this digest, so there is nothing to say about it.")
        detail = {"name": package, "digest": digest, "reason": reason}
        record(by, "component.vouched", f"component:{digest}", detail, now)
