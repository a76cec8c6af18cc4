"""Denials by API: of one key, and of certificates by when they were issued; what each reaches, before it happens."""

from typing import ClassVar

from django.conf import settings
from django.http import Http404
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from attestation import service as attestation
from fabric import known_keys
from fabric.api.access import acting, require_confirmed
from fabric.api.denial_messages import (
    CertificatesAct,
    CertificatesImpactSerializer,
    CertificatesQuestion,
    DenialAct,
    LiftSerializer,
    LiftsQuestion,
    LiftsSerializer,
    ProtectorDetailSerializer,
    ProtectorSerializer,
    ProtectorsQuestion,
    ProtectorsSerializer,
    StopImpactSerializer,
    StopQuestion,
)
from fabric.api.resource import Act, PortalView, listed, listed_page
from fabric.api.serializers import VerdictAct
from fabric.forms import REJECT
from fabric.stopping import impact_of, impact_of_denial, scope_of
from kps import service as kps

STOP_QUESTION, STOP_IMPACT = StopQuestion(), StopImpactSerializer()
CERTIFICATES, DENY_CERTIFICATES, VOIDED = CertificatesQuestion(), CertificatesAct(), CertificatesImpactSerializer()
PROTECTORS, PROTECTOR = ProtectorsQuestion(), ProtectorSerializer()
DENIAL, LIFT_ACT, LIFTS, LIFT, DECISION = DenialAct(), Act(), LiftsQuestion(), LiftSerializer(), VerdictAct()


class StopImpactView(PortalView):
    needs: ClassVar = {"GET": "fabric.view_fleet"}

    @extend_schema(parameters=[StopQuestion], responses=StopImpactSerializer)
    def get(self, request: Request) -> Response:
        """Tell what a stop would reach, and what it would not, as things stand. Nothing is stopped by this."""
        asked, now = STOP_QUESTION.read(request.query_params), timezone.now()
        scope = scope_of(asked["scope"], asked.get("target", ""), now=now)
        return Response(STOP_IMPACT.written(impact_of(scope, now=now)))


class CertificatesDenialView(PortalView):
    needs: ClassVar = {"GET": "fabric.view_fleet", "POST": "attestation.revoke"}

    @extend_schema(parameters=[CertificatesQuestion], responses=CertificatesImpactSerializer)
    def get(self, request: Request) -> Response:
        """Tell what it would mean to deny certificates by when they were issued. Nothing is denied by this."""
        asked, now = CERTIFICATES.read(request.query_params), timezone.now()
        return Response(VOIDED.written(impact_of_denial(asked.get("before") or now, now=now)))

    @extend_schema(request=CertificatesAct, responses={201: CertificatesImpactSerializer})
    def post(self, request: Request) -> Response:
        """Void every certificate that was issued before a moment, at once; confirmed by the fabric's name."""
        asked, now = DENY_CERTIFICATES.read(request.data), timezone.now()
        by, before = acting(request, asked), asked.get("before") or now
        require_confirmed(asked["confirm"], settings.FABRIC_NAME, "Hosts get no key until they have attested again")
        impact = impact_of_denial(before, now=now)
        attestation.deny_issued_before(before, by=by, reason=asked["reason"], now=now)
        return Response(VOIDED.written(impact), status=201)


class ProtectorsView(PortalView):
    needs: ClassVar = {"GET": "fabric.view_fleet"}

    @extend_schema(
        operation_id="api_v1_protectors_list", parameters=[ProtectorsQuestion], responses=ProtectorsSerializer
    )
    def get(self, request: Request) -> Response:
        """List every key protector that this fabric has seen, the latest used first."""
        asked, now = PROTECTORS.read(request.query_params), timezone.now()
        found = known_keys.search(asked.get("q", ""), denied=asked["denied"])
        return listed_page(found, request, lambda rows: map(PROTECTOR.written, known_keys.shown(rows, now=now)))


class ProtectorView(PortalView):
    needs: ClassVar = {"GET": "fabric.view_fleet"}

    @extend_schema(responses=ProtectorDetailSerializer)
    def get(self, request: Request, record_id: int) -> Response:
        """Tell one key protector: who holds its key, and so what a denial would reach and what not."""
        return Response(_told(record_id))


class DenialView(PortalView):
    needs: ClassVar = {"POST": "kps.deny"}

    @extend_schema(request=DenialAct, responses={201: ProtectorDetailSerializer})
    def post(self, request: Request, record_id: int) -> Response:
        """Deny every release under one key protector, at once; confirmed by its name."""
        asked, now = DENIAL.read(request.data), timezone.now()
        by, key = acting(request, asked), known_keys.known(record_id, now=now)
        require_confirmed(asked["confirm"], key.name, "No host gets this key from then on")
        of = known_keys.key_of(key.record)
        kps.deny_protector(*of, by=by, reason=asked["reason"], now=now, with_machines=asked["with_machines"])
        return Response(_told(record_id), status=201)


class ProposeLiftView(PortalView):
    needs: ClassVar = {"POST": "kps.deny"}

    @extend_schema(request=Act, responses={201: LiftSerializer})
    def post(self, request: Request, record_id: int) -> Response:
        """Put forward that a denied key is allowed again; somebody else decides it."""
        asked, now = LIFT_ACT.read(request.data), timezone.now()
        by, key = acting(request, asked), known_keys.known(record_id, now=now)
        lift = kps.propose_lift(*known_keys.key_of(key.record), by=by, reason=asked["reason"], now=now)
        return Response(LIFT.written(lift), status=201)


class LiftsView(PortalView):
    needs: ClassVar = {"GET": "fabric.view_fleet"}

    @extend_schema(operation_id="api_v1_denial_lifts_list", parameters=[LiftsQuestion], responses=LiftsSerializer)
    def get(self, request: Request) -> Response:
        """List what was put forward, newest first."""
        asked = LIFTS.read(request.query_params)
        return listed(kps.lifts(state=asked.get("state", "")), request, LIFT)


class LiftView(PortalView):
    needs: ClassVar = {"GET": "fabric.view_fleet"}

    @extend_schema(responses=LiftSerializer)
    def get(self, request: Request, lift_id: int) -> Response:
        """Tell one of them."""
        return Response(LIFT.written(_lift(lift_id)))


class LiftDecisionView(PortalView):
    needs: ClassVar = {"POST": "kps.decide_lift"}

    @extend_schema(request=VerdictAct, responses=LiftSerializer)
    def post(self, request: Request, lift_id: int) -> Response:
        """Decide what somebody else has put forward; it takes effect at once."""
        asked, now = DECISION.read(request.data), timezone.now()
        by, approve = acting(request, asked), asked["decision"] != REJECT
        kps.decide_lift(_lift(lift_id).pk, by=by, approve=approve, reason=asked["reason"], now=now)
        return Response(LIFT.written(_lift(lift_id)))


def _told(record_id: int) -> dict[str, object]:
    key = known_keys.known(record_id, now=timezone.now())
    waiting = kps.lifts(state="open").filter(record=key.record).first()
    machines = kps.made_from(*known_keys.key_of(key.record)).count()
    return {**PROTECTOR.written(key), "machines": machines, "open_lift": waiting.pk if waiting else None}


def _lift(lift_id: int) -> kps.DenialLift:
    found = kps.lifts().filter(pk=lift_id).first()
    if found is None:
        raise Http404
    return found
