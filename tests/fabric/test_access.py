"""Who may open what: every page, every role, strangers too."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import URLPattern, reverse

from attestation import service
from attestation.core.ima_templates import decode_line
from attestation.core.runtime_findings import unknown_file
from attestation.models import Attestation
from fabric.machine_orders import order_machine
from fabric.models import Membership, VirtualMachine
from fabric.template_disks import add_template
from fabric.tokens import make_token
from fabric.urls import urlpatterns
from kps import service as kps
from tests.attestation.conftest import Portal
from tests.certificate_forge import MIDDLE
from tests.ci_policies import STRICT
from tests.fabric import shielding
from tests.fabric.conftest import REASON, asks, known, newest, person, sequenced, waiting_lift
from tests.ima_lists import line_of, ng
from tests.kps.core.test_catalog import TOKEN
from tests.kps.parties import protector
from tests.kps.shielding import VALUES
from tests.machines import Machine
from tests.measuring import FILES, lines

STAFF = {"admin", "approver", "auditor"}
TENANTS = {"owner", "operator"}
EVERYBODY = STAFF | TENANTS | {"stranger_tenant", "nobody"}
MAKER_ACTS = (
    *("upload-bundle", "import-bundle", "maker-on", "maker-off"),
    *("authority-on", "authority-off", "allow-exception", "end-exception"),
)
STOP_ACTS = ("stop-fabric", "stop-group", "stop-host", "lift-stop")
KEY_ACTS = ("prepare-pair", "promote-pair", "disable-pair", "enable-pair")
MAY_OPEN = {
    "fleet": STAFF,
    "hosts": STAFF,
    "host": STAFF,
    "announce-host": {"admin"},
    "propose-host": {"admin"},
    "capture-baseline": {"admin"},
    "revoke-host": {"admin", "approver"},
    "revoke-certificate": {"admin", "approver"},
    "retire-baseline": {"admin", "approver"},
    "deny-certificates": {"admin", "approver"},
    "machines": STAFF,
    "proposals": STAFF,
    "proposal": STAFF,
    "mode": STAFF,
    "rehearsal": STAFF,
    "propose-mode": {"admin"},
    "stops": STAFF,
    **{name: {"admin", "approver"} for name in STOP_ACTS},
    **dict.fromkeys(("protectors", "protector", "denial-lift"), STAFF),
    **{name: {"admin"} for name in ("deny-protector", "propose-lift")},
    "roll-back-mode": {"approver"},
    "directory-groups": STAFF,
    "propose-directory-group": {"admin"},
    "retire-directory-group": {"admin", "approver"},
    "policies": STAFF,
    "group": STAFF,
    "draft": STAFF,
    "dry-run": STAFF,
    "add-group": {"admin"},
    "add-exception": {"admin"},
    "propose-draft": {"admin"},
    "runtime-policies": STAFF,
    "runtime-policy": STAFF,
    "runtime-policy-text": STAFF,
    "add-runtime-policy": {"admin"},
    "runtime-from-host": {"admin"},
    "accept-finding": {"admin"},
    "code-policies": STAFF,
    "code-policy": STAFF,
    "code-policy-file": STAFF,
    "add-code-policy": {"admin"},
    "changes": STAFF,
    "change": STAFF,
    "accept-change": {"admin"},
    "component": STAFF,
    "vouch": {"approver"},
    "makers": STAFF,
    "maker": STAFF,
    "authority": STAFF,
    "bundle": STAFF,
    **{name: {"approver"} for name in MAKER_ACTS},
    "baselines": STAFF,
    "baseline": STAFF,
    "upload-baseline": {"admin"},
    "propose-baseline": {"admin"},
    "amend-baseline": {"admin"},
    **dict.fromkeys(("keys", "guardian-pair", "pair-change"), STAFF),
    **{name: {"admin"} for name in KEY_ACTS},
    "attestations": STAFF,
    "attestation": STAFF,
    "releases": STAFF,
    "audit": STAFF,
    "entry": STAFF | TENANTS,
    "export-log": STAFF | TENANTS | {"stranger_tenant"},
    "tenants": STAFF,
    "tenant": STAFF | TENANTS,
    "add-machine": {"owner"},
    **dict.fromkeys(("machine", "machine-statement", "evidence"), STAFF | TENANTS),
    **dict.fromkeys(("tenant-machines", "key-queue", "tenant-log"), STAFF | TENANTS),
    **{name: {"owner"} for name in ("bring-statement", "answer-host", "deny-machine", "allow-machine")},
    **{name: EVERYBODY - {"nobody"} for name in ("guardian", "guardian-file")},
    **dict.fromkeys(("shielding", "shielding-data", "shielding-file", "order", "order-file"), STAFF | TENANTS),
    **{name: {"owner"} for name in ("upload-shielding", "withdraw-shielding", "answer-making")},
    **{"shielding-statement": STAFF | TENANTS, "bring-shielding-statement": {"owner"}},
    **dict.fromkeys(("new-machine", "cancel-order"), TENANTS),
    **{name: EVERYBODY - {"nobody"} for name in ("templates", "template", "template-catalog")},
    **{name: {"admin"} for name in ("offer-template", "retire-template", "offer-template-again")},
    "proves": EVERYBODY,
    "api-tokens": EVERYBODY,
    "make-api-token": EVERYBODY,
    "end-api-token": {"admin", "approver"},
}
ACTS = (
    *("propose-host", "capture-baseline", "revoke-host", "revoke-certificate", "add-machine"),
    *("bring-statement", "answer-host", "deny-machine", "allow-machine"),
    *("upload-shielding", "withdraw-shielding", "answer-making", "new-machine", "cancel-order"),
    "bring-shielding-statement",
    *("retire-baseline", "deny-certificates", "announce-host"),
    *("add-group", "add-exception", "propose-draft"),
    *("accept-change", "vouch"),
    *("propose-mode", "roll-back-mode", "propose-directory-group", "retire-directory-group"),
    *("upload-baseline", "propose-baseline", "amend-baseline"),
    *MAKER_ACTS,
    *KEY_ACTS,
    *STOP_ACTS,
    *("deny-protector", "propose-lift"),
    *("add-runtime-policy", "runtime-from-host", "accept-finding", "add-code-policy"),
    *("offer-template", "retire-template", "offer-template-again"),
    "end-api-token",
)
# Buttons without a page of their own.
BUTTONS = ("start-draft", "promote", "drop-draft", "start-dry-run", "drop-baseline")
BASELINE_ACTS = ("retire-baseline", "amend-baseline", "propose-baseline", "drop-baseline")
# Open to everybody, or sends each to the page that is theirs.
OPEN = {"api-schema", "api-docs", "healthz", "login", "logout", "theme", "home"}


def found_a_file(fleet: Portal, machine: Machine) -> int:
    """An attestation like the machine's newest, which found a file that nobody approved."""
    row = Attestation.objects.get(pk=newest(machine))
    row.pk, row.challenge_id = None, UUID(fleet.challenge(machine).json()["id"])
    row.findings = [asdict(unknown_file(decode_line(line_of(ng(b"/opt/new")))))]
    row.save(force_insert=True)
    return int(row.pk)


