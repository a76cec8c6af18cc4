"""What can be decided about a proposal, on its page and by the API alike."""

from django.contrib.auth.models import User
from django.db.models import QuerySet

from attestation.service import Proposal
from attestation.two_persons import PutForward
from fabric.forms import APPROVE, APPROVE_UNENDORSED, REJECT


def offered(proposal: Proposal) -> list[tuple[str, str]]:
    """Offer what can be decided: a host without an EK certificate is approved only by saying so."""
    verdict = (proposal.attester.ek_verdict if proposal.attester else "") or "trusted"
    approve = {"trusted": [(APPROVE, "Approve")], "absent": [(APPROVE_UNENDORSED, "Approve without an EK certificate")]}
    return [*approve.get(verdict, []), (REJECT, "Reject")]


def deciders(permission: str, proposal: PutForward) -> QuerySet[User]:
    """Return who may decide what somebody has put forward."""
    may = User.objects.with_perm(permission, backend="django.contrib.auth.backends.ModelBackend")
    return may.filter(is_superuser=False).exclude(pk=proposal.proposed_by_id)
