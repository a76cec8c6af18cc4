"""The portal's own words in templates: states, icons, moments, durations, digests."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from django import template
from django.template import Context
from django.templatetags.static import static
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from attestation.core.checks import CHECKS
from attestation.core.difference import Difference
from fabric.mode_words import ModeWords, words_of
from fabric.models import ShieldingData, VirtualMachine
from kps.service import ReleaseApproval

register = template.Library()

# Every state has a word, a shape and a meaning; the shape survives print and colour blindness.
STATES = {
    "pass": ("ok", "circle-check", "Pass"),
    "fail": ("bad", "circle-x", "Fail"),
    "unproven": ("warn", "help-circle", "Unproven"),
    "Passed": ("ok", "circle-check", "Passed"),
    "Expired": ("warn", "clock-x", "Expired"),
    "InsecureHostConfiguration": ("bad", "shield-x", "InsecureHostConfiguration"),
    "UnauthorizedHost": ("bad", "ban", "UnauthorizedHost"),
    "TpmError": ("bad", "cpu-off", "TpmError"),
    "TransientError": ("warn", "refresh", "TransientError"),
    "Unknown": ("off", "help-circle", "Unknown"),
    "NotInForce": ("off", "circle-dashed", "Mode not in force"),
    "NotConfigured": ("off", "circle-dashed", "NotConfigured"),
    "pending": ("wait", "hourglass", "Pending approval"),
    "open": ("wait", "hourglass", "Waits for a decision"),
    "drafted": ("off", "circle-dashed", "Not put forward"),
    "proposed": ("wait", "hourglass", "Waits for approval"),
    "approved": ("ok", "circle-check", "Approved"),
    "rejected": ("bad", "circle-x", "Rejected"),
    "revoked": ("bad", "ban", "Revoked"),
    "retired": ("off", "circle-minus", "Retired"),
    "offered": ("ok", "circle-check", "On offer"),
    "trusted": ("ok", "circle-check", "Chain verified"),
    "untrusted": ("warn", "certificate-off", "Issuer not trusted"),
    "absent": ("warn", "certificate-off", "No EK certificate"),
    "released": ("ok", "key", "Released"),
    "refused": ("bad", "ban", "Refused"),
    "denied": ("bad", "ban", "Denied"),
    "needs-key": ("wait", "key", "Needs the owner’s key"),
    "withdrawn": ("off", "circle-minus", "Withdrawn"),
    "kept": ("ok", "file-lock", "Kept"),
    "ordered": ("wait", "hourglass", "Ordered"),
    "made": ("ok", "circle-check", "Made"),
    "cancelled": ("off", "circle-minus", "Cancelled"),
    "fits": ("ok", "circle-check", "Fits"),
    "does not fit": ("bad", "circle-x", "Does not fit"),
    "waits-for-owner": ("wait", "hourglass", "Waits for the owner"),
    "shielded": ("ok", "shield-lock", "Shielded"),
    "encryption-supported": ("note", "lock", "Encryption-supported"),
    "changed": ("warn", "replace", "Changed"),
    "added": ("note", "plus", "Added"),
    "missing": ("bad", "minus", "Missing"),
    "removed": ("warn", "minus", "Removed"),
    "enforces": ("ok", "shield-check", "Enforces"),
    "audits": ("warn", "alert-triangle", "Audits only"),
    "allows everything": ("bad", "alert-octagon", "Allows everything"),
    "same": ("off", "equal", "Same"),
    "match": ("ok", "circle-check", "Match"),
    "differs": ("bad", "circle-x", "Differs"),
    "counts": ("ok", "circle-check", "Counts"),
    "turned off": ("off", "circle-minus", "Turned off"),
    "maker off": ("off", "circle-minus", "Off with its maker"),
    "known": ("off", "equal", "Known already"),
    "allowed": ("warn", "certificate", "Allowed"),
    "not allowed": ("off", "ban", "Not allowed"),
    "prepared": ("wait", "hourglass", "Prepared"),
    "primary": ("ok", "circle-check", "In use"),
    "former": ("note", "lock-open", "Opens still"),
    "disabled": ("off", "circle-minus", "Disabled"),
    "intact": ("ok", "circle-check", "Intact"),
    "altered": ("bad", "alert-octagon", "Altered"),
}
UNKNOWN_STATE = ("off", "help-circle")

# The first word that fits the start of an act decides how its line in a feed looks.
ACTS = (
    ("attestation.passed", "ok", "circle-check"),
    ("attestation.refused", "bad", "ban"),
    ("attestation.failed", "bad", "shield-x"),
    ("key.released", "ok", "key"),
    ("key.refused", "bad", "key-off"),
    ("key.returned", "note", "player-stop"),
    ("chain.taken", "note", "file-check"),
    ("chain.refused", "bad", "ban"),
    ("protector.denied", "bad", "ban"),
    ("protector.allowed", "ok", "key"),
    ("protector.lift_proposed", "wait", "hourglass"),
    ("protector.lift_rejected", "bad", "circle-x"),
    ("approval.given", "ok", "user-check"),
    ("approval.declined", "warn", "circle-x"),
    ("certificate.revoked", "bad", "certificate-off"),
    ("host.revoked", "bad", "ban"),
    ("host.rejected", "bad", "circle-x"),
    ("baseline.rejected", "bad", "circle-x"),
    ("host.approved", "ok", "user-check"),
    ("baseline.approved", "ok", "file-check"),
    ("host.enrolled", "wait", "hourglass"),
    ("host.identity_changed", "warn", "alert-triangle"),
    ("host.enrolment_refused", "bad", "ban"),
    ("host.activation_refused", "bad", "ban"),
    ("host.proposed", "wait", "hourglass"),
    ("baseline.captured", "wait", "file-check"),
    ("baseline.amended", "wait", "file-check"),
    ("baseline.proposed", "wait", "file-check"),
    ("host.endorsement_changed", "warn", "certificate-off"),
    ("authorities.imported", "ok", "certificate"),
    ("authority.enabled", "ok", "certificate"),
    ("authority.disabled", "warn", "certificate-off"),
    ("maker.enabled", "ok", "certificate"),
    ("maker.disabled", "warn", "certificate-off"),
    ("maker.exceptions_set", "note", "certificate"),
    ("runtime.added", "note", "file-check"),
    ("codepolicy.added", "note", "shield-lock"),
    ("template.retired", "warn", "circle-minus"),
    ("template.", "note", "template"),
    ("guardian.disabled", "warn", "key-off"),
    ("guardian.rejected", "bad", "circle-x"),
    ("guardian.promoted", "ok", "key"),
    ("guardian.", "note", "key"),
    ("custody.", "note", "key"),
    ("machine.made", "ok", "device-desktop"),
    ("machine.order_cancelled", "warn", "circle-minus"),
    ("machine.ordered", "wait", "hourglass"),
    ("shielding_data.withdrawn", "warn", "circle-minus"),
    ("shielding_data.", "note", "file-lock"),
    ("token.made", "note", "key"),
    ("token.ended", "warn", "key-off"),
)

UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


@register.simple_tag
def icon(name: str) -> SafeString:
    return format_html('<svg class="i" aria-hidden="true"><use href="{}#{}"/></svg>', static("vendor/icons.svg"), name)


@register.simple_tag
def state(word: str, pill: str = "") -> SafeString:
    """Show a state as icon and word, always both."""
    meaning, shape, text = STATES.get(str(word), (*UNKNOWN_STATE, str(word)))
    return format_html('<span class="st {} {}">{}{}</span>', meaning, pill, icon(shape), text)


@register.simple_tag
def act_icon(act: str) -> SafeString:
    meaning, shape = next(((m, s) for start, m, s in ACTS if act.startswith(start)), ("note", "info-circle"))
    return format_html('<span class="{}">{}</span>', meaning, icon(shape))


@register.filter
def when(moment: datetime | str | None) -> SafeString | str:
    """Show a clock time today, the weekday this week, the date before that; what a template cannot find is a `str`."""
    if not isinstance(moment, datetime):
        return "never"
    local, now = timezone.localtime(moment), timezone.localtime()
    if local.date() == now.date():
        text = f"{local:%H:%M:%S}"
    elif timedelta(0) < now - local < timedelta(days=6) or timedelta(0) < local - now < timedelta(days=6):
        text = f"{local:%a %H:%M}"
    else:
        text = f"{local.day} {local:%b %Y}"
    full = f"{local.day} {local:%b %Y, %H:%M:%S}"
    return format_html('<time datetime="{}" title="{}">{}</time>', moment.isoformat(), full, text)


@register.filter
def moment(value: datetime | str | None) -> SafeString | str:
    """Show date and time in full, for records."""
    if not isinstance(value, datetime):
        return "never"
    local = timezone.localtime(value)
    return format_html('<time datetime="{}">{} {}</time>', value.isoformat(), local.day, f"{local:%b %Y %H:%M:%S}")


@register.filter
def day(value: datetime | str | None) -> SafeString | str:
    """Show the day on which a certificate begins or ends, in UTC as it says; the last day that there is means never."""
    if not isinstance(value, datetime):
        return "never"
    if value.year == datetime.max.year:
        return "without an end"
    return format_html('<time datetime="{}">{} {}</time>', value.isoformat(), value.day, f"{value:%b %Y}")


@register.filter
def left(moment: datetime | None) -> str:
    """Say how long it is until a moment."""
    return "" if moment is None else duration(moment - timezone.now())


@register.filter
def ago(moment: datetime | None) -> str:
    """Say how long a moment is past."""
    return "" if moment is None else duration(timezone.now() - moment)


@register.filter
def words(mode: str) -> ModeWords:
    """Return what a mode is in plain words."""
    return words_of(mode)


@register.filter
def span(of: timedelta) -> str:
    return duration(of)


def duration(span: timedelta) -> str:
    """Say a duration in its two largest units."""
    seconds = max(int(span.total_seconds()), 0)
    parts: list[str] = []
    for name, size in UNITS:
        if seconds >= size or (parts and len(parts) < 2):
            parts.append(f"{seconds // size} {name}")
            seconds %= size
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if not part.startswith("0 ")) or "0 s"


@register.filter
def minutes_left(moment: datetime | None) -> int:
    return 0 if moment is None else max(int((moment - timezone.now()).total_seconds() // 60), 0)


@register.filter
def milliseconds(microseconds: int) -> str:
    return f"{microseconds / 1000:.0f} ms"


@register.filter
def digest(value: str, size: str = "") -> SafeString:
    """Show a digest's head; one click selects all of it."""
    return format_html('<code class="dg {}">{}</code>', size, value)


