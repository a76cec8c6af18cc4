"""A health certificate counts as long as everything that it was given for still holds, and not a moment longer."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from cryptography import x509
from django.contrib.auth.models import User

from attestation import service
from attestation.core.certificate import serial_text
from attestation.errors import (
    CannotApprove,
    CertificateExpired,
    CertificateRevoked,
    CertificateUnknown,
    DeniedBefore,
    HostFailing,
    HostNotApproved,
    NotAllowed,
    NotFound,
    PolicyChanged,
    Refusal,
)
from attestation.models import Baseline, SignerKey
from tests.attestation.conftest import Portal, approve_baseline
from tests.machines import Machine, decoded

pytestmark = pytest.mark.django_db


@pytest.fixture
def certificate(fabric: Portal, healthy: Machine) -> bytes:
    return decoded(fabric.attest(healthy).json(), "certificate")


def later(**delta: float) -> datetime:
    return datetime.now(UTC) + timedelta(**delta)


def serial(certificate: bytes) -> str:
    return serial_text(x509.load_der_x509_certificate(certificate).serial_number)


def test_a_certificate_entitles_while_everything_holds(certificate: bytes, healthy: Machine) -> None:
    assert service.verify_certificate(certificate, now=later(seconds=1)).attester_id == UUID(healthy.attester)


def test_a_certificate_lapses_after_eight_hours(certificate: bytes) -> None:
    service.verify_certificate(certificate, now=later())  # what was found out about it once is remembered
    with pytest.raises(CertificateExpired):
        service.verify_certificate(certificate, now=later(hours=8, seconds=1))


def test_a_revoked_certificate_is_refused_and_listed(certificate: bytes, admin: User, fabric: Portal) -> None:
    service.revoke_certificate(serial(certificate), by=admin, reason="laptop stolen", now=later())
    with pytest.raises(CertificateRevoked, match="laptop stolen"):
        service.verify_certificate(certificate, now=later())
    crl = x509.load_der_x509_crl(fabric.get("crl").content)
    assert crl.get_revoked_certificate_by_serial_number(int(serial(certificate), 16)) is not None
    signer = x509.load_der_x509_certificate(bytes(SignerKey.objects.get(number=1).certificate))
    assert crl.is_signature_valid(signer.public_key())  # type: ignore[arg-type]  # P-256


def test_a_certificate_is_revoked_once(certificate: bytes, admin: User) -> None:
    service.revoke_certificate(serial(certificate), by=admin, reason="", now=later())
    with pytest.raises(NotFound):
        service.revoke_certificate(serial(certificate), by=admin, reason="", now=later())


def test_revoking_a_host_voids_its_certificates(certificate: bytes, healthy: Machine, admin: User) -> None:
    service.revoke_host(UUID(healthy.attester), by=admin, reason="rack gone", now=later())
    with pytest.raises((CertificateRevoked, HostNotApproved)):
        service.verify_certificate(certificate, now=later())


def test_a_host_that_failed_since_gets_nothing_for_its_older_certificate(
    certificate: bytes, fabric: Portal, healthy: Machine, drifted: Machine
) -> None:
    fabric.attest(healthy, log=drifted.log)
    with pytest.raises(HostFailing):
        service.verify_certificate(certificate, now=later())


def test_the_fabric_can_deny_everything_issued_before_a_moment(
    certificate: bytes, fabric: Portal, healthy: Machine, admin: User
) -> None:
    service.deny_issued_before(later(), by=admin, reason="signer in doubt", now=later(seconds=1))
    with pytest.raises(DeniedBefore):
        service.verify_certificate(certificate, now=later())
    fresh = decoded(fabric.attest(healthy).json(), "certificate")
    assert service.verify_certificate(fresh, now=later()).host == healthy.name


def test_a_certificate_that_is_void_is_not_counted_among_those_that_hosts_hold(
    certificate: bytes, fabric: Portal, healthy: Machine, admin: User
) -> None:
    def shown() -> tuple[int, int, dict[str, int]]:
        now = later()
        return service.certified(now=now), len(service.lapsing(now=now, limit=9)), service.status_counts(now=now)

    assert shown() == (1, 1, {"Passed": 1})
    service.revoke_certificate(serial(certificate), by=admin, reason="", now=later())
    assert shown() == (0, 0, {"Expired": 1})
    fabric.attest(healthy)
    assert shown() == (1, 1, {"Passed": 1})
    service.deny_issued_before(later(), by=admin, reason="signer in doubt", now=later(seconds=1))
    assert shown() == (0, 0, {"Expired": 1})


def test_an_older_certificate_that_is_revoked_takes_nothing_from_the_newer_one(
    certificate: bytes, fabric: Portal, healthy: Machine, admin: User
) -> None:
    fabric.attest(healthy)
    service.revoke_certificate(serial(certificate), by=admin, reason="", now=later())
    assert service.certified(now=later()) == 1


def test_a_host_that_fails_is_not_counted_by_its_older_certificate(
    certificate: bytes, fabric: Portal, healthy: Machine, drifted: Machine
) -> None:
    fabric.attest(healthy, log=drifted.log)
    assert service.certified(now=later()) == 0


def test_certificates_of_the_future_cannot_be_denied(fabric: Portal, admin: User) -> None:
    with pytest.raises(CannotApprove):
        service.deny_issued_before(later(hours=1), by=admin, reason="", now=later())


def test_a_retired_baseline_ends_what_was_proved_under_it(certificate: bytes, admin: User) -> None:
    service.retire_baseline(Baseline.objects.get().id, by=admin, reason="kernel hole", now=later())
    with pytest.raises(PolicyChanged):
        service.verify_certificate(certificate, now=later())


def test_another_baseline_does_not_disturb_the_hosts_that_have_proved_theirs(
    certificate: bytes, fabric: Portal, drifted: Machine, admin: User, approver: User
) -> None:
    fabric.enrol(drifted)
    approve_baseline(fabric, drifted, admin, approver, name="trixie with drift")
    assert service.verify_certificate(certificate, now=later()).policy_version == 1


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(lambda der: der[:-1] + bytes([der[-1] ^ 1]), id="signature flipped"),
        pytest.param(lambda der: der[:200], id="cut short"),
        pytest.param(lambda der: b"", id="empty"),
        pytest.param(lambda der: der + b"\x00", id="trailing byte"),
    ],
)
def test_a_forged_certificate_is_refused(certificate: bytes, forge: Callable[[bytes], bytes]) -> None:
    with pytest.raises(Refusal):
        service.verify_certificate(forge(certificate), now=later())


def test_one_that_was_put_into_the_database_is_refused(certificate: bytes) -> None:
    """Whoever writes to the database cannot sign, not even after the genuine one was accepted."""
    from attestation.models import HealthCertificate

    service.verify_certificate(certificate, now=later())
    forged = certificate[:-1] + bytes([certificate[-1] ^ 1])
    HealthCertificate.objects.update(der=forged)
    with pytest.raises(CertificateUnknown, match="No signer"):
        service.verify_certificate(forged, now=later())
    with pytest.raises(CertificateUnknown, match="no record"):
        service.verify_certificate(certificate, now=later())


def test_a_certificate_that_nobody_recorded_is_refused(certificate: bytes) -> None:
    from attestation.models import HealthCertificate

    HealthCertificate.objects.all().delete()
    with pytest.raises(CertificateUnknown):
        service.verify_certificate(certificate, now=later())


def test_the_successor_of_the_signer_is_published_before_it_signs(fabric: Portal) -> None:
    first = fabric.get("signing-certificates").json()["certificates"]
    assert [entry["active"] for entry in first] == [True, False]


def test_the_successor_signs_when_the_signer_has_reached_its_soft_expiry(
    certificate: bytes, fabric: Portal, healthy: Machine
) -> None:
    SignerKey.objects.filter(number=1).update(soft_expires_at=later(seconds=-1))
    fresh = decoded(fabric.attest(healthy).json(), "certificate")
    issuers = {x509.load_der_x509_certificate(der).issuer for der in (certificate, fresh)}
    assert len(issuers) == 2
    assert service.verify_certificate(certificate, now=later()).host == healthy.name
    assert service.verify_certificate(fresh, now=later()).host == healthy.name
    assert len(fabric.get("signing-certificates").json()["certificates"]) == 3


def test_only_those_who_may_revoke_do(certificate: bytes, healthy: Machine, approver: User) -> None:
    with pytest.raises(NotAllowed):
        service.revoke_certificate(serial(certificate), by=approver, reason="", now=later())
    with pytest.raises(NotAllowed):
        service.revoke_host(UUID(healthy.attester), by=approver, reason="", now=later())
    with pytest.raises(NotAllowed):
        service.deny_issued_before(later(), by=approver, reason="", now=later())


def test_info_says_mode_and_lifetime(fabric: Portal) -> None:
    info = fabric.get("info").json()
    assert (info["mode"], info["certificate_lifetime_seconds"]) == ("tpm", 8 * 3600)
