"""What EK certificates prove under the authorities in force, judged when a host enrols and whenever these change."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime

from cryptography import x509

from attestation.core.authority import Authority
from attestation.core.certificate_reader import name_key, parse_certificate, read_certificate
from attestation.core.endorsement import LONGEST_CHAIN, Endorsement, verify_endorsement
from attestation.core.tpm import TpmPublic, parse_public
from attestation.errors import EndorsementRefused, EndorsementUntrusted, ParseError
from attestation.models import Attester, EndorsementAuthority, Vendor
from ledger import service as ledger

ALIVE = (Attester.State.PENDING, Attester.State.APPROVED)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the EK certificate proves, and the certificate's own words when it proves something."""

    verdict: str
    detail: str
    endorsement: dict[str, object]


class Trust:
    """The authorities in force, read by name as chains need them; one is for judgements that belong together.

    With a `vendor` or an `authority` it answers as if that row were saved as it is given: what a switch would do.
    With `added` ones it answers as if these counted too: what an import would do.
    """

    def __init__(
        self,
        *,
        vendor: Vendor | None = None,
        authority: EndorsementAuthority | None = None,
        added: Iterable[Authority] = (),
    ) -> None:
        self._vendor = vendor
        self._authority = authority
        self._added: defaultdict[str, list[Authority]] = defaultdict(list)
        for each in added:
            self._added[name_key(each.certificate.subject)].append(each)
        self._by_name: dict[str, list[Authority]] = {}

    def above(self, certificate: x509.Certificate) -> list[Authority]:
        """Return every authority that the names leave as part of a chain above this certificate."""
        found: list[Authority] = []
        wanted, asked = {name_key(certificate.issuer)}, set[str]()
        for _ in range(LONGEST_CHAIN):
            self._read(wanted - self._by_name.keys())
            level = [authority for name in sorted(wanted) for authority in self._by_name[name]]
            found += level
            asked |= wanted
            wanted = {name_key(authority.certificate.issuer) for authority in level} - asked
        return found

    def _read(self, names: Iterable[str]) -> None:
        missing = list(names)
        self._by_name.update((name, self._added[name][:]) for name in missing)
        rows = EndorsementAuthority.objects.filter(subject_key__in=missing).select_related("vendor") if missing else []
        for row in rows:
            entry = self._authority if self._authority and self._authority.pk == row.pk else row
            vendor = self._vendor if self._vendor and self._vendor.pk == row.vendor_id else row.vendor
            if entry.enabled and vendor.enabled:
                read = read_certificate(bytes(row.certificate))
                self._by_name[row.subject_key].append(Authority(read, vendor.tolerated()))


def judge_endorsement(ek: TpmPublic, certificate: bytes | None, *, trust: Trust, now: datetime) -> Verdict:
    """Say what the EK certificate proves today. Raises `EndorsementRefused` for one that is wrong in itself."""
    if certificate is None:
        return Verdict(
            Attester.Endorsement.ABSENT,
            "This TPM brought no EK certificate: nothing says who made it. An approver has to accept it by name.",
            {},
        )
    authorities = trust.above(parse_certificate(certificate))
    try:
        endorsement = verify_endorsement(certificate, ek, authorities=authorities, now=now)
    except EndorsementUntrusted as untrusted:
        return Verdict(Attester.Endorsement.UNTRUSTED, str(untrusted), {})
    return Verdict(
        Attester.Endorsement.TRUSTED, f"Issued by {endorsement.issuer}, chain verified.", _facts(endorsement)
    )


def judge_again(attester: Attester, *, trust: Trust, now: datetime) -> Verdict:
    """Judge the EK certificate of a host that enrolled with it. What was right then may be refused today."""
    certificate = None if attester.ek_certificate is None else bytes(attester.ek_certificate)
    try:
        return judge_endorsement(parse_public(bytes(attester.ek_public)), certificate, trust=trust, now=now)
    except (EndorsementRefused, ParseError) as refusal:
        return Verdict(Attester.Endorsement.REFUSED, str(refusal), {})


def refresh_endorsement(attester: Attester, *, trust: Trust, by: str, now: datetime) -> bool:
    """Judge a host's EK certificate again and save what came out, in the caller's transaction.

    A verdict that changed gets a leaf, and True is returned. A host that is approved stays so: taking its approval
    back is for people.
    """
    verdict = judge_again(attester, trust=trust, now=now)
    before = attester.ek_verdict
    attester.ek_verdict, attester.ek_detail = verdict.verdict, verdict.detail
    attester.endorsement = verdict.endorsement
    attester.save(update_fields=["ek_verdict", "ek_detail", "endorsement"])
    if verdict.verdict == before:
        return False
    detail: dict[str, object] = {
        "name": attester.name,
        "before": before,
        "verdict": verdict.verdict,
        "state": attester.state,
        "why": verdict.detail,
    }
    ledger.record(actor=by, act="host.endorsement_changed", subject=attester.subject, detail=detail, now=now)
    return True


def _facts(endorsement: Endorsement) -> dict[str, object]:
    facts = asdict(endorsement) | {"root_fingerprint": endorsement.root_fingerprint}
    return {key: list(value) if isinstance(value, tuple) else str(value) for key, value in facts.items()}
