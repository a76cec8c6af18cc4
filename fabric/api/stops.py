"""Emergency stops by API: what is stopped, what a stop would reach, stopping at once, and a lift put forward."""

from typing import ClassVar

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from attestation import service as attestation
from fabric.api.access import acting, require_confirmed
from fabric.api.proposals import shown
from fabric.api.resource import Act, PortalView, Question, listed
from fabric.api.serializers import ProposalDetailSerializer, StopAct, StopSerializer, StopsSerializer
from fabric.stopping import scope_of

QUESTION, STOP, NEW_STOP, LIFT = Question(), StopSerializer(), StopAct(), Act()


class StopsView(PortalView):
    needs: ClassVar = {"GET": "fabric.view_fleet", "POST": "attestation.revoke"}

    @extend_schema(parameters=[Question], responses=StopsSerializer)
    def get(self, request: Request) -> Response:
        """List every stop there was, the newest first; one without an end is in force."""
        QUESTION.read(request.query_params)
        return listed(attestation.stops(), request, STOP)

    @extend_schema(request=StopAct, responses={201: StopSerializer})
    def post(self, request: Request) -> Response:
        """Stop every release of keys to a host, a group of hosts, or at all, at once; confirmed by the name."""
        asked, now = NEW_STOP.read(request.data), timezone.now()
        by = acting(request, asked)
        scope = scope_of(asked["scope"], asked.get("target", ""), now=now)
        require_confirmed(asked["confirm"], scope.name, f"No key goes to {scope.title} from then on")
        return Response(STOP.written(scope.stop(by=by, reason=asked["reason"], now=now)), status=201)


class LiftView(PortalView):
    needs: ClassVar = {"POST": "attestation.revoke"}

    @extend_schema(request=Act, responses={201: ProposalDetailSerializer})
    def post(self, request: Request, stop_id: int) -> Response:
        """Put forward that a stop ends; somebody else decides it."""
        asked = LIFT.read(request.data)
        by = acting(request, asked)
        proposal = attestation.propose_lift(stop_id, by=by, reason=asked["reason"], now=timezone.now())
        return Response(shown(proposal.pk, by), status=201)
