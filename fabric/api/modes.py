"""The attestation mode by API: what is in force, who is ready for another, and the switch."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import ClassVar, Final

from django.http import Http404
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from attestation import service as attestation
from attestation.errors import CannotSwitch
from fabric.api.access import acting, require_confirmed
from fabric.api.proposals import shown
from fabric.api.resource import PortalView, listed
from fabric.api.serializers import (
    ConfirmedAct,
    ImpactSerializer,
    ModeSerializer,
    ProposalDetailSerializer,
    ReadinessSerializer,
    RehearsalQuestion,
    RehearsalSerializer,
    SwitchAct,
    SwitchSerializer,
    WordsSerializer,
)
from fabric.impact import impact_now, impact_of, rehearsed
from fabric.mode_words import MODES, ModeWords, words_of

HISTORY: Final = 20
WORDS, IMPACT, TAKEN = WordsSerializer(), ImpactSerializer(), SwitchSerializer()
REHEARSAL, READINESS = RehearsalQuestion(), ReadinessSerializer()
SWITCH, CONFIRMED = SwitchAct(), ConfirmedAct()
STANDING: Final[dict[str, Callable[[attestation.Readiness], bool]]] = {
    "": lambda row: True,
    "ready": lambda row: row.ready,
    "unready": lambda row: not row.ready,
    "losing": lambda row: row.loses,
}


class ModeView(PortalView):
    needs: ClassVar = {"GET": "fabric.view_fleet"}

    @extend_schema(responses=ModeSerializer)
    def get(self, request: Request) -> Response:
        """Tell the mode in force, what it proves, where the last switch stands, and the history."""
        return Response(standing(now=timezone.now()))


class RehearsalView(PortalView):
    needs: ClassVar = {"GET": "fabric.view_fleet"}

    @extend_schema(parameters=[RehearsalQuestion], responses=RehearsalSerializer)
    def get(self, request: Request, slug: str) -> Response:
        """Tell of every host whether it is ready for another mode, and what to do; those that would lose come first."""
        wanted, asked = other_mode(slug), REHEARSAL.read(request.query_params)
        rows = rehearsed(wanted, now=timezone.now())
        fits, host = STANDING[asked.get("standing", "")], asked.get("host", "")
        answer = listed([row for row in rows if fits(row) and host in row.known.name], request, READINESS)
        whole = {"mode": WORDS.written(words_of(wanted)), "impact": IMPACT.written(impact_of(rows))}
        return Response({**whole, **answer.data})


class SwitchesView(PortalView):
    needs: ClassVar = {"POST": "attestation.propose"}

    @extend_schema(request=SwitchAct, responses={201: ProposalDetailSerializer})
    def post(self, request: Request, slug: str) -> Response:
        """Put a switch forward; somebody else decides it. A mode that proves less is confirmed by its name."""
        wanted, asked = other_mode(slug), SWITCH.read(request.data)
        by = acting(request, asked)
        if attestation.weakens(wanted, attestation.mode_in_force()):
            require_confirmed(asked.get("confirm"), wanted.label, f"{wanted.label} mode proves less than this one")
        proposal = attestation.propose_switch(
            wanted, grace=timedelta(hours=asked["grace_hours"]), by=by, reason=asked["reason"], now=timezone.now()
        )
        return Response(shown(proposal.pk, by), status=201)


class RollbackView(PortalView):
    needs: ClassVar = {"POST": "attestation.decide"}

    @extend_schema(request=ConfirmedAct, responses=ModeSerializer)
    def post(self, request: Request) -> Response:
        """Take the last switch back, confirmed by the name of the mode that the fabric goes back to."""
        asked = CONFIRMED.read(request.data)
        by, now = acting(request, asked), timezone.now()
        current = attestation.switches()[0]
        if attestation.can_roll_back(current, now=now):
            require_confirmed(asked["confirm"], current.get_before_display(), "A switch is taken back at once")
        attestation.roll_back(by=by, reason=asked["reason"], now=now)
        return Response(standing(now=timezone.now()))


def other_mode(slug: str) -> attestation.Mode:
    """Return the mode of an address, unless it is the one in force."""
    if slug not in attestation.Mode.values:
        raise Http404
    wanted = attestation.Mode(slug)
    if wanted == attestation.mode_in_force():
        raise CannotSwitch(f"{wanted.label} mode is in force already.")
    return wanted


def _other(words: ModeWords, now: datetime) -> dict[str, object]:
    return {**WORDS.written(words), "impact": IMPACT.written(impact_now(words.mode, now=now))}


def standing(*, now: datetime) -> dict[str, object]:
    """Return what the API says of the mode, as things stand."""
    history = attestation.switches()[:HISTORY]
    current = history[0]
    until = current.before_until if current.before_until and current.before_until > now else None
    waiting = attestation.proposals(state="open").filter(plan__isnull=False).first()
    return {
        "in_force": WORDS.written(words_of(current.mode)),
        "stage": "grace" if until else "settled",
        "grace_ends": until,
        "can_roll_back": attestation.can_roll_back(current, now=now),
        "open_proposal": waiting.pk if waiting else None,
        "others": [_other(words, now) for words in MODES if words.mode != current.mode],
        "history": [TAKEN.written(each) for each in history],
    }
