"""Keys and guardians: this fabric's own keys, what holds them, and how its guardian's keys are changed."""

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods

from attestation import service as attestation
from fabric import key_queue
from fabric.access import needs, page, person
from fabric.custody_words import ROOT, WORDS
from fabric.decisions import deciders
from fabric.errors import explained
from fabric.forms import APPROVE, REJECT, DangerForm, DecisionForm, FreshForm
from fabric.key_queue import PairLine, rests, waiting_machines
from kps import service as kps
from kps.service import GuardianPair, RotationProposal
from ledger import service as ledger

PER_PAGE = 50
CHANGES = ("promote", "disable", "enable")
DECIDED = 20
NAMED = 20


@dataclass(frozen=True, slots=True)
class KeyLine:
    """One of the service's other keys."""

    name: str
    what: str
    rests: str
    since: datetime | None
    until: datetime | None
    in_use: bool


@require_GET
@needs("fabric.view_fleet")
def keys(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    kps.guardian_fingerprint(now=now)  # a fabric that nobody has asked yet makes its first pair
    rotation = key_queue.rotation()
    context = {
        "custody": WORDS[settings.CUSTODY],
        "lines": rotation.lines,
        "others": _other_keys(now),
        "prepared": rotation.of(GuardianPair.State.PREPARED),
        "former": rotation.of(GuardianPair.State.FORMER),
        "disabled": rotation.of(GuardianPair.State.DISABLED),
        **{"total": rotation.total, "left": rotation.left, "moved": rotation.moved},
        "open": kps.rotations(state="open"),
        "decided": kps.rotations().exclude(state="open")[:DECIDED],
    }
    return page(request, "fabric/keys.html", context)


def _other_keys(now: datetime) -> list[KeyLine]:
    """Return the signers of health certificates, and the log's key once there is one."""
    signers = [
        KeyLine(
            f"Health signer {signer.number}",
            "signs hosts’ health certificates" if in_use else "takes over when the one before lapses",
            rests(signer.sealed),
            x509.load_der_x509_certificate(bytes(signer.certificate)).not_valid_before_utc,
            signer.not_after,
            in_use,
        )
        for signer, in_use in attestation.signing_certificates(now=now)
    ]
    log = ledger.log_verifier()
    return signers if log is None else [*signers, KeyLine("Log", f"signs as {log.name}", ROOT, None, None, True)]


@require_GET
@needs("fabric.view_fleet")
def guardian_pair(request: HttpRequest, number: int) -> HttpResponse:
    pair = _pair(number)
    depending = kps.dependants(pair)
    rows = Paginator(depending, PER_PAGE).get_page(request.GET.get("page"))
    old = pair.state in (GuardianPair.State.FORMER, GuardianPair.State.DISABLED)
    context = {
        "pair": pair,
        "line": PairLine(pair, rows.paginator.count),
        "rows": rows,
        "queue": waiting_machines(kps.awaited(rows)),
        "owners": depending.order_by().values("owner_fingerprint").distinct().count(),
        "old": old,
        "open": kps.rotations(state="open").filter(pair=pair).first(),
        "history": kps.rotations().exclude(state="open").filter(pair=pair),
        "current": kps.pairs().get(state=GuardianPair.State.PRIMARY),
    }
    return page(request, "fabric/guardian_pair.html", context)


@require_http_methods(["GET", "POST"])
@needs("kps.rotate")
@explained
def prepare_pair(request: HttpRequest) -> HttpResponse:
    form = FreshForm(request.POST or None, request=request)
    if request.method == "POST" and form.is_valid():
        pair = kps.prepare(by=person(request), reason=form.cleaned_data["reason"], now=timezone.now())
        messages.success(request, f"{pair.name} is prepared and published. Owners may grant it from now on.")
        return redirect("guardian-pair", pair.number)
    current = kps.pairs().filter(state=GuardianPair.State.PRIMARY).first()
    return page(request, "fabric/prepare_pair.html", {"form": form, "current": current})


@require_http_methods(["GET", "POST"])
@needs("kps.rotate")
@explained
def propose_pair(request: HttpRequest, number: int, change: str) -> HttpResponse:
    pair = _pair(number)
    stops = change == RotationProposal.Change.DISABLE
    form = (
        DangerForm(request.POST or None, request=request, expected=pair.name, of="key pair")
        if stops
        else FreshForm(request.POST or None, request=request)
    )
    if request.method == "POST" and form.is_valid():
        proposal = kps.propose(
            number, change, by=person(request), reason=form.cleaned_data["reason"], now=timezone.now()
        )
        messages.success(request, "The change is put forward. Somebody else decides it.")
        return redirect("pair-change", proposal.pk)
    asked = RotationProposal(pair=pair, change=change).title
    context = {"form": form, "change": change, "asked": asked, "stops": stops, **_effect(change, pair)}
    return page(request, "fabric/propose_pair.html", context)


@require_http_methods(["GET", "POST"])
@needs("fabric.view_fleet")
@explained
def pair_change(request: HttpRequest, proposal_id: int) -> HttpResponse:
    """A change of the guardian's keys that somebody has put forward; whoever may decide it does so here."""
    found = kps.rotations().filter(pk=proposal_id).first()
    if found is None:
        raise Http404
    choices = [(APPROVE, found.get_change_display()), (REJECT, "Reject")]
    form = DecisionForm(request.POST or None, request=request, choices=choices)
    if request.method == "POST" and form.is_valid():
        kps.decide(
            proposal_id,
            by=person(request),
            approve=form.cleaned_data["decision"] != REJECT,
            reason=form.cleaned_data["reason"],
            now=timezone.now(),
        )
        messages.success(request, "The decision is recorded and in force.")
        return redirect("pair-change", proposal_id)
    context = {
        "proposal": found,
        **_effect(found.change, found.pair),
        "form": form,
        "own": found.is_own(request.user),
        "deciders": deciders("kps.decide_rotation", found),
    }
    return page(request, "fabric/pair_change.html", context)


def _effect(change: str, pair: GuardianPair) -> dict[str, object]:
    """What a change would do now, and to whose VMs: by name as far as they are registered."""
    named = waiting_machines(kps.awaited(kps.dependants(pair)[:NAMED]))
    return {"pair": pair, "impact": kps.impact_of(change, pair), "named": named}


def _pair(number: int) -> GuardianPair:
    found = kps.pairs().filter(number=number).first()
    if found is None:
        raise Http404
    return found