@pytest.fixture
def addresses(fleet: Portal, healthy: Machine, admin: User, approver: User, machine: VirtualMachine) -> dict[str, str]:
    """The address of every page, of things that exist."""
    attestation_id = newest(healthy)
    proposal = service.capture_baseline(attestation_id, name="second", by=admin, reason=REASON, now=datetime.now(UTC))
    certificate = service.certificates(UUID(healthy.attester)).first()
    assert certificate is not None
    change = service.changes()[0]
    draft = service.start_draft("default", title="Stricter", by=admin, now=datetime.now(UTC))
    run = service.start_dry_run(draft.pk, by=admin, now=datetime.now(UTC))
    now = datetime.now(UTC)
    runtime = service.runtime_policy_from_text(
        lines(*FILES), name="files", excludes=(), signers=b"", origin="a test", by=admin, now=now
    )
    code = service.add_code_policy(STRICT.binary, name="Hosts", file_name="SiPolicy.p7b", by=admin, now=now)
    root = service.endorsers(service.attester(UUID(healthy.attester)))[-1]
    bundle = service.upload_bundle(MIDDLE.read.der, file_name="middle.crt", by=approver, now=now)
    directory = service.propose_kerberos_group(
        "S-1-5-21-1-2-3-1104", "Guarded Hosts", by=admin, reason=REASON, now=datetime.now(UTC)
    )
    token, _ = make_token("ci", lifetime=timedelta(days=1), by=admin, reason=REASON, now=now)
    template = add_template(TOKEN.encode(), by=admin, now=now)
    kps.guardian_fingerprint(now=now)
    pair = kps.prepare(by=admin, reason=REASON, now=now)
    rotation = kps.propose(pair.number, "promote", by=admin, reason=REASON, now=now)
    record = known(protector(), by=admin)
    asked = asks(record, attestation_id=attestation_id)
    owner = person("otto")
    Membership.objects.create(tenant=machine.tenant, user=owner, role=Membership.Role.OWNER)
    data, ordered = shielding.uploaded(machine.tenant, owner), shielding.template(admin, "12.9")
    order = order_machine(data, ordered, "web", memory=512, values=VALUES, by=owner, now=now)
    arguments: dict[str, list[object]] = {
        **{name: [pair.number] for name in ("guardian-pair", "promote-pair", "disable-pair", "enable-pair")},
        "pair-change": [rotation.pk],
        "entry": [sequenced(machine.tenant.owner_fingerprint)],
        **{name: [template.pk] for name in ("template", "template-catalog", "retire-template", "offer-template-again")},
        "end-api-token": [token.pk],
        "retire-directory-group": [directory.kerberos_group_id],
        **{name: [root.vendor_id] for name in ("maker", "maker-on", "maker-off")},
        **{name: [root.vendor_id, "padding"] for name in ("allow-exception", "end-exception")},
        **{name: [root.pk] for name in ("authority", "authority-on", "authority-off")},
        **{name: [bundle.pk] for name in ("bundle", "import-bundle")},
        **{name: ["hostkey"] for name in ("rehearsal", "propose-mode")},
        "runtime-policy": [runtime.pk],
        "runtime-policy-text": [runtime.pk],
        "runtime-from-host": [attestation_id],
        "accept-finding": [found_a_file(fleet, healthy), 0],
        "code-policy": [code.pk],
        "code-policy-file": [code.pk],
        "start-draft": ["default"],
        "promote": ["default"],
        "drop-draft": [draft.pk],
        "start-dry-run": [draft.pk],
        "group": ["default"],
        "draft": [draft.pk],
        "dry-run": [run.pk],
        "add-exception": [draft.pk],
        "propose-draft": [draft.pk],
        "host": [healthy.attester],
        "stop-host": [healthy.attester],
        "stop-group": ["default"],
        "lift-stop": [service.stop_group("default", by=admin, reason=REASON, now=now).pk],
        "propose-host": [healthy.attester],
        "revoke-host": [healthy.attester],
        "capture-baseline": [attestation_id],
        "attestation": [attestation_id],
        "revoke-certificate": [certificate.serial],
        "proposal": [proposal.pk],
        "baseline": [proposal.baseline_id],
        **{name: [change.signature] for name in ("change", "accept-change")},
        **{name: [change.differences[0]["seen"]] for name in ("component", "vouch")},
        **{name: [proposal.baseline_id] for name in BASELINE_ACTS},
        **{name: ["brandt"] for name in ("tenant", "add-machine", "tenant-machines", "key-queue", "tenant-log")},
        **{name: [machine.pk] for name in ("machine", "machine-statement", "bring-statement")},
        **{name: [machine.pk] for name in ("deny-machine", "allow-machine")},
        **{name: [record.pk] for name in ("protector", "deny-protector", "propose-lift")},
        "denial-lift": [waiting_lift(admin).pk],
        "answer-host": [machine.pk, asked.pk],
        "evidence": ["brandt", attestation_id],
        **{name: ["brandt"] for name in ("shielding", "upload-shielding", "new-machine")},
        **{name: [data.pk] for name in ("shielding-data", "shielding-file", "withdraw-shielding")},
        **{name: [data.pk] for name in ("shielding-statement", "bring-shielding-statement")},
        "answer-making": [data.pk, asks(kps.protectors_of([data.key])[data.key]).pk],
        **{name: [order.pk] for name in ("order", "order-file", "cancel-order")},
    }
    return {name: reverse(name, args=arguments.get(name)) for name in (*MAY_OPEN, *BUTTONS)}


