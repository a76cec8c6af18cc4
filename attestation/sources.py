"""Whose word may be a model for others: hosts that people have not turned away."""

from attestation.errors import CannotApprove
from attestation.models import Attestation, Attester, Baseline


def require_source(attester: Attester) -> None:
    """Refuse what a host measured that people have turned away: its word is no model for others."""
    if attester.state in (Attester.State.REJECTED, Attester.State.REVOKED):
        raise CannotApprove(f"{attester.name}, whose measurements these are, is {attester.state} by now.")


def require_sources(baseline: Baseline) -> None:
    """Refuse a baseline if a host whose measurements it brings was turned away meanwhile.

    What an amended baseline has from the one before it was approved then, and stays approved.
    """
    settled = set() if baseline.amends is None else set(baseline.amends.sources)
    brought = [number for number in baseline.sources if number not in settled]
    for source in Attestation.objects.select_related("attester").filter(pk__in=brought):
        require_source(source.attester)
