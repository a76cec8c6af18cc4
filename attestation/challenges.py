"""Challenges: what makes Evidence fresh. Each is given to one host, lives a minute and is answered once."""

import secrets
from datetime import datetime
from typing import Final
from uuid import UUID, uuid4

from django.conf import settings

from attestation import strangers
from attestation.errors import ChallengeSpent, UnknownAttester
from attestation.models import Challenge
from attestation.opening import Opening
from attestation.opening import spend as opening_of
from ledger.statements import Part, insert_and_read, worded

NONCE_SIZE = 32

_ASKED: Final = Part(
    Challenge,
    "attestation_challenge",
    "id",
    "attester_id",
    "nonce",
    "event_log_sha256",
    "send_event_log",
    "send_ima_log",
    "ima_from",
    "trial",
    "expires_at",
)
_ASK: Final = worded(
    """
INSERT INTO attestation_challenge
  (id, nonce, created_at, expires_at, attester_id, event_log_sha256, send_event_log, send_ima_log,
   ima_from, trial)
SELECT %s, %s, %s, %s, host.id, COALESCE(log.sha256, ''), log.sha256 IS NULL, host.state = 'approved',
  COALESCE(ima."offset", 0), %s
FROM attestation_attester AS host
LEFT JOIN attestation_blob AS log ON log.sha256 = %s
LEFT JOIN attestation_imaprogress AS ima ON ima.attester_id = host.id AND ima.reset_count = %s
WHERE host.id = %s AND host.state IN ('pending', 'approved')
RETURNING :asked
""",
    asked=_ASKED,
)


def new_challenge(
    attester_id: UUID, event_log_sha256: str, *, boot: int | None = None, trial: bool = False, now: datetime
) -> Challenge:
    """Return a challenge of 32 random bytes that lives 60 s and answers once.

    An event log that is known here by its digest does not have to travel. `boot` is the host's word for its TPM's
    resetCount: when it is the boot whose IMA list is known here in part, only the rest has to travel. A wrong word
    gains nothing, the rest would not lead to the quoted PCR 10. A list is asked for of approved hosts only. What a host
    answers to a `trial` earns nothing and changes nothing. Raises `UnknownAttester` for hosts that nobody enrolled, and
    for rejected and revoked ones alike.
    """
    strangers.forget(lambda: Challenge.objects.filter(spent_at=None), now=now)
    nonce, expires = secrets.token_bytes(NONCE_SIZE), now + settings.CHALLENGE_LIFETIME
    values = [uuid4(), nonce, now, expires, trial, event_log_sha256, boot, attester_id]
    challenge = insert_and_read(_ASKED, _ASK, values)
    if challenge is None:
        refusal = UnknownAttester("This host is not enrolled here, or it was rejected or revoked.")
        strangers.refused("challenge.refused", f"host:{attester_id}", refusal, now=now)
        raise refusal
    return challenge


def require_open(challenge_id: UUID, *, now: datetime) -> bool:
    """Refuse Evidence that cannot count before it is read, and say whether an IMA list was asked for with it.

    Strangers have no challenge to send a large body under, and hosts that wait none to send the largest.
    """
    live = Challenge.objects.filter(pk=challenge_id, spent_at=None, expires_at__gt=now)
    asked = live.values_list("send_ima_log", flat=True).first()
    if asked is None:
        raise _not_open(challenge_id, now=now)
    return asked


def spend(challenge_id: UUID, *, now: datetime) -> Opening:
    """Have a challenge answered that nobody has answered, and return what its appraisal rests on."""
    opening = opening_of(challenge_id, now=now)
    if opening is None:
        raise _not_open(challenge_id, now=now)
    return opening


def _not_open(challenge_id: UUID, *, now: datetime) -> ChallengeSpent:
    """Record an answer that came twice, too late or to nothing, which is what a replay looks like."""
    refusal = ChallengeSpent("This challenge is unknown, expired or used. Ask for a new one.")
    strangers.refused("challenge.refused", f"challenge:{challenge_id}", refusal, now=now)
    return refusal
