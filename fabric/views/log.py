"""The log: one entry with its proof, and everything that a person may see of it, to take away."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.utils import timezone
from django.views.decorators.http import require_GET

from fabric import feed
from fabric.access import asked, page
from fabric.exports import download, export, owners_for, parse_since
from fabric.logbook import owners_seen_by
from ledger import service as ledger


@require_GET
@login_required
def entry(request: HttpRequest, index: int) -> HttpResponse:
    found = ledger.entry(index, owners=owners_seen_by(request.user))
    context = {
        "entry": found,
        "leaf": found.leaf,
        "line": feed.line(found.leaf),
        "verdict": "intact" if ledger.intact(found.leaf) else "altered",
        "proof": ledger.prove_leaf(bytes.fromhex(found.hash)),
        "key": ledger.log_verifier(),
        "content": ledger.entry_text(found.leaf),
    }
    return page(request, "fabric/entry.html", context)


@require_GET
@login_required
def export_log(request: HttpRequest) -> StreamingHttpResponse:
    now = timezone.now()
    lines = export(owners=owners_for(request.user), since=parse_since(asked(request, "since")), now=now)
    return download(request, lines, now=now)
