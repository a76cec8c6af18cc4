"""The log: one entry with its proof."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_GET

from fabric import feed
from fabric.access import page
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
