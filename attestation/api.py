"""What guarded hosts talk to. Their messages prove themselves, so no session and no token is asked for."""

from dataclasses import dataclass
from importlib.metadata import version
from uuid import UUID

from django.conf import settings
from django.http import HttpResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from attestation import service
from attestation.core.claims import BANK
from attestation.core.quote import BOOT_PCRS, QUOTED_PCRS
from attestation.kerberos import written_negotiate
from attestation.serializers import (
    ActivationSerializer,
    ChallengeRequestSerializer,
    ChallengeSerializer,
    CredentialSerializer,
    EnrolledSerializer,
    EnrolmentSerializer,
    EvidenceSerializer,
    HostKeySerializer,
    InfoSerializer,
    KeyOfferSerializer,
    KeyProofSerializer,
    MembershipSerializer,
    OutcomeSerializer,
    PossessionSerializer,
    SigningCertificatesSerializer,
)
from ledger.machine_api import MachineView

VERSION = version("guardhouse")
ENROLMENT, CREDENTIAL = EnrolmentSerializer(), CredentialSerializer()
ACTIVATION, ENROLLED = ActivationSerializer(), EnrolledSerializer()
HOST_KEY, KEY_OFFER = HostKeySerializer(), KeyOfferSerializer()
KEY_PROOF, POSSESSION = KeyProofSerializer(), PossessionSerializer()
CHALLENGE_REQUEST, CHALLENGE = ChallengeRequestSerializer(), ChallengeSerializer()
MEMBERSHIP = MembershipSerializer()
EVIDENCE, OUTCOME = EvidenceSerializer(), OutcomeSerializer()
INFO, SIGNING_CERTIFICATES = InfoSerializer(), SigningCertificatesSerializer()


class EnrolmentsView(MachineView):
    @extend_schema(request=EnrolmentSerializer, responses={201: CredentialSerializer})
    def post(self, request: Request) -> Response:
        """Name the host's keys; the answer opens only in the TPM that holds both."""
        body = ENROLMENT.read(request.data)
        wanted = service.EnrolmentRequest(
            name=body["name"],
            ek_public=body["ek_public"],
            ek_certificate=body.get("ek_certificate"),
            ak_public=body["ak_public"],
        )
        return Response(CREDENTIAL.written(service.enrol(wanted, now=timezone.now())), status=201)


class ActivationView(MachineView):
    @extend_schema(request=ActivationSerializer, responses=EnrolledSerializer)
    def post(self, request: Request, enrolment_id: UUID) -> Response:
        """Prove that the enrolled keys live in one TPM."""
        body = ACTIVATION.read(request.data)
        attester = service.activate(enrolment_id, body["secret"], now=timezone.now())
        return Response(ENROLLED.written(attester))


class HostKeysView(MachineView):
    @extend_schema(request=HostKeySerializer, responses={201: KeyOfferSerializer})
    def post(self, request: Request) -> Response:
        """Name the key that this host shall be known by; the answer has the nonce to be signed with it."""
        body = HOST_KEY.read(request.data)
        offer = service.offer_host_key(body["name"], body["host_key"], now=timezone.now())
        return Response(KEY_OFFER.written(offer), status=201)


class KeyProofView(MachineView):
    @extend_schema(request=KeyProofSerializer, responses=EnrolledSerializer)
    def post(self, request: Request, enrolment_id: UUID) -> Response:
        """Prove that the key is this host's own; it then waits for a person."""
        body = KEY_PROOF.read(request.data)
        attester = service.prove_host_key(enrolment_id, body["nonce"], body["proof"], now=timezone.now())
        return Response(ENROLLED.written(attester))


@dataclass(frozen=True, slots=True)
class _Asked:
    """A challenge as the wire shows it."""

    id: UUID
    nonce: bytes
    send_event_log: bool
    expires: object
    send_ima_log: bool
    ima_from: int
    trial: bool
    pcrs: tuple[int, ...] = QUOTED_PCRS
    boot_pcrs: tuple[int, ...] = BOOT_PCRS
    bank: str = BANK


