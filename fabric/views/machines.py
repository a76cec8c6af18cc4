"""One virtual machine: who may run it, who holds its key, what waits for its owner, and the owner's acts on it."""

from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import BadRequest, PermissionDenied
from django.core.paginator import Paginator
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.http import content_disposition_header
from django.views.decorators.http import require_GET, require_http_methods

from fabric import owner_acts
from fabric.access import page, person
from fabric.errors import explained
from fabric.forms import DangerForm, FreshForm
from fabric.logbook import places_of_releases
from fabric.models import ShieldingData, VirtualMachine
from fabric.owner_forms import APPROVE, AnswerForm, StatementForm, TakeStatementForm
from fabric.tenancy import speaks_for
from kps import service as kps
from kps.core import jose
from kps.core.release_policy import in_words

PER_PAGE = 15
STATEMENTS = 10
OFFLINE = 5


@require_GET
@login_required
def machine(request: HttpRequest, machine_id: int) -> HttpResponse:
    found, now = _found(request, machine_id), timezone.now()
    owner, protector_id = found.key
    record = kps.protectors_of([found.key]).get(found.key)
    releases = kps.releases(owner_fingerprint=owner).filter(Q(protector_id=protector_id) | Q(made_id=protector_id))
    rows = Paginator(releases, PER_PAGE).get_page(request.GET.get("page"))
    told = kps.told(record) if record else None
    context = {
        "machine": found,
        "tenant": found.tenant,
        "record": record,
        "told": told,
        "policy": in_words(told.chain.statement.policy) if told else (),
        "statements": kps.statements(record, most=STATEMENTS) if record else (),
        "holding": kps.holding(owner, protector_id, now=now),
        "offline": kps.offline_starts(owner, protector_id, most=OFFLINE),
        "waiting": kps.pending(owner_fingerprint=owner, now=now).filter(record__protector_id=protector_id),
        "rows": rows,
        "newest": releases.first(),
        "places": places_of_releases(list(rows)),
        "vms": {protector_id: found},
        "speaks": speaks_for(request.user, found.tenant),
    }
    return page(request, "fabric/machine.html", context)


@require_GET
@login_required
def machine_statement(request: HttpRequest, machine_id: int) -> HttpResponse:
    """Give the owner's newest statement as it was signed, for the owner to change."""
    return newest_statement(_found(request, machine_id))


def newest_statement(about: VirtualMachine | ShieldingData) -> HttpResponse:
    chain = kps.newest_chain(*about.key)
    named = content_disposition_header(True, f"{about.name}.statement-{chain.statement.serial}.json")
    content = jose.canonical(chain.document) + b"\n"
    return HttpResponse(content, content_type="application/json", headers={"Content-Disposition": named})


@require_http_methods(["GET", "POST"])
@login_required
@explained
def bring_statement(request: HttpRequest, machine_id: int) -> HttpResponse:
    """Show what a newer statement changes, and only then ask whether it shall hold; nothing is kept before that."""
    found = _own(request, machine_id)
    return brought(request, found, newest=reverse("machine-statement", args=[found.pk]))


def brought(request: HttpRequest, about: VirtualMachine | ShieldingData, *, newest: str) -> HttpResponse:
    """Take a statement in two steps: show it, then let it hold. `newest` is where the one in force is given."""
    overtaken = isinstance(getattr(request, "refusal", None), owner_acts.StatementOvertaken)
    if "content" in request.POST and (request.method == "POST" or overtaken):
        return _take(request, about)
    form = StatementForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        return _preview(request, about, form.cleaned_data["file"])
    context = {"form": form, "about": about, "tenant": about.tenant, "newest": newest}
    return page(request, "fabric/bring_statement.html", context)


def _take(request: HttpRequest, about: VirtualMachine | ShieldingData) -> HttpResponse:
    form = TakeStatementForm(request.POST)
    if not form.is_valid():
        raise BadRequest("The page that was shown did not come back whole.")
    content, seen = form.cleaned_data["content"], form.cleaned_data["seen"]
    if request.method != "POST":  # overtaken a moment ago: shown anew, beside what is in force by now
        return _preview(request, about, content)
    chain = owner_acts.bring(about, content, seen=seen, by=person(request), now=timezone.now())
    messages.success(request, f"Statement {chain.statement.serial} holds. The next release of this key goes by it.")
    return redirect(about)


