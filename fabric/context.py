"""What every page shows: the fabric, its mode, where this user may go, and whether the keys lie in a plain file."""

from dataclasses import dataclass

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from attestation import service as attestation
from fabric.models import Tenant, Viewer, VirtualMachine
from kps import service as kps
from ledger.custody import is_secure

MODES = {
    "tpm": ("TPM-trusted", "shield-check", False),
    "hostkey": ("Host key", "key", True),
    "kerberos": ("Kerberos", "users", True),
}
THEMES = ("light", "dark", "auto")


@dataclass(frozen=True, slots=True)
class Link:
    """One entry of the side navigation."""

    group: str
    text: str
    icon: str
    url: str
    count: int | None = None
    due: bool = False


def portal(request: HttpRequest) -> dict[str, object]:
    user: Viewer = request.user
    mode = attestation.mode_in_force()
    word, icon, weak = MODES[mode]
    theme = request.COOKIES.get("theme", "auto")
    return {
        "fabric_name": settings.FABRIC_NAME,
        "mode": {"word": word, "icon": icon, "weak": weak, "code": mode, "name": attestation.Mode(mode).label},
        "navigation": navigation(user),
        "insecure_custody": not is_secure(),
        "fabric_stop": user.is_authenticated and attestation.stops_in_force().filter(scope="fabric").first(),
        "four_eyes": settings.FOUR_EYES,
        "theme": theme if theme in THEMES else "auto",
        "now": timezone.now(),
        "time_zone": settings.TIME_ZONE,
        "version": "0.1",
        "role": _role(user),
    }


def navigation(user: Viewer) -> list[Link]:
    """Return where this user may go; a page that refuses a role is not offered to it."""
    if not user.is_authenticated:
        return []
    links = _staff_links(user) if user.has_perm("fabric.view_fleet") else _tenant_links(user)
    return [*links, Link("Assurance", "What this proves", "help-circle", reverse("proves"))]


def _staff_links(user: Viewer) -> list[Link]:
    counts = attestation.counts()
    waiting = counts.open_proposals + kps.rotations(state="open").count() + kps.lifts(state="open").count()
    machines, tenants = VirtualMachine.objects.visible_to(user), Tenant.objects.visible_to(user)
    links = [
        Link("Fleet", "Overview", "layout-dashboard", reverse("fleet")),
        Link("Fleet", "Hosts", "server-2", reverse("hosts"), counts.hosts),
        Link("Fleet", "Virtual machines", "device-desktop", reverse("machines"), machines.count()),
        Link("Fleet", "Templates", "template", reverse("templates")),
        Link("Trust", "Proposals", "git-compare", reverse("proposals"), waiting, waiting > 0),
        Link("Trust", "Changes", "replace", reverse("changes")),
        Link("Trust", "Attestation mode", "shield-check", reverse("mode")),
        Link("Trust", "Policies", "shield-check", reverse("policies")),
        Link("Trust", "Baselines", "file-check", reverse("baselines"), counts.baselines),
        Link("Trust", "Runtime policies", "checklist", reverse("runtime-policies")),
        Link("Trust", "Code integrity", "shield-lock", reverse("code-policies")),
        Link("Trust", "TPM makers", "certificate", reverse("makers")),
        Link("Keys", "Keys and guardians", "fingerprint", reverse("keys")),
        Link("Keys", "Key protectors", "file-lock", reverse("protectors")),
        Link("Keys", "Emergency stop", "ban", reverse("stops")),
        Link("Keys", "Key releases", "key", reverse("releases")),
        Link("Keys", "Tenants", "building", reverse("tenants"), tenants.count()),
        Link("Assurance", "Attestations", "report-search", reverse("attestations")),
    ]
    if user.has_perm("fabric.view_audit"):
        links.append(Link("Assurance", "Audit", "list-search", reverse("audit")))
    return links


def _tenant_links(user: Viewer) -> list[Link]:
    links, now = [], timezone.now()
    for tenant in Tenant.objects.visible_to(user):
        home, named = tenant.get_absolute_url(), [tenant.slug]
        waiting = kps.waiting_numbers([tenant.owner_fingerprint], now=now)
        links += [
            Link(tenant.name, "Overview", "layout-dashboard", home, waiting or None, waiting > 0),
            Link(
                tenant.name,
                "Virtual machines",
                "device-desktop",
                reverse("tenant-machines", args=named),
                tenant.machines.count(),
            ),
            Link(tenant.name, "Shielding data", "file-lock", reverse("shielding", args=named)),
            Link(tenant.name, "Who got my key", "key", f"{home}#releases"),
            Link(tenant.name, "What is recorded", "list-search", reverse("tenant-log", args=named)),
        ]
    fabric = [
        Link("Fabric", "Its guardian", "fingerprint", reverse("guardian")),
        Link("Fabric", "Templates", "template", reverse("templates")),
    ]
    return [*links, *fabric] if links else []


def _role(user: Viewer) -> str:
    if not user.is_authenticated:
        return ""
    names = [*user.groups.values_list("name", flat=True)]
    names += [f"Tenant {role}" for role in user.membership_set.values_list("role", flat=True).distinct()]
    return ", ".join(name[0].upper() + name[1:] for name in names) or "No role"
