"""Challenges: what makes Evidence fresh. Each is given to one host, lives a minute and is answered once."""

import secrets
from datetime import datetime
from uuid import UUID

from django.conf import settings

from attestation import strangers
from attestation.errors import ChallengeSpent, UnknownAttester
from attestation.models import Attester, Blob, Challenge, ImaProgress

NONCE_SIZE = 32
MAY_ATTEST = {Attester.State.PENDING, Attester.State.APPROVED}


def new_challenge(attester_id: UUID, event_log_sha256: str, *, boot: int | None = None, now: datetime) -> Challenge:
    """Return a challenge of 32 random bytes that lives 60 s and answers once.

    `boot` is the host's word for its TPM's resetCount: when it is the boot whose IMA list is known here in part, only
    the rest has to travel. A wrong word gains nothing, the rest would not lead to the quoted PCR 10. Raises
    `UnknownAttester` for hosts that nobody enrolled, and for rejected and revoked ones alike.
    """
    attester = Attester.objects.filter(pk=attester_id, state__in=MAY_ATTEST).first()
    if attester is None:
        refusal = UnknownAttester("This host is not enrolled here, or it was rejected or revoked.")
        strangers.refused("challenge.refused", f"host:{attester_id}", refusal, now=now)
        raise refusal
    strangers.forget(Challenge.objects.filter(spent_at=None), now=now)
    known = bool(event_log_sha256) and Blob.objects.filter(pk=event_log_sha256).exists()
    return Challenge.objects.create(
        attester=attester,
        nonce=secrets.token_bytes(NONCE_SIZE),
        event_log_sha256=event_log_sha256 if known else "",
        send_event_log=not known,
        ima_from=_known_ima(attester, boot),
        created_at=now,
        expires_at=now + settings.CHALLENGE_LIFETIME,
    )


def _known_ima(attester: Attester, boot: int | None) -> int:
    """Return how many bytes of this boot's IMA list are proved already."""
    progress = None if boot is None else ImaProgress.objects.filter(pk=attester.pk, reset_count=boot).first()
    return 0 if progress is None else progress.offset


def require_open(challenge_id: UUID, *, now: datetime) -> None:
    """Refuse Evidence that cannot count before it is read: strangers have no challenge to send 90 MB under."""
    if not Challenge.objects.filter(pk=challenge_id, spent_at=None, expires_at__gt=now).exists():
        raise _not_open(challenge_id, now=now)


def spend(challenge_id: UUID, *, now: datetime) -> Challenge:
    """Return a challenge that nobody has answered, and have it answered; of many that try, one gets it."""
    try:
        return Challenge.objects.spend(challenge_id, now=now)
    except ChallengeSpent as refusal:
        raise _not_open(challenge_id, now=now) from refusal


def _not_open(challenge_id: UUID, *, now: datetime) -> ChallengeSpent:
    """Record an answer that came twice, too late or to nothing, which is what a replay looks like."""
    refusal = ChallengeSpent("This challenge is unknown, expired or used. Ask for a new one.")
    strangers.refused("challenge.refused", f"challenge:{challenge_id}", refusal, now=now)
    return refusal
