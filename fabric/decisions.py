"""What can be decided about a proposal, on its page and by the API alike."""

from django.conf import settings

from attestation.service import Proposal
from fabric.forms import APPROVE, APPROVE_UNENDORSED, REJECT
from fabric.models import Viewer


def offered(proposal: Proposal) -> list[tuple[str, str]]:
    """Offer what can be decided: a host without an EK certificate is approved only by saying so."""
    verdict = (proposal.attester.ek_verdict if proposal.attester else "") or "trusted"
    approve = {"trusted": [(APPROVE, "Approve")], "absent": [(APPROVE_UNENDORSED, "Approve without an EK certificate")]}
    return [*approve.get(verdict, []), (REJECT, "Reject")]


def is_own(proposal: Proposal, user: Viewer) -> bool:
    """Say whether four eyes keep this person from deciding it."""
    return settings.FOUR_EYES and proposal.proposed_by_id == user.pk