def names() -> Iterator[str]:
    for pattern in urlpatterns:
        if isinstance(pattern, URLPattern):
            assert pattern.name is not None
            yield pattern.name


def test_every_address_has_a_line_in_this_table() -> None:
    assert set(names()) == set(MAY_OPEN) | OPEN | set(BUTTONS)


def test_a_stranger_is_sent_to_sign_in(addresses: dict[str, str]) -> None:
    for name, address in addresses.items():
        for answer in (Client().get(address), Client().post(address)):
            refused = answer.status_code == 302 and answer["Location"].startswith(reverse("login"))
            assert refused or answer.status_code == 405, name


@pytest.mark.parametrize("role", sorted(EVERYBODY))
def test_a_role_reaches_its_pages_and_no_others(
    role: str,
    addresses: dict[str, str],
    browse: Callable[[User | None], Client],
    request: pytest.FixtureRequest,
) -> None:
    client = browse(request.getfixturevalue(role))
    for name, roles in MAY_OPEN.items():
        expected = {200} if role in roles else {403, 404}
        assert client.get(addresses[name]).status_code in expected, name


@pytest.mark.parametrize("role", sorted(EVERYBODY))
def test_an_act_by_the_wrong_role_is_refused(
    role: str,
    addresses: dict[str, str],
    browse: Callable[[User | None], Client],
    request: pytest.FixtureRequest,
) -> None:
    client = browse(request.getfixturevalue(role))
    for name in ACTS:
        if role not in MAY_OPEN[name]:
            assert client.post(addresses[name], {"reason": REASON}).status_code in {403, 404}, name
    for name in BUTTONS:
        assert client.get(addresses[name]).status_code == 405, name
        assert role == "admin" or client.post(addresses[name]).status_code == 403, name


@pytest.mark.parametrize(
    ("role", "target"),
    [
        ("admin", "/fleet/"),
        ("approver", "/fleet/"),
        ("auditor", "/fleet/"),
        ("owner", "/tenants/brandt/"),
        ("operator", "/tenants/brandt/"),
    ],
)
def test_everybody_starts_at_the_page_that_is_theirs(
    role: str, target: str, browse: Callable[[User | None], Client], request: pytest.FixtureRequest
) -> None:
    assert browse(request.getfixturevalue(role)).get("/")["Location"] == target


def test_someone_without_a_role_is_told_so(nobody: User, browse: Callable[[User | None], Client]) -> None:
    assert "no role here yet" in browse(nobody).get("/").content.decode()


def test_the_navigation_offers_no_page_that_would_refuse(
    addresses: dict[str, str], owner: User, auditor: User, browse: Callable[[User | None], Client]
) -> None:
    assert 'href="/audit/"' not in browse(owner).get("/tenants/brandt/").content.decode()
    page = browse(auditor).get(addresses["host"]).content.decode()
    assert not any(act in page for act in ("Revoke host", "Capture baseline", "Put forward", "Revoke certificate"))
