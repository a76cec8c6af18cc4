"""This fabric's guardian keys by API: a pair for later, its way into use, who still needs the old one, and its end."""

from typing import ClassVar

from django.http import Http404
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from fabric import known_keys
from fabric.api.access import acting, require_confirmed
from fabric.api.guardian_messages import (
    ChangeAct,
    ChangeDetailSerializer,
    ChangeSerializer,
    ChangesQuestion,
    ChangesSerializer,
    GuardianKeysSerializer,
    PairSerializer,
    QueuedProtectorSerializer,
    QueueQuestion,
    QueueSerializer,
)
from fabric.api.resource import Act, PortalView, listed, listed_page
from fabric.api.serializers import VerdictAct
from fabric.forms import REJECT
from fabric.key_queue import PairLine, rotation, waiting_machines
from fabric.models import Viewer
from kps import service as kps
from kps.service import GuardianPair, RotationProposal

PAIR, CHANGE, CHANGES, QUEUED = PairSerializer(), ChangeSerializer(), ChangesQuestion(), QueuedProtectorSerializer()
QUEUE, PREPARE, PUT_FORWARD, DECISION = QueueQuestion(), Act(), ChangeAct(), VerdictAct()


class GuardianKeysView(PortalView):
    needs: ClassVar = {"GET": "fabric.view_fleet", "POST": "kps.rotate"}

    @extend_schema(operation_id="api_v1_guardian_keys_list", responses=GuardianKeysSerializer)
    def get(self, request: Request) -> Response:
        """Tell every pair, how many key protectors depend on each, how far these have moved, and what waits."""
        in_use = kps.guardian_fingerprint(now=timezone.now())  # a fabric that nobody has asked yet makes its first pair
        now = rotation()
        return Response(
            {
                "in_use": in_use,
                **{"total": now.total, "moved": now.moved, "left": now.left},
                "pairs": [PAIR.written(line) for line in now.lines],
                "open_changes": [CHANGE.written(each) for each in kps.rotations(state="open")],
            }
        )

    @extend_schema(request=Act, responses={201: PairSerializer})
    def post(self, request: Request) -> Response:
        """Prepare a pair for later. It is published at once, and owners may grant it; what is in use stays so."""
        asked = PREPARE.read(request.data)
        by = acting(request, asked)
        pair = kps.prepare(by=by, reason=asked["reason"], now=timezone.now())
        return Response(PAIR.written(PairLine(pair, 0)), status=201)


class GuardianPairView(PortalView):
    needs: ClassVar = {"GET": "fabric.view_fleet"}

    @extend_schema(responses=PairSerializer)
    def get(self, request: Request, number: int) -> Response:
        """Tell one pair."""
        pair = _pair(number)
        return Response(PAIR.written(PairLine(pair, kps.dependants(pair).count())))


class PairQueueView(PortalView):
    needs: ClassVar = {"GET": "fabric.view_fleet"}

    @extend_schema(parameters=[QueueQuestion], responses=QueueSerializer)
    def get(self, request: Request, number: int) -> Response:
        """List the key protectors that depend on a pair, the latest used first, and what each waits for."""
        asked = QUEUE.read(request.query_params)
        found = known_keys.narrowed(kps.dependants(_pair(number)), asked.get("q", ""))
        if owner := asked.get("owner"):
            found = found.filter(owner_fingerprint=owner)
        return listed_page(
            found, request, lambda rows: [QUEUED.written(row) for row in waiting_machines(kps.awaited(rows))]
        )


class PairChangesView(PortalView):
    needs: ClassVar = {"POST": "kps.rotate"}

    @extend_schema(request=ChangeAct, responses={201: ChangeDetailSerializer})
    def post(self, request: Request, number: int) -> Response:
        """Put a change of a pair forward; somebody else decides it. To disable one is confirmed by its name."""
        asked, pair = PUT_FORWARD.read(request.data), _pair(number)
        by = acting(request, asked)
        if asked["change"] == RotationProposal.Change.DISABLE:
            protectors = kps.impact_of(asked["change"], pair)["protectors"]
            require_confirmed(asked.get("confirm"), pair.name, f"{protectors} key protectors depend on this pair")
        proposal = kps.propose(number, asked["change"], by=by, reason=asked["reason"], now=timezone.now())
        return Response(_told(proposal.pk, by), status=201)


class ChangesView(PortalView):
    needs: ClassVar = {"GET": "fabric.view_fleet"}

    @extend_schema(
        operation_id="api_v1_guardian_key_changes_list", parameters=[ChangesQuestion], responses=ChangesSerializer
    )
    def get(self, request: Request) -> Response:
        """List what was put forward, newest first."""
        asked = CHANGES.read(request.query_params)
        return listed(kps.rotations(state=asked.get("state", "")), request, CHANGE)


class ChangeView(PortalView):
    needs: ClassVar = {"GET": "fabric.view_fleet"}

    @extend_schema(responses=ChangeDetailSerializer)
    def get(self, request: Request, change_id: int) -> Response:
        """Tell one of them, and what it would do now."""
        return Response(_told(change_id, request.user))


class ChangeDecisionView(PortalView):
    needs: ClassVar = {"POST": "kps.decide_rotation"}

    @extend_schema(request=VerdictAct, responses=ChangeDetailSerializer)
    def post(self, request: Request, change_id: int) -> Response:
        """Decide what somebody else has put forward; it takes effect at once, on every node."""
        asked = DECISION.read(request.data)
        by, approve = acting(request, asked), asked["decision"] != REJECT
        kps.decide(change_id, by=by, approve=approve, reason=asked["reason"], now=timezone.now())
        return Response(_told(change_id, by))


def _told(change_id: int, user: Viewer) -> dict[str, object]:
    found = kps.rotations().filter(pk=change_id).first()
    if found is None:
        raise Http404
    impact = kps.impact_of(found.change, found.pair)
    now = {"protectors_now": impact["protectors"], "owners_now": impact["owners"], "yours": found.is_own(user)}
    return {**CHANGE.written(found), **now}


def _pair(number: int) -> GuardianPair:
    found = kps.pairs().filter(number=number).first()
    if found is None:
        raise Http404
    return found