def _preview(request: HttpRequest, about: VirtualMachine | ShieldingData, content: bytes) -> HttpResponse:
    brought = owner_acts.examine(about, content, by=person(request), now=timezone.now())
    context = {
        "about": about,
        "makes": isinstance(about, ShieldingData),
        "tenant": about.tenant,
        "brought": brought,
        "policy": in_words(brought.after.statement.policy),
        "form": TakeStatementForm.of(content, seen=brought.before.statement.serial),
    }
    return page(request, "fabric/take_statement.html", context)


@require_http_methods(["GET", "POST"])
@login_required
@explained
def answer_host(request: HttpRequest, machine_id: int, approval_id: UUID) -> HttpResponse:
    """Let the owner approve or decline one start that waits for it."""
    return answered(request, _own(request, machine_id), approval_id)


def answered(request: HttpRequest, about: VirtualMachine | ShieldingData, approval_id: UUID) -> HttpResponse:
    """Ask an owner about one release, or take the answer."""
    asked = owner_acts.waiting(about, approval_id, now=timezone.now())
    form = AnswerForm(request.POST or None, request=request, needs_key=asked.needs_key)
    if request.method == "POST" and form.is_valid():
        approve, reason = form.cleaned_data["decision"] == APPROVE, form.cleaned_data["reason"]
        owner_acts.answer(about, approval_id, approve=approve, reason=reason, by=person(request), now=timezone.now())
        said = "Approved. The key goes to that host once" if approve else "Declined. No key goes to that host"
        messages.success(request, f"{said}{', when it asks again within 30 minutes' if approve else ''}.")
        return redirect(about)
    context = {
        "form": form,
        "about": about,
        "makes": isinstance(about, ShieldingData),
        "tenant": about.tenant,
        "asked": asked,
    }
    return page(request, "fabric/answer_host.html", context)


@require_http_methods(["GET", "POST"])
@login_required
@explained
def deny_machine(request: HttpRequest, machine_id: int) -> HttpResponse:
    """Show whom a denial reaches and whom not, and let the owner deny every release of this key."""
    found, now = _own(request, machine_id), timezone.now()
    form = DangerForm(request.POST or None, request=request, expected=found.name, of="VM")
    if request.method == "POST" and form.is_valid():
        owner_acts.deny(found, reason=form.cleaned_data["reason"], by=person(request), now=now)
        messages.success(request, f"The key of {found.name} is denied. No host gets it from now on.")
        return redirect(found)
    record = kps.protectors_of([found.key]).get(found.key)
    context = {
        "form": form,
        "machine": found,
        "tenant": found.tenant,
        "holding": kps.holding(*found.key, now=now),
        "waiting": kps.pending(owner_fingerprint=found.key[0], now=now).filter(record=record).count() if record else 0,
        "offline": kps.told(record).chain.statement.policy.offline if record else None,
    }
    return page(request, "fabric/deny_machine.html", context)


@require_http_methods(["GET", "POST"])
@login_required
@explained
def allow_machine(request: HttpRequest, machine_id: int) -> HttpResponse:
    """Let the owner take its denial back, after seeing whether anything else still stands against a start."""
    found = _own(request, machine_id)
    form = FreshForm(request.POST or None, request=request)
    if request.method == "POST" and form.is_valid():
        owner_acts.allow(found, reason=form.cleaned_data["reason"], by=person(request), now=timezone.now())
        messages.success(request, f"The key of {found.name} goes to hosts that pass again.")
        return redirect(found)
    record = kps.protectors_of([found.key]).get(found.key)
    context = {
        "form": form,
        "machine": found,
        "tenant": found.tenant,
        "record": record,
        "policy": in_words(kps.told(record).chain.statement.policy) if record else (),
    }
    return page(request, "fabric/allow_machine.html", context)


def _found(request: HttpRequest, machine_id: int) -> VirtualMachine:
    visible = VirtualMachine.objects.visible_to(request.user).select_related("tenant").distinct()
    return get_object_or_404(visible, pk=machine_id)


def _own(request: HttpRequest, machine_id: int) -> VirtualMachine:
    """Return the machine to an owner of its tenant, and to nobody else."""
    found = _found(request, machine_id)
    if not speaks_for(request.user, found.tenant):
        raise PermissionDenied
    return found
