"""Health certificates: their signers, their issue, what makes one void, and the list of revoked ones."""

import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

from cryptography import x509
from django.conf import settings
from django.db import IntegrityError, transaction

from attestation import modes, standing
from attestation.core import certificate as core
from attestation.core.certificate import (
    HealthClaims,
    Signer,
    build_crl,
    build_health_certificate,
    build_signer,
    read_health_certificate,
    require_valid,
    serial_in,
    serial_text,
)
from attestation.errors import (
    CertificateRevoked,
    CertificateUnknown,
    DeniedBefore,
    GroupWithdrawn,
    HostFailing,
    HostNotApproved,
    ModeChanged,
    PolicyChanged,
    ReleasesStopped,
)
from attestation.holding import Holding, holding
from attestation.kerberos_groups import approved
from attestation.memory import Recent
from attestation.models import Attestation, Attester, HealthCertificate, Mode, ModeSwitch, SignerKey, Stop
from attestation.policy import NO_POLICY, policy_of
from attestation.stored import appraise_again
from ledger.custody import HeldKey, custody

SIGNER_SOFT_LIFETIME = timedelta(days=30)
SIGNER_GRACE = timedelta(days=1)  # longer than any certificate, so that none outlives its signer
SERIAL_BITS = 127
CRL_LIFETIME = timedelta(hours=1)
# With these, a host's newest authentic Evidence spoke against it; `Passed` and `Expired` do not.
FAILING = {"InsecureHostConfiguration", "TpmError", "UnauthorizedHost"}


@dataclass(frozen=True, slots=True)
class HealthStatement:
    """The Attestation Result for the Relying Party: which host, proved what, until when (RFC 9334 section 5.1)."""

    attester_id: UUID
    host: str
    group: str
    serial: str
    mode: str
    transport_spki: bytes
    policy_version: int
    attestation_id: int
    not_after: datetime


def mode_in_force() -> str:
    return ModeSwitch.objects.values_list("mode", flat=True)[0]


def active_signer(*, now: datetime) -> SignerKey:
    """Return the signer in use, after making sure that its successor is published. Nodes may race: the first wins."""
    current = _first_usable(now) or _create_signer(now)
    if not SignerKey.objects.filter(number=current.number + 1).exists():
        _create_signer(now)
    return current


def signer_in_use(found: SignerKey | None, *, has_successor: bool, now: datetime) -> SignerKey:
    """Return the signer that was found in use, or make what is missing: itself, or the successor to be published."""
    return found if found is not None and has_successor else active_signer(now=now)


def held_keys(*, now: datetime) -> list[HeldKey]:
    """Return the keys of signers that certificates alive rest on, or will, locked for whoever moves them."""
    return [
        HeldKey(str(row), _purpose(row.number), bytes(row.sealed), partial(_keep, row))
        for row in SignerKey.objects.select_for_update().filter(not_after__gt=now)
    ]


def _keep(row: SignerKey, sealed: bytes) -> None:
    SignerKey.objects.filter(pk=row.pk).update(sealed=sealed)


def _first_usable(now: datetime) -> SignerKey | None:
    return SignerKey.objects.filter(soft_expires_at__gt=now).order_by("number").first()


def _create_signer(now: datetime) -> SignerKey:
    newest = SignerKey.objects.order_by("-number").first()
    number = 1 if newest is None else newest.number + 1
    # A successor's soft life begins where its predecessor's ends, so that it is in use for a full term.
    starts = now if newest is None else max(now, newest.soft_expires_at)
    soft = starts + SIGNER_SOFT_LIFETIME
    sealed, _ = custody().generate(_purpose(number))
    key = custody().open(sealed, _purpose(number))
    certificate = build_signer(
        key, number=number, fabric=settings.FABRIC_NAME, not_before=now, not_after=soft + SIGNER_GRACE
    )
    try:
        with transaction.atomic():
            return SignerKey.objects.create(
                number=number,
                sealed=sealed,
                certificate=certificate,
                soft_expires_at=soft,
                not_after=soft + SIGNER_GRACE,
            )
    except IntegrityError:  # another node made this number first
        return SignerKey.objects.get(number=number)


