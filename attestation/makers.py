"""What pages show of the makers of TPMs: their authorities, the hosts that rest on them, what a switch would do."""

import copy
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Count, Max, Min, Q, QuerySet

from attestation.authorities import BundleLine, authorities_of, hosts_touched, rests_on
from attestation.core.assessment import Outcome
from attestation.core.authority import Authority
from attestation.core.bundle import read_bundle
from attestation.core.certificate_reader import Tolerance, issuer_address, read_certificate
from attestation.core.endorsement import chain_above
from attestation.core.makers import usual_tolerances
from attestation.endorsements import ALIVE, Trust, judge_again
from attestation.errors import NotFound, Refusal
from attestation.models import Attester, AuthorityBundle, EndorsementAuthority, Vendor


@dataclass(frozen=True, slots=True)
class MakerLine:
    """One maker, its authorities counted as attributes of `vendor`, how many hosts rest on them, what lacks an issuer.

    An orphan names an issuer that is not here or does not count, so that it vouches for nothing.
    """

    vendor: Vendor
    hosts: int
    orphans: int


@dataclass(frozen=True, slots=True)
class VerdictChange:
    """A host whose EK certificate would be judged otherwise, and how."""

    host: Attester
    verdict: str
    detail: str


@dataclass(frozen=True, slots=True)
class TrustEffect:
    """What a switch would do to the verdicts on EK certificates; `resting` hosts have a chain through it today."""

    changed: tuple[VerdictChange, ...]
    resting: int

    @property
    def waiting(self) -> int:
        return sum(each.host.state == Attester.State.PENDING for each in self.changed)

    @property
    def approved(self) -> int:
        return len(self.changed) - self.waiting


@dataclass(frozen=True, slots=True)
class AuthorityChain:
    """The authorities above one, its root last; or why there is no chain, and where the missing issuer should be."""

    links: tuple[EndorsementAuthority, ...]
    problem: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class MissingMaker:
    """Why hosts have an EK certificate that nobody trusted vouches for, in one sentence, and which hosts."""

    sentence: str
    hosts: tuple[Attester, ...]


@dataclass(frozen=True, slots=True)
class MakerException:
    """One exception beside one maker: allowed or not, and how many authorities and hosts need it."""

    tolerance: Tolerance
    allowed: bool
    usual: bool
    authorities: int
    hosts: int


@dataclass(frozen=True, slots=True)
class MakerTally:
    """What a bundle holds of one maker."""

    maker: str
    added: int
    known: int
    refused: int


def makers(*, now: datetime) -> list[MakerLine]:
    """Return every maker with its authorities that count, the first of them to end, and its hosts."""
    on = Q(authorities__enabled=True)
    rows = Vendor.objects.annotate(
        roots=Count("authorities", filter=on & Q(authorities__kind="root")),
        intermediates=Count("authorities", filter=on & Q(authorities__kind="intermediate")),
        off=Count("authorities", filter=Q(authorities__enabled=False)),
        expired=Count("authorities", filter=on & Q(authorities__not_after__lt=now)),
        ends=Min("authorities__not_after", filter=on & Q(authorities__not_after__gte=now)),
        newest=Max("authorities__added_at"),
    )
    owner = dict(EndorsementAuthority.objects.values_list("fingerprint", "vendor_id"))
    hosts = Counter(pk for chain in _chains() for pk in {owner.get(fingerprint) for fingerprint in chain})
    orphans = Counter(owner[fingerprint] for fingerprint in without_issuer(_counting().only("kind", "issuer_key")))
    return [MakerLine(row, hosts[row.pk], orphans[row.pk]) for row in rows]


def without_issuer(rows: Iterable[EndorsementAuthority]) -> set[str]:
    """Return the fingerprints of those whose issuer, by its name, is not among the authorities that count."""
    below = {row.pk: row.issuer_key for row in rows if row.kind != EndorsementAuthority.Kind.ROOT}
    there = set(_counting().values_list("subject_key", flat=True))
    return {fingerprint for fingerprint, issuer in below.items() if issuer not in there}


