"""Which makers of TPMs this fabric trusts: bundles looked into and imported, makers and authorities switched.

Nothing here fetches anything, and nothing ends a host's approval: what changes is what EK certificates prove. Hosts
that wait for a person are then approved or not by that; on approved ones it shows, with an entry in the ledger.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction

from attestation.acts import queue, record, require
from attestation.core.assessment import Assessed, Outcome, assess_bundle
from attestation.core.authority import Reason, is_root
from attestation.core.bundle import read_bundle
from attestation.core.certificate_reader import ReadCertificate, Tolerance, certificate_names, name_key, plain
from attestation.core.makers import usual_tolerances
from attestation.endorsements import ALIVE, Trust, refresh_endorsement
from attestation.errors import AlreadyDecided, DraftMoved, NotFound
from attestation.models import Attester, AuthorityBundle, EndorsementAuthority, Vendor
from ledger import service as ledger

PERMISSION: Final = "attestation.trust_maker"
KEPT_WAITING: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class BundleLine:
    """One certificate in the report of an import, which is kept for good."""

    path: str
    maker: str
    title: str
    outcome: str
    reason: str
    sentence: str
    fingerprint: str


def assess(content: bytes, *, now: datetime) -> tuple[Assessed, ...]:
    """Say what importing this file would do, certificate by certificate; raises ParseError for no bundle at all."""
    return assess_bundle(
        read_bundle(content),
        tolerated={vendor.name: vendor.tolerated() for vendor in Vendor.objects.all()},
        known=set(EndorsementAuthority.objects.values_list("fingerprint", flat=True)),
        names=set(EndorsementAuthority.objects.values_list("subject_key", flat=True)),
        now=now,
    )


def upload_bundle(content: bytes, *, file_name: str, by: User, now: datetime) -> AuthorityBundle:
    """Keep a file for a day, so that people see what it would change; nothing is trusted by it yet."""
    require(by, PERMISSION)
    report = _reported(assess(content, now=now))
    waiting = AuthorityBundle.objects.filter(imported_at=None)
    with transaction.atomic():
        waiting.filter(uploaded_by=by.get_username()).delete()
        waiting.filter(uploaded_at__lt=now - KEPT_WAITING).delete()
        return AuthorityBundle.objects.create(
            file_name=plain(file_name, limit=200),
            file_sha256=hashlib.sha256(content).hexdigest(),
            content=content,
            uploaded_by=by.get_username(),
            uploaded_at=now,
            report=report,
        )


def import_bundle(bundle_id: UUID, *, makers: Collection[str], by: User, reason: str, now: datetime) -> AuthorityBundle:
    """Trust what an uploaded file holds of the makers that were chosen, once; `reason` says where it comes from.

    People have seen what it would do. When it would do something else by now, that is kept to be looked at instead.
    """
    require(by, PERMISSION)
    with transaction.atomic():
        queue()
        bundle = AuthorityBundle.objects.filter(pk=bundle_id, imported_at=None).first()
        if bundle is None:
            raise AlreadyDecided("This file was imported already, or is kept no more. Upload it again.")
        assessed = assess(bytes(bundle.content), now=now)
        moved = bundle.report != _reported(assessed)
        if moved:
            bundle.report = _reported(assessed)
            bundle.save(update_fields=["report"])
        else:
            _take(bundle, [_chosen(each, makers) for each in assessed], by=by, reason=reason, now=now)
    if moved:
        raise DraftMoved("What this file would do has changed since it was shown. Look at it again.")
    return bundle


def _take(bundle: AuthorityBundle, chosen: Collection[Assessed], *, by: User, reason: str, now: datetime) -> None:
    bundle.imported_at, bundle.imported_by, bundle.provenance = now, by.get_username(), reason
    bundle.report, bundle.content = _reported(chosen), b""
    bundle.save(update_fields=["imported_at", "imported_by", "provenance", "report", "content"])
    _trust(chosen, bundle, by=_actor(by), now=now)


def trust_authority(
    content: bytes, *, provenance: str, by: str, now: datetime, file_name: str = ""
) -> tuple[Assessed, ...]:
    """Trust every authority of a file without looking first, for those who have the node's console.

    `by` is an actor of the ledger. Raises ParseError for no bundle at all; what is refused of one is told.
    """
    with transaction.atomic():
        queue()
        assessed = assess(content, now=now)
        bundle = AuthorityBundle.objects.create(
            file_name=plain(file_name, limit=200),
            file_sha256=hashlib.sha256(content).hexdigest(),
            content=b"",
            uploaded_by=by,
            uploaded_at=now,
            imported_by=by,
            imported_at=now,
            provenance=provenance,
            report=_reported(assessed),
        )
        _trust(assessed, bundle, by=by, now=now)
    return assessed


def switch_maker(vendor_id: int, *, enabled: bool, by: User, reason: str, now: datetime) -> int:
    """Let a maker's authorities count, or count no more; return how many hosts' verdicts changed by it."""
    require(by, PERMISSION)
    with transaction.atomic():
        queue()
        if Vendor.objects.filter(pk=vendor_id, enabled=not enabled).update(enabled=enabled) != 1:
            raise AlreadyDecided("There is no such maker, or it is switched like that already.")
        vendor = Vendor.objects.get(pk=vendor_id)
        detail: dict[str, object] = {"name": vendor.name, "reason": reason}
        record(by, "maker.enabled" if enabled else "maker.disabled", vendor.subject, detail, now)
        return _judge_again(authorities_of(vendor), by=_actor(by), now=now)


def set_exceptions(vendor_id: int, exceptions: Collection[Tolerance], *, by: User, reason: str, now: datetime) -> int:
    """Say which malformations are forgiven in a maker's certificates; return how many hosts' verdicts changed."""
    require(by, PERMISSION)
    with transaction.atomic():
        queue()
        vendor = Vendor.objects.select_for_update().filter(pk=vendor_id).first()
        if vendor is None:
            raise NotFound("There is no such maker.")
        before, vendor.tolerances = vendor.tolerances, sorted(exceptions)
        vendor.save(update_fields=["tolerances"])
        detail = {"name": vendor.name, "before": before, "exceptions": vendor.tolerances, "reason": reason}
        record(by, "maker.exceptions_set", vendor.subject, detail, now)
        return _judge_again(authorities_of(vendor), by=_actor(by), now=now)


def switch_exception(
    vendor_id: int, exception: Tolerance, *, allowed: bool, by: User, reason: str, now: datetime
) -> int:
    """Forgive one malformation in a maker's certificates, or forgive it no more; the others stay as they are."""
    require(by, PERMISSION)
    with transaction.atomic():
        queue()
        vendor = Vendor.objects.filter(pk=vendor_id).first()
        if vendor is None:
            raise NotFound("There is no such maker.")
        if (exception in vendor.tolerated()) == allowed:
            raise AlreadyDecided("This exception is switched like that already.")
        return set_exceptions(vendor_id, vendor.tolerated() ^ {exception}, by=by, reason=reason, now=now)