def _opened(signer: SignerKey) -> Signer:
    """Return a signer ready to sign; opened once in a process, and known by what is sealed, not by its number alone."""
    key = (signer.number, bytes(signer.sealed))
    return _signers.get(key) or _signers.put(
        key, Signer(custody().open(bytes(signer.sealed), _purpose(signer.number)), _certificate(signer))
    )


_signers: Recent[tuple[int, bytes], Signer] = Recent(4)


def _certificate(signer: SignerKey) -> x509.Certificate:
    return x509.load_der_x509_certificate(bytes(signer.certificate))


def _purpose(number: int) -> str:
    return f"health signer {number}"


def issue(
    attestation: Attestation,
    host: Attester,
    spki: bytes,
    *,
    signer: SignerKey,
    until: datetime | None,
    now: datetime,
) -> HealthCertificate:
    """Certify a transport key for the host whose attestation passed; whoever asks writes the row that is returned.

    `until` is when what the host passed by ends, such as an exception: no certificate outlives that.
    """
    serial = secrets.randbits(SERIAL_BITS) | 1 << (SERIAL_BITS - 1)
    not_after = min(now + settings.CERTIFICATE_LIFETIME, until or datetime.max.replace(tzinfo=UTC))
    der = build_health_certificate(
        claims=HealthClaims(attester_id=str(host.id), name=host.name, mode=attestation.mode),
        transport_spki=spki,
        serial=serial,
        not_before=now,
        not_after=not_after,
        signer=_opened(signer),
    )
    return HealthCertificate(
        serial=serial_text(serial),
        attester_id=host.id,
        attestation_id=attestation.id,
        signer_id=signer.number,
        der=der,
        issued_at=now,
        not_after=not_after,
    )


def release_secret(serial: str) -> bytes:
    """Return the 32 bytes that authenticate release requests under this certificate; derived, never stored."""
    return custody().derive("release request", serial.encode())


def signing_certificates(*, now: datetime) -> list[tuple[SignerKey, bool]]:
    """Return every signer that may have signed a certificate still alive, and whether it is the one in use."""
    active = active_signer(now=now)
    return [(signer, signer == active) for signer in SignerKey.objects.filter(not_after__gt=now)]


def held_certificate(serial: str, *, now: datetime) -> Holding | None:
    """Return a certificate with all that its worth depends on; None for one that was never issued here.

    Inside a transaction, none of what people decide about it changes until that ends.
    """
    standing.hold()
    return holding(serial, now=now)


def verify_certificate(certificate: bytes, *, held: Holding | None = None, now: datetime) -> HealthStatement:
    """Return what this health certificate entitles its holder to, as things stand now, or raise `CertificateRefused`.

    Everything is checked again at the time of use: signature, time, revocation, the host's approval and newest
    status, what people have stopped, the fabric's deny-before moment, and that mode and policy are still the ones that
    the host had satisfied.
    `held` is what `held_certificate` has read of it, in the same transaction.
    """
    held = held or held_certificate(serial_in(certificate), now=now)
    if held is None or bytes(held.certificate.der) != certificate:
        raise CertificateUnknown("This service has no record of that certificate.")
    health = _stated(certificate, held.signer, now=now)
    if held.certificate.revoked_at is not None:
        raise CertificateRevoked(f"Certificate {health.serial} was revoked: {held.certificate.revoked_reason}")
    if held.stopped is not None:
        raise _stopped(held.stopped, held.host)
    _require_standing(held.host)
    _require_in_force(held, now)
    return HealthStatement(
        attester_id=held.host.id,
        host=held.host.name,
        group=str(held.host.group_id),
        serial=health.serial,
        mode=held.proved.mode,
        transport_spki=health.transport_spki,
        policy_version=held.proved.policy_version,
        attestation_id=held.proved.id,
        not_after=held.not_after,
    )


def _stated(certificate: bytes, signer: SignerKey, *, now: datetime) -> core.HealthCertificate:
    """Return what a certificate states that is valid now.

    A host shows the same one for each VM that it starts. What it states, and that its signer has signed it, is found
    out once in a process; whether it is still valid, each time.
    """
    published = _published(signer)
    key = (bytes(signer.certificate), certificate)
    known = _statements.get(key)
    if known is None:
        known = _statements.put(key, read_health_certificate(certificate, signers=[published])[0])
    require_valid(known, published, now=now)
    return known