@register.simple_tag(takes_context=True)
def evidence_url(context: Context, attestation_id: int) -> str:
    """Return where whoever looks may see an attestation: on the tenant's own page, on the fleet's, or nowhere."""
    if tenant := context.get("tenant"):
        return reverse("evidence", args=[tenant.slug, attestation_id])
    return reverse("attestation", args=[attestation_id]) if context["perms"]["fabric"]["view_fleet"] else ""


@register.simple_tag
def answer_url(about: VirtualMachine | ShieldingData, asked: ReleaseApproval) -> str:
    """Return where an owner answers a host: on the page of what it would start, or would make a machine from."""
    name = "answer-making" if isinstance(about, ShieldingData) else "answer-host"
    return reverse(name, args=[about.pk, asked.pk])


@register.filter
def of(known: object, key: str) -> object:
    """Look a key up in what the page knows; nothing where it knows nothing."""
    return known.get(key) if isinstance(known, Mapping) else None


@register.filter
def person(actor: str) -> str:
    """Name an actor of the ledger for people."""
    return actor.removeprefix("user:")


@register.simple_tag
def marked(row: Difference, side: str) -> SafeString:
    """Show one side of a difference with the differing words struck (old) or underlined (new)."""
    expected = row.expected.words.text if row.expected else ""
    measured = row.measured.words.text if row.measured else ""
    text, other, tag = (expected, measured, "del") if side == "expected" else (measured, expected, "ins")
    spare = other.split()
    words = []
    for word in text.split():
        differs = word not in spare
        if not differs:
            spare.remove(word)
        words.append((mark_safe(f"<{tag}>" if differs else ""), word, mark_safe(f"</{tag}>" if differs else "")))  # noqa: S308  (literals)
    return format_html_join(" ", "{}{}{}", words)


@register.filter
def tpm_maker(identifier: str) -> str:
    """Spell the TCG vendor id of an EK certificate (`id:49465800`) as its letters (`IFX`)."""
    digits = identifier.removeprefix("id:")
    try:
        letters = bytes.fromhex(digits).rstrip(b"\0 ").decode("ascii")
    except ValueError:
        return identifier
    return letters if letters.isprintable() and letters else f"vendor {digits}"


@register.filter
def named(names: Mapping[str, str], identifier: str) -> str:
    """Return the name of what a document refers to by id, or the id's head for what is not there any more."""
    return names.get(identifier, identifier[:8])


@register.simple_tag
def check_title(code: str) -> str:
    """Return what a check asks; the baseline is asked apart from them."""
    check = CHECKS.get(code)
    return "The baseline matches" if check is None else check.title
