"""Trials: a host asks what its verdict would be (`guardhouse host diagnose`), and nothing comes of the answer.

Asking is no way to fail unseen: the answer is kept for good and shown as what it is, and of a host that people have
approved each has its leaf in the ledger. A host that wants a certificate has to attest.
"""

import logging
from datetime import datetime
from typing import Final
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from attestation.models import Attestation, Attester, Trial
from attestation.opening import Opening
from ledger import service as ledger

_KEPT: Final = ("at", "mode", "status", "substatus", "code", "findings", "policy_version", "pcrs", "evidence")

log = logging.getLogger(__name__)


def keep(opening: Opening, found: Attestation) -> None:
    """Keep what an attestation would have been, and leave the host as it is shown and what it holds alone."""
    host = opening.host
    outcome = "passed" if found.status == "Passed" else "failed"
    with transaction.atomic():
        trial = _kept(opening, found)
        # Who waits for approval can ask as often as it likes, and the ledger can never be pruned.
        if host.state == Attester.State.APPROVED:
            _tell(opening, trial, actor=host.subject, act=f"trial.{outcome}", now=found.at)
    log.info("trial %s of host %s: %s", trial.pk, host.pk, trial.status)


def keep_refused(opening: Opening, found: Attestation, *, actor: str) -> None:
    """Keep forged or broken Evidence; for the caller's transaction."""
    trial = _kept(opening, found)
    _tell(opening, trial, actor=actor, act="trial.refused", now=found.at)
    log.warning("trial %s of host %s refused: %s", trial.pk, opening.host.pk, trial.code)


def trials(attester_id: UUID) -> QuerySet[Trial]:
    """Return a host's trials, newest first."""
    return Trial.objects.filter(attester_id=attester_id)


def _kept(opening: Opening, found: Attestation) -> Trial:
    values = {name: getattr(found, name) for name in _KEPT}
    return Trial.objects.create(attester=opening.host, challenge=opening.challenge, **values)


def _tell(opening: Opening, trial: Trial, *, actor: str, act: str, now: datetime) -> None:
    detail = {
        "name": opening.host.name,
        "trial": trial.pk,
        "status": trial.status,
        "code": trial.code,
        "codes": [finding["code"] for finding in trial.findings],
        "policy": trial.policy_version,
        "mode": trial.mode,
    }
    ledger.record(actor=actor, act=act, subject=opening.host.subject, detail=detail, now=now)
