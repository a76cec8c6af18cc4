"""Host-key mode: a registered key, possession of it proved over the server's nonce, approved per host."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from django.contrib.auth.models import User
from joserfc import jwe
from joserfc.jwk import RSAKey

from attestation import service
from attestation.core.base64url import from_b64u, to_b64u
from attestation.core.handover import ALGORITHMS
from attestation.core.possession import SigningKey, prove
from attestation.errors import CertificateRefused
from attestation.models import Attestation, Attester, Enrolment, HealthCertificate, ModeSwitch
from ledger import service as ledger
from tests.attestation.conftest import Portal, approve_host
from tests.attestation.keys import TRANSPORT, spki
from tests.machines import Machine

pytestmark = pytest.mark.django_db


@dataclass
class KeyHost:
    """A host that has a key and no TPM."""

    portal: Portal
    name: str
    key: SigningKey
    attester: str = ""

    def offer(self, **changes: object) -> Any:
        return self.portal.post("host-keys", {"name": self.name, "host_key": to_b64u(spki(self.key)), **changes})

    def register(self, **changes: object) -> Any:
        offered = self.offer(**changes).json()
        proof = prove(self.key, nonce=from_b64u(offered["nonce"]))
        answer = self.portal.post(f"host-keys/{offered['id']}/proof", {"nonce": offered["nonce"], "proof": proof})
        if answer.status_code == 200:
            self.attester = answer.json()["attester"]
        return answer

    def challenge(self) -> Any:
        return self.portal.post("challenges", {"attester": self.attester}).json()

    def attest(self, key: SigningKey | None = None, **how: Any) -> Any:
        asked = self.challenge()
        said = {"nonce": from_b64u(asked["nonce"]), "transport_spki": spki(TRANSPORT), **how}
        proof = prove(key or self.key, **said)
        return self.portal.post(f"challenges/{asked['id']}/possession", {"proof": proof})


@pytest.fixture(params=["rsa", "p256"])
def host(request: pytest.FixtureRequest, portal: Portal) -> KeyHost:
    key: SigningKey = (
        rsa.generate_private_key(65537, 2048) if request.param == "rsa" else ec.generate_private_key(ec.SECP256R1())
    )
    return KeyHost(portal, "nbg-k01", key)


def approve(host: KeyHost, admin: User, approver: User) -> None:
    now = datetime.now(UTC)
    proposal = service.propose_host(UUID(host.attester), by=admin, reason="seen its key", now=now)
    service.decide(proposal.id, by=approver, approve=True, reason="compared the fingerprint", now=now)


@pytest.fixture
def in_force(db: None) -> None:
    """Host-key mode is in force."""
    ModeSwitch.objects.create(mode="hostkey", since=datetime.now(UTC), by="system", reason="a test")


def test_a_key_is_registered_and_waits_for_a_person(host: KeyHost) -> None:
    answer = host.register()
    assert answer.json()["state"] == "pending"
    row = Attester.objects.get(pk=host.attester)
    assert (row.mode, len(row.identity), bytes(row.host_key or b"")) == ("hostkey", 64, spki(host.key))
    assert ledger.leaves(act_prefix="host.key_registered").count() == 1
    assert host.register().json()["attester"] == host.attester


def test_somebody_elses_key_is_not_registered(host: KeyHost, portal: Portal) -> None:
    offered = host.offer().json()
    proof = prove(ec.generate_private_key(ec.SECP256R1()), nonce=from_b64u(offered["nonce"]))
    answer = portal.post(f"host-keys/{offered['id']}/proof", {"nonce": offered["nonce"], "proof": proof})
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_signature")
    assert not Attester.objects.exists()
    assert ledger.leaves(act_prefix="host.activation_refused").count() == 1


def test_an_offer_is_taken_once_in_time_and_over_its_own_nonce(host: KeyHost, portal: Portal) -> None:
    offered = host.offer().json()
    other = to_b64u(bytes(32))
    proof = prove(host.key, nonce=bytes(32))
    answer = portal.post(f"host-keys/{offered['id']}/proof", {"nonce": other, "proof": proof})
    assert (answer.status_code, answer.json()["code"]) == (403, "activation_refused")
    good = {"nonce": offered["nonce"], "proof": prove(host.key, nonce=from_b64u(offered["nonce"]))}
    assert portal.post(f"host-keys/{offered['id']}/proof", good).status_code == 403  # it was spent
    late = host.offer().json()
    Enrolment.objects.filter(pk=late["id"]).update(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    good = {"nonce": late["nonce"], "proof": prove(host.key, nonce=from_b64u(late["nonce"]))}
    assert portal.post(f"host-keys/{late['id']}/proof", good).status_code == 403
    assert portal.post(f"host-keys/{uuid4()}/proof", good).status_code == 403
    assert not Attester.objects.exists()


def test_an_offer_is_no_enrolment_of_a_tpm_and_the_other_way_round(
    host: KeyHost, portal: Portal, healthy: Machine
) -> None:
    offered = host.offer().json()
    answer = portal.post(f"enrolments/{offered['id']}/activation", {"secret": offered["nonce"]})
    assert (answer.status_code, answer.json()["code"]) == (403, "activation_refused")
    begun = portal.post("enrolments", healthy.enrolment()).json()
    proof = prove(host.key, nonce=bytes(32))
    answer = portal.post(f"host-keys/{begun['id']}/proof", {"nonce": to_b64u(bytes(32)), "proof": proof})
    assert (answer.status_code, answer.json()["code"]) == (403, "activation_refused")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"host_key": "AAAA"}, "malformed"),
        ({"host_key": to_b64u(spki(ec.generate_private_key(ec.SECP384R1())))}, "unacceptable_key"),
        ({"host_key": "A" * 5000}, "too_large"),
        ({"name": "Not A Name"}, "malformed_request"),
    ],
)
def test_a_key_that_will_not_do_is_refused(portal: Portal, changes: dict[str, str], code: str) -> None:
    host = KeyHost(portal, "nbg-k02", ec.generate_private_key(ec.SECP256R1()))
    assert host.offer(**changes).json()["code"] == code
    assert not Enrolment.objects.exists()


def test_a_key_belongs_to_one_name(host: KeyHost) -> None:
    host.register()
    answer = host.register(name="another")
    assert (answer.status_code, answer.json()["code"]) == (409, "identity_known")


@pytest.mark.usefixtures("in_force")
def test_an_approved_host_gets_a_certificate_for_the_key_it_vouches_for(
    host: KeyHost, admin: User, approver: User
) -> None:
    host.register()
    approve(host, admin, approver)
    answer = host.attest().json()
    assert answer["status"] == "Passed"
    statement = service.verify_certificate(from_b64u(answer["certificate"]), now=datetime.now(UTC))
    assert (statement.mode, statement.host, statement.transport_spki) == ("hostkey", host.name, spki(TRANSPORT))
    key = RSAKey.import_key(TRANSPORT)
    assert len(jwe.decrypt_compact(answer["release_secret"], key, algorithms=ALGORITHMS).plaintext or b"") == 32


@pytest.mark.usefixtures("in_force")
def test_a_waiting_host_gets_none(host: KeyHost) -> None:
    host.register()
    answer = host.attest().json()
    assert (answer["status"], answer["certificate"]) == ("UnauthorizedHost", None)


@pytest.mark.usefixtures("in_force")
def test_another_key_an_old_proof_and_a_missing_transport_key_are_refused(
    host: KeyHost, admin: User, approver: User
) -> None:
    host.register()
    approve(host, admin, approver)
    host.attest()
    for how, code in (
        ({"key": ec.generate_private_key(ec.SECP256R1())}, "bad_signature"),
        ({"nonce": bytes(32)}, "wrong_nonce"),
        ({"transport_spki": None}, "malformed"),
        ({"transport_spki": spki(ec.generate_private_key(ec.SECP256R1()))}, "unacceptable_key"),
    ):
        assert host.attest(**how).json()["code"] == code
    assert Attestation.objects.exclude(code="").count() == 4
    assert HealthCertificate.objects.count() == 1


@pytest.mark.usefixtures("in_force")
def test_a_proof_answers_once(host: KeyHost, portal: Portal, admin: User, approver: User) -> None:
    host.register()
    approve(host, admin, approver)
    asked = host.challenge()
    body = {"proof": prove(host.key, nonce=from_b64u(asked["nonce"]), transport_spki=spki(TRANSPORT))}
    assert portal.post(f"challenges/{asked['id']}/possession", body).json()["status"] == "Passed"
    again = portal.post(f"challenges/{asked['id']}/possession", body)
    assert again.json()["code"] == "challenge_spent"


def test_in_another_mode_it_is_a_trial_that_earns_nothing(host: KeyHost, admin: User, approver: User) -> None:
    host.register()
    approve(host, admin, approver)
    answer = host.attest().json()
    assert (answer["status"], answer["certificate"], answer["release_secret"]) == ("Passed", None, None)
    assert not HealthCertificate.objects.exists()
    row = Attestation.objects.get()
    assert (row.mode, row.status) == ("hostkey", "Passed")
    assert ledger.leaves(act_prefix="attestation.").get().act == "attestation.trial_passed"


def test_a_tpm_host_answers_with_evidence_and_a_key_host_with_a_proof(
    host: KeyHost, portal: Portal, healthy: Machine, admin: User, approver: User
) -> None:
    host.register()
    asked = host.challenge()
    answer = portal.post(f"challenges/{asked['id']}/evidence", healthy.evidence(from_b64u(asked["nonce"])))
    assert (answer.status_code, answer.json()["code"]) == (422, "wrong_mode")
    approve_host(portal, healthy, admin, approver)
    asked = portal.challenge(healthy).json()
    proof = prove(host.key, nonce=from_b64u(asked["nonce"]), transport_spki=spki(TRANSPORT))
    answer = portal.post(f"challenges/{asked['id']}/possession", {"proof": proof})
    assert (answer.status_code, answer.json()["code"]) == (422, "wrong_mode")


@pytest.mark.usefixtures("in_force")
def test_a_certificate_ends_with_its_mode(host: KeyHost, admin: User, approver: User) -> None:
    host.register()
    approve(host, admin, approver)
    certificate = from_b64u(host.attest().json()["certificate"])
    ModeSwitch.objects.create(mode="tpm", since=datetime.now(UTC), by="system", reason="a test")
    with pytest.raises(CertificateRefused) as refused:
        service.verify_certificate(certificate, now=datetime.now(UTC))
    assert refused.value.code == "mode_changed"


@pytest.mark.usefixtures("in_force")
def test_one_name_may_be_known_by_its_tpm_and_by_its_key(
    host: KeyHost, portal: Portal, healthy: Machine, admin: User, approver: User
) -> None:
    approve_host(portal, healthy, admin, approver)
    host.name = healthy.name
    host.register()
    approve(host, admin, approver)
    assert Attester.objects.filter(name=healthy.name, state="approved").count() == 2
    assert host.attest().json()["status"] == "Passed"


@pytest.mark.usefixtures("in_force")
def test_a_new_key_under_an_approved_name_waits_and_then_replaces(
    host: KeyHost, portal: Portal, admin: User, approver: User
) -> None:
    host.register()
    approve(host, admin, approver)
    certificate = from_b64u(host.attest().json()["certificate"])
    newer = KeyHost(portal, host.name, ec.generate_private_key(ec.SECP256R1()))
    assert newer.register().json()["state"] == "pending"
    approve(newer, admin, approver)
    assert Attester.objects.get(pk=host.attester).state == "revoked"
    with pytest.raises(CertificateRefused):
        service.verify_certificate(certificate, now=datetime.now(UTC))
