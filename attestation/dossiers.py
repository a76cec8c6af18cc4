"""Dossiers as they are kept and handed out: what verdicts rest on, under the digests that the ledger has of it.

Nothing is stored twice: an attestation's row, its challenge and its host, none of which ever changes, make the dossier
again. If one was changed all the same, what comes out has another digest than the ledger says.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from attestation.core.check import Counters
from attestation.core.dossier import Dossier
from attestation.models import Attestation, Attester, Blob, HealthCertificate, Mode, PolicyVersion, SignerKey
from attestation.opening import Opening
from attestation.policy_records import Written
from attestation.stored import parts_of


@dataclass(frozen=True, slots=True)
class Material:
    """Something that a digest in the ledger, or in a dossier, stands for; bytes that nobody has to believe."""

    sha256: str
    content: bytes


@dataclass(frozen=True, slots=True)
class ListParts:
    """The parts that an IMA list came in, by digest, in their order: what a dossier's own part goes on from."""

    dossier: str
    parts: tuple[tuple[int, str], ...]


def dossier_of(attestation: Attestation, *, nonce: bytes, key: bytes) -> Dossier:
    """Return what an attestation's verdict rests on; `key` is what its host is known by."""
    grounds = attestation.grounds
    return Dossier(
        host=str(attestation.attester_id),
        mode=attestation.mode,
        at=attestation.at,
        approved=grounds.get("approved") is True,
        key=key,
        nonce=nonce,
        evidence=attestation.evidence,
        pcrs=attestation.pcr_bytes(),
        event_log=attestation.event_log_id or "",
        ima_log=attestation.ima_log_id or "",
        ima_from=attestation.ima_from,
        ima_end=grounds.get("ima_end"),
        before=Counters(reset_count=grounds.get("reset"), boot_count=grounds.get("boot")),
        policy=attestation.policy_sha256,
        version=attestation.policy_version,
        baseline="" if attestation.baseline_id is None else str(attestation.baseline_id),
        status=attestation.status,
        codes=tuple(finding["code"] for finding in attestation.findings),
        excepted=tuple(finding["code"] for finding in attestation.excepted),
    )


def key_of(host: Attester) -> bytes:
    """Return what a host is known by; nothing for one that the domain vouches for."""
    return {Mode.TPM: bytes(host.ak_public), Mode.HOST_KEY: bytes(host.host_key or b"")}.get(Mode(host.mode), b"")


def sealed(attestation: Attestation, opening: Opening) -> Attestation:
    """Give a new attestation the digest of its dossier, once everything else of it is there."""
    nonce = bytes(opening.challenge.nonce)
    content = dossier_of(attestation, nonce=nonce, key=key_of(opening.host)).content()
    attestation.dossier_sha256 = hashlib.sha256(content).hexdigest()
    return attestation


def bound(attestation: Attestation, certificate: HealthCertificate | None) -> dict[str, object]:
    """What a leaf says so that a verdict cannot be given other grounds afterwards; "" for what there is none of."""
    return {
        "evidence": attestation.dossier_sha256,
        "policy_sha256": attestation.policy_sha256,
        "certificate_sha256": "" if certificate is None else hashlib.sha256(bytes(certificate.der)).hexdigest(),
    }


# --- handed out --------------------------------------------------------------------------------------------------


def material(attestations: Iterable[int], *, known: set[str]) -> Iterator[Material | ListParts]:
    """Yield what these attestations rest on: dossiers, logs, policies, certificates and their signers, each once.

    `known` are the digests that were given out already; those of what comes are added.
    """
    rows = Attestation.objects.select_related("attester", "challenge", "certificate").exclude(dossier_sha256="")
    for signer in SignerKey.objects.order_by("number"):
        yield from _new(bytes(signer.certificate), known)
    for row in rows.filter(pk__in=list(attestations)).order_by("pk"):
        dossier = dossier_of(row, nonce=bytes(row.challenge.nonce), key=key_of(row.attester))
        yield from _new(dossier.content(), known)
        yield from _certificate(row, known)
        yield from _stored(filter(None, [dossier.event_log]), known)
        if dossier.ima_end is not None:
            parts = tuple(parts_of(row))
            yield ListParts(row.dossier_sha256, parts)
            yield from _stored((digest for _, digest in parts), known)
        if dossier.policy not in known:
            yield from _policy(row.policy_version, known)


def signers() -> list[str]:
    """Return the digests of the certificates that health certificates are signed with."""
    found = SignerKey.objects.order_by("number").values_list("certificate", flat=True)
    return [hashlib.sha256(bytes(each)).hexdigest() for each in found]


def _certificate(row: Attestation, known: set[str]) -> Iterator[Material]:
    certificate: HealthCertificate | None = getattr(row, "certificate", None)
    if certificate is not None:
        yield from _new(bytes(certificate.der), known)


def _new(content: bytes, known: set[str]) -> Iterator[Material]:
    digest = hashlib.sha256(content).hexdigest()
    if digest not in known:
        known.add(digest)
        yield Material(digest, content)


def _stored(digests: Iterable[str], known: set[str]) -> Iterator[Material]:
    """Read blobs one by one: a list of files has up to 128 MiB."""
    for digest in digests:
        found = None if digest in known else Blob.objects.filter(pk=digest).first()
        if found is not None:
            yield from _new(bytes(found.content), known)


def _policy(version: int, known: set[str]) -> Iterator[Material]:
    row = PolicyVersion.objects.filter(pk=version).first()
    if row is None:
        return
    found = Written.down(row)
    yield from _new(found.record.content(), known)
    for content in found.contents:
        yield from _new(content, known)
    yield from _stored(found.blobs, known)
