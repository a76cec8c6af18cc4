"""Groups of the directory by API: whose members are hosts in Kerberos mode."""

from typing import ClassVar
from uuid import UUID

from django.http import Http404
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from attestation import service as attestation
from fabric.api.access import acting, require_confirmed
from fabric.api.proposals import shown
from fabric.api.resource import PortalView, Question, listed
from fabric.api.serializers import (
    ConfirmedAct,
    DirectoryGroupAct,
    DirectoryGroupSerializer,
    DirectoryGroupsSerializer,
    ProposalDetailSerializer,
)

QUESTION, GROUP = Question(), DirectoryGroupSerializer()
NEW_GROUP, CONFIRMED = DirectoryGroupAct(), ConfirmedAct()


class DirectoryGroupsView(PortalView):
    needs: ClassVar = {"GET": "fabric.view_fleet", "POST": "attestation.propose"}

    @extend_schema(parameters=[Question], responses=DirectoryGroupsSerializer)
    def get(self, request: Request) -> Response:
        """List every group that was ever put forward."""
        QUESTION.read(request.query_params)
        return listed(attestation.kerberos_groups(), request, GROUP)

    @extend_schema(request=DirectoryGroupAct, responses={201: ProposalDetailSerializer})
    def post(self, request: Request) -> Response:
        """Put a group forward; once somebody else has approved it, every machine account in it is a host."""
        asked = NEW_GROUP.read(request.data)
        by = acting(request, asked)
        proposal = attestation.propose_kerberos_group(
            asked["sid"], asked["name"], group=asked["group"], by=by, reason=asked["reason"], now=timezone.now()
        )
        return Response(shown(proposal.pk, by), status=201)


class RetirementView(PortalView):
    needs: ClassVar = {"POST": "attestation.revoke"}

    @extend_schema(request=ConfirmedAct, responses=DirectoryGroupSerializer)
    def post(self, request: Request, group_id: UUID) -> Response:
        """End a group’s approval at once, confirmed by its name."""
        asked = CONFIRMED.read(request.data)
        by = acting(request, asked)
        found = attestation.kerberos_groups().filter(pk=group_id).first()
        if found is None:
            raise Http404
        require_confirmed(asked["confirm"], found.name, "Certificates that rest on this group alone count no more")
        attestation.retire_kerberos_group(group_id, by=by, reason=asked["reason"], now=timezone.now())
        return Response(GROUP.written(attestation.kerberos_groups().get(pk=group_id)))
