"""Proposals by API: what waits, what was decided, and deciding it with four eyes."""

from typing import ClassVar

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from attestation import service as attestation
from attestation.errors import Refusal
from fabric.api.access import acting
from fabric.api.resource import PortalView, listed
from fabric.api.serializers import (
    DecidableSerializer,
    DecisionAct,
    ProposalDetailSerializer,
    ProposalSerializer,
    ProposalsQuestion,
    ProposalsSerializer,
)
from fabric.decisions import offered
from fabric.forms import APPROVE_UNENDORSED, REJECT
from fabric.impact import impact_now
from fabric.models import Viewer

PROPOSALS, PROPOSAL = ProposalsQuestion(), ProposalSerializer()
DECIDABLE, DECISION = DecidableSerializer(), DecisionAct()


class NotOffered(Refusal):
    """This cannot be decided about this thing, whoever decides."""

    code: ClassVar[str] = "not_offered"
    status: ClassVar[int] = 409


class ProposalsView(PortalView):
    needs: ClassVar = {"GET": "fabric.view_fleet"}

    @extend_schema(operation_id="api_v1_proposals_list", parameters=[ProposalsQuestion], responses=ProposalsSerializer)
    def get(self, request: Request) -> Response:
        """List what was put forward, newest first."""
        asked = PROPOSALS.read(request.query_params)
        found = attestation.proposals(state=asked.get("state", ""), kind=asked.get("kind", ""))
        return listed(found, request, PROPOSAL)


class ProposalView(PortalView):
    needs: ClassVar = {"GET": "fabric.view_fleet"}

    @extend_schema(responses=ProposalDetailSerializer)
    def get(self, request: Request, proposal_id: int) -> Response:
        """Tell one proposal, and what can be decided about it."""
        return Response(shown(proposal_id, request.user))


class DecisionView(PortalView):
    needs: ClassVar = {"POST": "attestation.decide"}

    @extend_schema(request=DecisionAct, responses=ProposalDetailSerializer)
    def post(self, request: Request, proposal_id: int) -> Response:
        """Decide what somebody else has put forward; it takes effect at once."""
        asked = DECISION.read(request.data)
        by, decision = acting(request, asked), asked["decision"]
        _require_offered(attestation.proposal(proposal_id), decision)
        attestation.decide(
            proposal_id,
            by=by,
            approve=decision != REJECT,
            accept_without_certificate=decision == APPROVE_UNENDORSED,
            reason=asked["reason"],
            now=timezone.now(),
        )
        return Response(shown(proposal_id, by))


def _require_offered(proposal: attestation.Proposal, decision: str) -> None:
    choices = [value for value, _ in offered(proposal)]
    if decision not in choices:
        why = f" {proposal.attester.ek_detail}" if proposal.attester else ""
        raise NotOffered(f"What can be decided about {proposal.about.name}: {', '.join(choices)}.{why}")


def shown(proposal_id: int, user: Viewer) -> dict[str, object]:
    """Return what the API says of a proposal to this person."""
    found = attestation.proposal(proposal_id)
    is_open = found.state == "open"
    more = {
        "decisions": [value for value, _ in offered(found)] if is_open else [],
        "yours": found.is_own(user),
        "plan": _plan(found.plan, is_open=is_open) if found.plan else None,
        "sid": found.kerberos_group.sid if found.kerberos_group else None,
    }
    return {**PROPOSAL.written(found), **DECIDABLE.written(more)}


def _plan(plan: attestation.ModePlan, *, is_open: bool) -> dict[str, object]:
    return {
        "mode": plan.mode,
        "grace_seconds": plan.grace.total_seconds(),
        "weakens": attestation.weakens(plan.mode, attestation.mode_in_force()),
        "then": plan.impact,
        "now": impact_now(attestation.Mode(plan.mode), now=timezone.now()) if is_open else None,
    }