def _published(signer: SignerKey) -> x509.Certificate:
    """Return a signer's certificate, read once in a process, and known by its bytes and not by its number alone."""
    key = (signer.number, bytes(signer.certificate))
    return _signer_certificates.get(key) or _signer_certificates.put(key, _certificate(signer))


_signer_certificates: Recent[tuple[int, bytes], x509.Certificate] = Recent(4)
_statements: Recent[tuple[bytes, bytes], core.HealthCertificate] = Recent(1024)


def _require_standing(attester: Attester) -> None:
    if attester.state != Attester.State.APPROVED:
        raise HostNotApproved(f"Host {attester.name} is {attester.get_state_display().lower()}; it gets no keys.")
    if attester.status in FAILING:
        raise HostFailing(f"The newest attestation of {attester.name} ended with {attester.status}; it gets no keys.")


def _stopped(stop: Stop, host: Attester) -> ReleasesStopped:
    whom = {Stop.Scope.FABRIC: "on this fabric", Stop.Scope.GROUP: f"to hosts of the group {host.group_id}"}
    return ReleasesStopped(
        f"People have stopped every release of keys {whom.get(Stop.Scope(stop.scope), f'to {host.name}')} at"
        f" {stop.at:%Y-%m-%d %H:%M:%S} UTC. What runs goes on; starts wait until they lift it."
    )


def _require_in_force(held: Holding, now: datetime) -> None:
    deny, mode = held.denied, held.proved.mode
    if deny is not None and held.certificate.issued_at < deny.moment:
        raise DeniedBefore(f"This fabric denies certificates issued before {deny.moment:%Y-%m-%d %H:%M:%S} UTC.")
    if mode not in modes.counting(held.switch, now=now):
        raise ModeChanged(f"The certificate was issued in {mode} mode; the fabric is in {held.switch.mode} mode.")
    if mode == Mode.KERBEROS:
        _require_group(held)
    if mode != Mode.TPM:  # what it proved does not depend on any policy
        return
    in_force = 0 if held.version is None else held.version.version
    if held.proved.policy_version != in_force:
        _require_still_accepted(held, now)


def _require_still_accepted(held: Holding, now: datetime) -> None:
    """Hold what the host had proved against the policy that is in force by now."""
    policy = NO_POLICY if held.version is None else policy_of(held.version)
    result = appraise_again(Attestation.objects.get(pk=held.proved.pk), policy, now=now)
    if result is None or not result.affirming:
        raise PolicyChanged(
            f"Policy v{policy.version} no longer accepts what {held.host.name} had proved under"
            f" v{held.proved.policy_version}. The host has to attest again."
        )


def _require_group(held: Holding) -> None:
    """A certificate of Kerberos mode rests on the groups that the host's ticket had, as long as people accept one."""
    if not approved(held.proved.evidence["groups"]).exists():
        raise GroupWithdrawn(f"The groups of the directory that {held.host.name} was in count here no more.")


def hosts_with_certificate(attesters: Collection[UUID], *, now: datetime) -> set[UUID]:
    """Return those of these hosts that hold a certificate which has neither lapsed nor been revoked."""
    held = HealthCertificate.objects.filter(attester_id__in=attesters, revoked_at=None, not_after__gt=now)
    return set(held.order_by().values_list("attester_id", flat=True))


def revocation_list(*, now: datetime) -> bytes:
    """Return the CRL (RFC 5280) of every revoked certificate that has not lapsed yet, as DER."""
    signer = active_signer(now=now)
    revoked = HealthCertificate.objects.filter(revoked_at__isnull=False, not_after__gt=now)
    return build_crl(
        revoked=[(int(row.serial, 16), row.revoked_at) for row in revoked if row.revoked_at is not None],
        signer=_opened(signer),
        number=int(now.timestamp()),
        now=now,
        next_update=now + CRL_LIFETIME,
    )