def maker(vendor_id: int) -> Vendor:
    found = Vendor.objects.filter(pk=vendor_id).first()
    if found is None:
        raise NotFound("There is no such maker.")
    return found


def maker_authorities(vendor: Vendor, *, query: str = "") -> QuerySet[EndorsementAuthority]:
    """Return a maker's authorities, roots first; searched by name or fingerprint."""
    found = vendor.authorities.select_related("bundle", "vendor").defer("bundle__report", "bundle__content")
    if not query:
        return found
    digest = query.lower().replace(":", "")
    return found.filter(Q(title__icontains=query) | Q(name__icontains=query) | Q(fingerprint__startswith=digest))


def authority(fingerprint: str) -> EndorsementAuthority:
    rows = EndorsementAuthority.objects.select_related("bundle", "vendor").defer("bundle__report", "bundle__content")
    found = rows.filter(pk=fingerprint).first()
    if found is None:
        raise NotFound("There is no such authority.")
    return found


def hosts_per_authority(hosts: Iterable[Attester]) -> Counter[str]:
    """Return how many of these hosts have a verified chain through each authority."""
    return Counter(fingerprint for host in hosts for fingerprint in host.endorsement.get("chain", ()))


def hosts_resting_on(fingerprints: Collection[str]) -> list[Attester]:
    """Return the hosts whose verified chains go through one of these authorities."""
    return [host for host in _endorsed() if rests_on(host, fingerprints)]


def hosts_of_maker(vendor: Vendor) -> list[Attester]:
    """Return the hosts whose verified chains go through any authority of this maker."""
    return hosts_resting_on(authorities_of(vendor))


def endorsers(host: Attester) -> list[EndorsementAuthority]:
    """Return the authorities above a host's EK certificate, its root last, as they were when it was judged."""
    chain = host.endorsement.get("chain", ())
    rows = EndorsementAuthority.objects.select_related("vendor").defer("certificate").in_bulk(chain) if chain else {}
    return [rows[fingerprint] for fingerprint in chain if fingerprint in rows]


def missing_makers() -> list[MissingMaker]:
    """Return why hosts that brought an EK certificate have no trusted maker, what most of them miss first."""
    missing: defaultdict[str, list[Attester]] = defaultdict(list)
    rows = Attester.objects.filter(state__in=ALIVE, ek_verdict=Attester.Endorsement.UNTRUSTED)
    for host in rows.only("name", "state", "ek_detail"):
        missing[host.ek_detail].append(host)
    found = (MissingMaker(sentence, tuple(hosts)) for sentence, hosts in missing.items())
    return sorted(found, key=lambda each: (-len(each.hosts), each.sentence))


def exceptions_of(vendor: Vendor, hosts: Iterable[Attester]) -> list[MakerException]:
    """Return every exception there is, whether this maker has it, and what of the maker's needs it."""
    rows = vendor.authorities.values_list("tolerances", flat=True)
    authorities = Counter(word for words in rows for word in words)
    resting = Counter(word for host in hosts for word in host.endorsement.get("tolerances", ()))
    allowed, usual = vendor.tolerated(), usual_tolerances(vendor.name)
    return [
        MakerException(each, each in allowed, each in usual, authorities[each.value], resting[each.value])
        for each in Tolerance
    ]


def chain_of(row: EndorsementAuthority, *, now: datetime) -> AuthorityChain:
    """Climb from an authority to its root under what is in force, or say where and why the climb ends."""
    read = read_certificate(bytes(row.certificate))
    trusted = Authority(read, row.vendor.tolerated())
    try:
        above = chain_above(trusted, authorities=Trust().above(read.certificate), now=now)
    except Refusal as refusal:
        return AuthorityChain((), str(refusal), issuer_address(read.certificate))
    rows = EndorsementAuthority.objects.select_related("vendor").in_bulk([each.read.fingerprint for each in above])
    return AuthorityChain(tuple(rows[each.read.fingerprint] for each in above))


def issued_by(row: EndorsementAuthority) -> QuerySet[EndorsementAuthority]:
    """Return the authorities that name this one as their issuer."""
    return EndorsementAuthority.objects.filter(issuer_key=row.subject_key).exclude(pk=row.pk)


