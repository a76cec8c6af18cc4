"""A second look at what the ledger says: is the verdict that an entry names the one that its grounds give?

Pure, and for whoever audits: it takes an entry's digests and what they stand for, and says in sentences what differs.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from cryptography import x509

from attestation.core.certificate import HealthCertificate, verify_health_certificate
from attestation.core.certificate_reader import parse_certificate
from attestation.core.dossier import Again, Dossier, differences, judge_again, parse_dossier
from attestation.errors import NotKept, Refusal
from ledger.core.audit import Grounds

IMA_LIMIT = 128 << 20


@dataclass(frozen=True, slots=True)
class Shelf:
    """What an export carries: `load` gives what a digest stands for, `parts` the parts of a dossier's IMA list."""

    load: Callable[[str], bytes]
    parts: Callable[[str], Sequence[tuple[int, str]]]
    signers: Sequence[x509.Certificate]


@dataclass(frozen=True, slots=True)
class Look:
    """What a second look at one dossier came to: the verdict again, or why there is none, and what differs."""

    dossier: Dossier | None
    again: Again | None
    problems: tuple[str, ...] = ()
    not_kept: str = ""


class SecondLook:
    """Looks at entries one after another; many rest on one dossier, which is judged once."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._digest, self._look = "", Look(None, None)
        self._certificate: tuple[str, HealthCertificate] | None = None

    def at(self, grounds: Grounds) -> Look:
        """Return what an entry's grounds come to; the entries are best asked about in the order of their dossiers."""
        if grounds.evidence != self._digest:
            self._digest, self._look = grounds.evidence, self._judged(grounds.evidence)
        look = self._look
        if look.dossier is None:
            return look
        problems = [*look.problems, *_said(grounds, look.dossier)]
        try:
            problems += self._certified(grounds, look.dossier, look.again)
        except NotKept as refusal:
            return Look(look.dossier, look.again, tuple(problems), str(refusal))
        except Refusal as refusal:
            problems.append(f"The certificate: {refusal}")
        return Look(look.dossier, look.again, tuple(problems), look.not_kept)

    def _judged(self, digest: str) -> Look:
        try:
            dossier = parse_dossier(self._shelf.load(digest))
        except NotKept as refusal:
            return Look(None, None, (), str(refusal))
        except Refusal as refusal:
            return Look(None, None, (str(refusal),))
        try:
            again = judge_again(dossier, self._shelf.load, ima_list=self._list(digest, dossier))
        except NotKept as refusal:
            return Look(dossier, None, (), str(refusal))
        except Refusal as refusal:
            return Look(dossier, None, (f"The evidence does not hold: {refusal} ({refusal.code})",))
        return Look(dossier, again, differences(dossier, again))

    def _list(self, digest: str, dossier: Dossier) -> bytes | None:
        """Put the list of that boot together; only where it ends does anybody vouch for it, and there the TPM does."""
        if dossier.ima_end is None:
            return None
        whole = bytearray()
        for begins, part in self._shelf.parts(digest):
            if begins > len(whole) or begins + len(content := self._shelf.load(part)) > IMA_LIMIT:
                raise NotKept("The parts of the host's IMA list do not make a whole.")
            whole[begins:] = content
        return bytes(whole[: dossier.ima_end]) if len(whole) >= dossier.ima_end else None

    def _certified(self, grounds: Grounds, dossier: Dossier, again: Again | None) -> Sequence[str]:
        if not grounds.certificate:
            return ()
        if self._certificate is None or self._certificate[0] != grounds.certificate:
            der = self._shelf.load(grounds.certificate)
            verified = verify_health_certificate(der, signers=self._shelf.signers, now=dossier.at)
            self._certificate = (grounds.certificate, verified)
        return tuple(_differing(grounds, dossier, again, self._certificate[1]))


def _differing(
    grounds: Grounds, dossier: Dossier, again: Again | None, certificate: HealthCertificate
) -> Sequence[str]:
    pairs = [
        ("host", certificate.claims.attester_id, dossier.host),
        ("mode", certificate.claims.mode, dossier.mode),
        ("serial number", certificate.serial, grounds.serial or certificate.serial),
    ]
    found = [f"The certificate names the {what} {said}, and it is {is_}." for what, said, is_ in pairs if said != is_]
    if again is not None and again.transport_spki not in (None, certificate.transport_spki):
        found.append("The certificate is for another key than the one that the evidence proves.")
    # A key that is refused may be asked for with a certificate that has ended.
    if grounds.act == "key.released" and not certificate.not_before <= grounds.at < certificate.not_after:
        found.append("The certificate was not valid when the key was released.")
    if dossier.status != "Passed":
        found.append(f"A certificate rests on a verdict that is no pass, but {dossier.status}.")
    return found


def _said(grounds: Grounds, dossier: Dossier) -> Sequence[str]:
    """Hold what the entry says in words against what its dossier says."""
    pairs = [
        ("host", grounds.host, dossier.host),
        ("policy", grounds.policy, dossier.policy),
        ("policy's version", str(grounds.version), str(dossier.version)),
        ("status", grounds.status or dossier.status, dossier.status),
    ]
    return [
        f"The entry names the {what} {said}, and its grounds are of {is_}." for what, said, is_ in pairs if said != is_
    ]


@dataclass(slots=True)
class Tally:
    """How many verdicts were come to again, how many on waiting hosts cannot be, and by entry what is wrong."""

    judged: int = 0
    not_kept: int = 0
    problems: list[tuple[Grounds, str]] = field(default_factory=list)


def look_at_all(grounds: Iterable[Grounds], shelf: Shelf) -> Tally:
    """Look again at everything that entries rest on."""
    look, tally, before = SecondLook(shelf), Tally(), ""
    for each in sorted(grounds, key=lambda each: (each.evidence, each.index)):
        seen = look.at(each)
        tally.problems += [(each, problem) for problem in seen.problems]
        # Of a host that waits for approval not everything is kept, and nobody gets anything by its verdicts.
        waits = seen.dossier is not None and not seen.dossier.approved and not each.certificate
        if seen.not_kept and not waits:
            tally.problems.append((each, f"It cannot be judged again: {seen.not_kept}"))
        if each.evidence != before:
            tally.judged += not seen.not_kept
            tally.not_kept += bool(seen.not_kept) and waits
        before = each.evidence
    return tally


def parse_signers(contents: Sequence[bytes]) -> tuple[x509.Certificate, ...]:
    """Read the certificates that health certificates are signed with. Raises `ParseError`."""
    return tuple(map(parse_certificate, contents))