class ChallengesView(MachineView):
    @extend_schema(request=ChallengeRequestSerializer, responses={201: ChallengeSerializer})
    def post(self, request: Request) -> Response:
        """Ask for a nonce; it lives 60 seconds and answers once. What answers a `trial` gets a verdict alone."""
        wanted = CHALLENGE_REQUEST.read(request.data)
        challenge = service.new_challenge(
            wanted["attester"],
            wanted["event_log_sha256"],
            boot=wanted["boot"],
            trial=wanted["trial"],
            now=timezone.now(),
        )
        asked = _Asked(
            challenge.id,
            bytes(challenge.nonce),
            challenge.send_event_log,
            challenge.expires_at,
            challenge.send_ima_log,
            challenge.ima_from,
            challenge.trial,
        )
        return Response(CHALLENGE.written(asked), status=201)


class EvidenceView(MachineView):
    def allow_large_body(self) -> int:
        """Read an event log of 1 MiB, and where it was asked for an IMA list of 128 MiB, both in base64."""
        asked_for_list = service.require_open(self.kwargs["challenge_id"], now=timezone.now())
        return (180 if asked_for_list else 2) * 1024 * 1024

    @extend_schema(request=EvidenceSerializer, responses=OutcomeSerializer)
    def post(self, request: Request, challenge_id: UUID) -> Response:
        """Answer a challenge with Evidence; a passing host gets its health certificate."""
        body = EVIDENCE.read(request.data)
        received = service.ReceivedEvidence(
            quote=body["quote"],
            signature=body["signature"],
            pcr_values=body["pcr_values"],
            event_log=body.get("event_log"),
            ima_log=body.get("ima_log"),
            transport_public=body["transport_public"],
            transport_certify=body["transport_certify"],
            transport_signature=body["transport_signature"],
        )
        return Response(OUTCOME.written(service.appraise_evidence(challenge_id, received, now=timezone.now())))


class PossessionView(MachineView):
    @extend_schema(request=PossessionSerializer, responses=OutcomeSerializer)
    def post(self, request: Request, challenge_id: UUID) -> Response:
        """Answer a challenge with the host key's signature; in host-key mode an approved host gets its certificate."""
        proof = POSSESSION.read(request.data)["proof"]
        return Response(OUTCOME.written(service.appraise_possession(challenge_id, proof, now=timezone.now())))


class KerberosView(MachineView):
    @extend_schema(request=MembershipSerializer, responses={(200, "application/json"): OutcomeSerializer})
    def post(self, request: Request) -> Response:
        """Attest by a machine account's ticket (RFC 4559), bound to this body; a member of an approved group passes.

        The ticket's channel bindings are the SHA-256 of the body. One leg: the answer proves this service in turn. A
        `trial` gets a verdict alone.
        """
        now = timezone.now()
        ticket = service.accept_ticket(request.headers.get("Authorization", ""), request.body, now=now)
        # From here on every answer proves this service, a refusal too: who is refused should know by whom.
        self.headers["WWW-Authenticate"] = written_negotiate(ticket.reply)
        caller = service.caller_of(ticket, now=now)
        body = MEMBERSHIP.read(request.data)
        outcome = service.appraise_membership(caller, body["transport_key"], trial=body["trial"], now=now)
        return Response(OUTCOME.written(outcome))


class InfoView(MachineView):
    @extend_schema(responses=InfoSerializer)
    def get(self, request: Request) -> Response:
        """Say which fabric this is and how hosts attest to it."""
        info = {
            "fabric": settings.FABRIC_NAME,
            "mode": service.mode_in_force(),
            "certificate_lifetime_seconds": int(settings.CERTIFICATE_LIFETIME.total_seconds()),
            "version": VERSION,
        }
        return Response(INFO.written(info))


class SigningCertificatesView(MachineView):
    @extend_schema(responses=SigningCertificatesSerializer)
    def get(self, request: Request) -> Response:
        """List the certificates that sign health certificates, the successor included."""
        found = [
            {"der": bytes(signer.certificate), "active": active, "not_after": signer.not_after}
            for signer, active in service.signing_certificates(now=timezone.now())
        ]
        return Response(SIGNING_CERTIFICATES.written({"certificates": found}))


class RevocationListView(MachineView):
    @extend_schema(responses={(200, "application/pkix-crl"): OpenApiTypes.BINARY})
    def get(self, request: Request) -> HttpResponse:
        """Return the CRL (RFC 5280), DER."""
        return HttpResponse(service.revocation_list(now=timezone.now()), content_type="application/pkix-crl")