def effect_of_maker(vendor: Vendor, *, enabled: bool, now: datetime) -> TrustEffect:
    """Say what switching a maker would do to the hosts, by judging each of them under it."""
    then = copy.copy(vendor)
    then.enabled = enabled
    return _effect(authorities_of(vendor), Trust(vendor=then), now)


def effect_of_exceptions(vendor: Vendor, exceptions: Collection[Tolerance], *, now: datetime) -> TrustEffect:
    """Say what another set of exceptions would do to the hosts."""
    then = copy.copy(vendor)
    then.tolerances = sorted(exceptions)
    return _effect(authorities_of(vendor), Trust(vendor=then), now)


def effect_of_authority(row: EndorsementAuthority, *, enabled: bool, now: datetime) -> TrustEffect:
    """Say what switching one authority would do to the hosts."""
    then = copy.copy(row)
    then.enabled = enabled
    return _effect({row.pk}, Trust(authority=then), now)


def effect_of_bundle(found: AuthorityBundle, *, now: datetime) -> TrustEffect:
    """Say what an import would do to the hosts, if every maker of the file were chosen."""
    if not hosts_touched(()):
        return TrustEffect((), 0)
    return _effect(set(), Trust(added=_would_count(found)), now)


def _would_count(found: AuthorityBundle) -> Iterator[Authority]:
    """Read again what a file would add; its report has a line for each candidate, in their order."""
    vendors = {vendor.name: vendor for vendor in Vendor.objects.all()}
    for line, candidate in zip(bundle_report(found), read_bundle(bytes(found.content)).candidates, strict=False):
        vendor = vendors.get(line.maker)
        if line.outcome == Outcome.ADDED and (vendor is None or vendor.enabled):
            tolerated = vendor.tolerated() if vendor else usual_tolerances(line.maker)
            yield Authority(read_certificate(candidate.der), tolerated)


def authority_bundle(bundle_id: UUID) -> AuthorityBundle:
    found = AuthorityBundle.objects.filter(pk=bundle_id).first()
    if found is None:
        raise NotFound("This file is kept no more. Upload it again.")
    return found


def authority_bundles() -> QuerySet[AuthorityBundle]:
    """Return the files that were imported, the newest first."""
    return AuthorityBundle.objects.exclude(imported_at=None).defer("content", "report").order_by("-imported_at")


def bundle_report(found: AuthorityBundle) -> list[BundleLine]:
    """Say of every certificate of a file what became of it, or, before the import, what would."""
    return [BundleLine(**line) for line in found.report]


def bundle_tallies(lines: Iterable[BundleLine]) -> list[MakerTally]:
    """Count a report by maker; what nobody could read has no maker and comes last."""
    counts = Counter((line.maker, line.outcome) for line in lines)
    names = sorted({name for name, _ in counts}, key=lambda name: (not name, name))
    return [MakerTally(name, counts[name, "added"], counts[name, "known"], counts[name, "refused"]) for name in names]


def _counting() -> QuerySet[EndorsementAuthority]:
    return EndorsementAuthority.objects.filter(enabled=True, vendor__enabled=True)


def _endorsed() -> QuerySet[Attester]:
    hosts = Attester.objects.filter(state__in=ALIVE, ek_verdict=Attester.Endorsement.TRUSTED)
    return hosts.only("name", "state", "endorsement")


def _chains() -> Iterable[Collection[str]]:
    return [host.endorsement.get("chain", ()) for host in _endorsed()]


def _effect(fingerprints: set[str], then: Trust, now: datetime) -> TrustEffect:
    hosts = hosts_touched(fingerprints)
    verdicts = [(host, judge_again(host, trust=then, now=now)) for host in hosts]
    changed = tuple(
        VerdictChange(host, verdict.verdict, verdict.detail)
        for host, verdict in verdicts
        if verdict.verdict != host.ek_verdict
    )
    return TrustEffect(changed, sum(rests_on(host, fingerprints) for host in hosts))