def switch_authority(fingerprint: str, *, enabled: bool, by: User, reason: str, now: datetime) -> int:
    """Let one authority count, or count no more; return how many hosts' verdicts changed by it."""
    require(by, PERMISSION)
    with transaction.atomic():
        queue()
        rows = EndorsementAuthority.objects.filter(pk=fingerprint, enabled=not enabled)
        if rows.update(enabled=enabled) != 1:
            raise AlreadyDecided("There is no such authority, or it is switched like that already.")
        authority = EndorsementAuthority.objects.get(pk=fingerprint)
        detail: dict[str, object] = {"name": authority.title, "reason": reason}
        record(by, "authority.enabled" if enabled else "authority.disabled", authority.subject, detail, now)
        return _judge_again({fingerprint}, by=_actor(by), now=now)


def authorities_of(vendor: Vendor) -> set[str]:
    return set(vendor.authorities.values_list("fingerprint", flat=True))


def hosts_touched(fingerprints: Collection[str]) -> list[Attester]:
    """Return the hosts whose EK certificates may be judged otherwise when these authorities count otherwise."""
    hosts = Attester.objects.filter(state__in=ALIVE, ek_certificate__isnull=False)
    if not fingerprints:
        hosts = hosts.exclude(ek_verdict=Attester.Endorsement.TRUSTED)
    return [host for host in hosts if host.ek_verdict != Attester.Endorsement.TRUSTED or rests_on(host, fingerprints)]


