"""What importing a bundle would do, certificate by certificate, before anything is done."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from attestation.core.authority import Authority, Reason, is_root, why_unfit
from attestation.core.bundle import Bundle, Candidate
from attestation.core.certificate_reader import (
    ReadCertificate,
    Tolerance,
    certificate_names,
    issuer_address,
    name_key,
    read_certificate,
    short_name,
)
from attestation.core.makers import called_root, maker_of, usual_tolerances
from attestation.errors import ParseError


class Outcome(StrEnum):
    """What becomes of a certificate. The values are stable."""

    ADDED = "added"
    KNOWN = "known"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Assessed:
    """One certificate of a bundle: what becomes of it and why. What could not be read has no `read` and no maker."""

    path: str
    maker: str
    title: str
    outcome: Outcome
    reason: str = ""
    sentence: str = ""
    read: ReadCertificate | None = None


def assess_bundle(
    bundle: Bundle,
    *,
    tolerated: Mapping[str, frozenset[Tolerance]],
    known: Collection[str],
    names: Collection[str],
    now: datetime,
) -> tuple[Assessed, ...]:
    """Say of every candidate whether it becomes a trusted authority.

    `tolerated` has the exceptions of the makers that have a row already, `known` the fingerprints and `names` the
    subjects' keys of the authorities that are there. A certificate that cannot be added hinders no other.
    """
    seen = set(known)
    found = [_assess(candidate, tolerated, seen, now) for candidate in bundle.candidates]
    new = (each.read.certificate.subject for each in found if each.read and each.outcome is Outcome.ADDED)
    there = {*names, *map(name_key, new)}
    return tuple(_remarked(each, there) for each in found)


def _assess(
    candidate: Candidate, tolerated: Mapping[str, frozenset[Tolerance]], seen: set[str], now: datetime
) -> Assessed:
    file = candidate.path.replace("\\", "/").rpartition("/")[2]
    try:
        if candidate.problem:
            raise ParseError(candidate.problem)
        read = read_certificate(candidate.der)
    except ParseError as error:
        return Assessed(candidate.path, "", file, Outcome.REFUSED, Reason.UNREADABLE, str(error))
    maker, title = maker_of(read.certificate, candidate.path), short_name(read.certificate)
    if read.fingerprint in seen:
        return Assessed(candidate.path, maker, title, Outcome.KNOWN, read=read)
    authority = Authority(read, tolerated.get(maker, usual_tolerances(maker)))
    if unfit := why_unfit(authority, below=0, now=now):
        return Assessed(candidate.path, maker, title, Outcome.REFUSED, unfit.reason, unfit.sentence, read)
    seen.add(read.fingerprint)
    return Assessed(candidate.path, maker, title, Outcome.ADDED, read=read)


def _remarked(assessed: Assessed, names: Collection[str]) -> Assessed:
    """Add to what is added what a person should know about it."""
    if assessed.read is None or assessed.outcome is not Outcome.ADDED:
        return assessed
    return replace(assessed, sentence=" ".join(_remarks(assessed.read, assessed.path, names)))


def _remarks(read: ReadCertificate, path: str, names: Collection[str]) -> Iterator[str]:
    if read.tolerances:
        yield f"It needs an exception: {', '.join(sorted(read.tolerances))}."
    if is_root(read.certificate):
        return
    _, issuer = certificate_names(read.certificate)
    if called_root(path):
        yield f"The file calls it a root; it is issued by “{issuer}”."
    if name_key(read.certificate.issuer) not in names:
        address = issuer_address(read.certificate)
        where = f", which should be at {address}" if address else ""
        yield f"It vouches for nothing until its issuer “{issuer}” is trusted too{where}."