def rests_on(host: Attester, fingerprints: Collection[str]) -> bool:
    return not set(fingerprints).isdisjoint(host.endorsement.get("chain", ()))


def _judge_again(fingerprints: Collection[str], *, by: str, now: datetime) -> int:
    trust = Trust()
    return sum(refresh_endorsement(host, trust=trust, by=by, now=now) for host in hosts_touched(fingerprints))


def _chosen(assessed: Assessed, makers: Collection[str]) -> Assessed:
    """Leave out what belongs to a maker that was not chosen; everything else stays as it is."""
    if assessed.outcome is not Outcome.ADDED or assessed.maker in makers:
        return assessed
    sentence = f"Certificates of {assessed.maker} were not chosen."
    return replace(assessed, outcome=Outcome.REFUSED, reason=Reason.NOT_CHOSEN, sentence=sentence)


def report_line(assessed: Assessed) -> BundleLine:
    """Return what a report keeps of one certificate."""
    return BundleLine(
        path=assessed.path,
        maker=assessed.maker,
        title=assessed.title,
        outcome=assessed.outcome.value,
        reason=str(assessed.reason),
        sentence=assessed.sentence,
        fingerprint=assessed.read.fingerprint if assessed.read else "",
    )


def _reported(assessed: Iterable[Assessed]) -> list[dict[str, str]]:
    return [asdict(report_line(each)) for each in assessed]


def _trust(assessed: Collection[Assessed], bundle: AuthorityBundle, *, by: str, now: datetime) -> None:
    """Add what is to be added, record all of it in one leaf, and judge again the hosts that this may help."""
    added = [each for each in assessed if each.outcome is Outcome.ADDED]
    wanted = {each.maker for each in added} | {e.maker for e in assessed if e.reason == Reason.NOT_TOLERATED}
    vendors = {name: _vendor(name) for name in sorted(wanted)}
    EndorsementAuthority.objects.bulk_create(
        _row(each.read, each, vendors[each.maker], bundle, by=by, now=now) for each in added if each.read
    )
    by_maker: defaultdict[str, list[str]] = defaultdict(list)
    for each in added:
        by_maker[each.maker].append(each.read.fingerprint if each.read else "")
    detail: dict[str, object] = {
        "file": bundle.file_name or "a file",
        "sha256": bundle.file_sha256,
        "count": len(added),
        "added": by_maker,
        "refused": Counter(each.reason for each in assessed if each.outcome is Outcome.REFUSED),
        "reason": bundle.provenance,
    }
    ledger.record(actor=by, act="authorities.imported", subject=bundle.subject, detail=detail, now=now)
    _judge_again((), by=by, now=now)


def _vendor(name: str) -> Vendor:
    """Return a maker's row; one that is met for the first time gets the exceptions that its real certificates need."""
    return Vendor.objects.get_or_create(name=name, defaults={"tolerances": sorted(usual_tolerances(name))})[0]


def _row(
    read: ReadCertificate, assessed: Assessed, vendor: Vendor, bundle: AuthorityBundle, *, by: str, now: datetime
) -> EndorsementAuthority:
    certificate = read.certificate
    kinds = EndorsementAuthority.Kind
    return EndorsementAuthority(
        fingerprint=read.fingerprint,
        vendor=vendor,
        title=assessed.title,
        name=certificate_names(certificate)[0],
        kind=kinds.ROOT if is_root(certificate) else kinds.INTERMEDIATE,
        certificate=read.der,
        subject_key=name_key(certificate.subject),
        issuer_key=name_key(certificate.issuer),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        tolerances=sorted(read.tolerances),
        bundle=bundle,
        path=assessed.path,
        added_by=by,
        added_at=now,
    )


def _actor(by: User) -> str:
    return f"user:{by.get_username()}"
