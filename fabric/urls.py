"""Every address of the portal and of the machine APIs."""

from django.contrib.auth import views as auth
from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.permissions import AllowAny

from fabric import errors
from fabric.views import (
    audit,
    baselines,
    bundles,
    changes,
    code,
    entrance,
    fleet,
    keys,
    log,
    machines,
    makers,
    modes,
    orders,
    policies,
    proofs,
    runtime,
    shielding,
    stops,
    templates,
    tenants,
    tokens,
    trust,
)

handler400 = errors.bad_request
handler403 = errors.permission_denied
handler404 = errors.page_not_found
handler500 = errors.server_error

OPEN = {"authentication_classes": [], "permission_classes": [AllowAny]}

urlpatterns = [
    path("attestation/v1/", include("attestation.urls")),
    path("kps/v1/", include("kps.urls")),
    path("ledger/v1/", include("ledger.urls")),
    path("api/v1/", include("fabric.api.urls")),
    path("api/schema/", SpectacularAPIView.as_view(**OPEN), name="api-schema"),
    path("api/docs/", SpectacularSwaggerSplitView.as_view(url_name="api-schema", **OPEN), name="api-docs"),
    path("healthz", entrance.healthz, name="healthz"),
    path("login/", auth.LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("logout/", auth.LogoutView.as_view(), name="logout"),
    path("theme/", entrance.theme, name="theme"),
    path("tokens/", tokens.api_tokens, name="api-tokens"),
    path("tokens/make/", tokens.make_api_token, name="make-api-token"),
    path("tokens/<uuid:token_id>/end/", tokens.end_api_token, name="end-api-token"),
    path("", entrance.home, name="home"),
    path("proves/", entrance.proves, name="proves"),
    # the fleet
    path("fleet/", fleet.fleet, name="fleet"),
    path("hosts/", fleet.hosts, name="hosts"),
    path("hosts/announce/", fleet.announce_host, name="announce-host"),
    path("hosts/<uuid:attester_id>/", fleet.host, name="host"),
    path("hosts/<uuid:attester_id>/propose/", fleet.propose_host, name="propose-host"),
    path("hosts/<uuid:attester_id>/revoke/", fleet.revoke_host, name="revoke-host"),
    path("certificates/<str:serial>/revoke/", fleet.revoke_certificate, name="revoke-certificate"),
    path("machines/", fleet.machines, name="machines"),
    # a tenant's machine
    path("machines/<int:machine_id>/", machines.machine, name="machine"),
    path("machines/<int:machine_id>/statement/", machines.machine_statement, name="machine-statement"),
    path("machines/<int:machine_id>/statement/bring/", machines.bring_statement, name="bring-statement"),
    path("machines/<int:machine_id>/deny/", machines.deny_machine, name="deny-machine"),
    path("machines/<int:machine_id>/allow/", machines.allow_machine, name="allow-machine"),
    path("machines/<int:machine_id>/approvals/<uuid:approval_id>/", machines.answer_host, name="answer-host"),
    # the log
    path("audit/entries/<int:index>/", log.entry, name="entry"),
    path("audit/export", log.export_log, name="export-log"),
    # trust
    path("proposals/", trust.proposals, name="proposals"),
    path("proposals/<int:proposal_id>/", trust.proposal, name="proposal"),
    path("changes/", changes.changes, name="changes"),
    path("changes/<slug:signature>/", changes.change, name="change"),
    path("changes/<slug:signature>/accept/", changes.accept_change, name="accept-change"),
    path("components/<slug:digest>/", changes.component, name="component"),
    path("components/<slug:digest>/vouch/", changes.vouch, name="vouch"),
    path("baselines/", baselines.baselines, name="baselines"),
    path("baselines/upload/", baselines.upload_baseline, name="upload-baseline"),
    path("baselines/<uuid:baseline_id>/", baselines.baseline, name="baseline"),
    path("baselines/<uuid:baseline_id>/propose/", baselines.propose_baseline, name="propose-baseline"),
    path("baselines/<uuid:baseline_id>/drop/", baselines.drop_baseline, name="drop-baseline"),
    path("baselines/<uuid:baseline_id>/amend/", baselines.amend_baseline, name="amend-baseline"),
    path("baselines/<uuid:baseline_id>/retire/", baselines.retire_baseline, name="retire-baseline"),
    # the mode
    path("mode/", modes.mode, name="mode"),
    path("directory-groups/", modes.directory_groups, name="directory-groups"),
    path("directory-groups/propose/", modes.propose_directory_group, name="propose-directory-group"),
    path(
        "directory-groups/<uuid:group_id>/retire/",
        modes.retire_directory_group,
        name="retire-directory-group",
    ),
    path("mode/back/", modes.roll_back_mode, name="roll-back-mode"),
    path("mode/<slug:slug>/", modes.rehearsal, name="rehearsal"),
    path("mode/<slug:slug>/propose/", modes.propose_mode, name="propose-mode"),
    # this fabric's own keys
    path("keys/", keys.keys, name="keys"),
    path("keys/prepare/", keys.prepare_pair, name="prepare-pair"),
    path("keys/pairs/<int:number>/", keys.guardian_pair, name="guardian-pair"),
    *(
        path(f"keys/pairs/<int:number>/{change}/", keys.propose_pair, {"change": change}, name=f"{change}-pair")
        for change in keys.CHANGES
    ),
    path("keys/changes/<int:proposal_id>/", keys.pair_change, name="pair-change"),
    # emergency stop
    path("stops/", stops.stops, name="stops"),
    path("stops/fabric/", stops.stop, {"scope": "fabric"}, name="stop-fabric"),
    path("stops/groups/<slug:target>/", stops.stop, {"scope": "group"}, name="stop-group"),
    path("stops/hosts/<uuid:target>/", stops.stop, {"scope": "host"}, name="stop-host"),
    path("stops/machines/<int:machine_id>/", stops.stop_machine, name="stop-machine"),
    path("stops/machines/<int:machine_id>/resume/", stops.resume_machine, name="resume-machine"),
    path("stops/<int:stop_id>/lift/", stops.lift, name="lift-stop"),
    # policies
    path("policies/", policies.policies, name="policies"),
    path("policies/add/", policies.add_group, name="add-group"),
    path("policies/<slug:slug>/", policies.group, name="group"),
    path("policies/<slug:slug>/change/", policies.start_draft, name="start-draft"),
    path("policies/<slug:slug>/promote/", policies.promote, name="promote"),
    path("drafts/<uuid:draft_id>/", policies.draft, name="draft"),
    path("drafts/<uuid:draft_id>/exception/", policies.add_exception, name="add-exception"),
    path("drafts/<uuid:draft_id>/drop/", policies.drop_draft, name="drop-draft"),
    path("drafts/<uuid:draft_id>/try/", policies.start_dry_run, name="start-dry-run"),
    path("drafts/<uuid:draft_id>/propose/", policies.propose_draft, name="propose-draft"),
    path("dry-runs/<uuid:run_id>/", policies.dry_run, name="dry-run"),
    path("certificates/deny/", trust.deny_certificates, name="deny-certificates"),
    path("attestations/<int:attestation_id>/capture/", baselines.capture_baseline, name="capture-baseline"),
    # code that may run
    path("runtime/", runtime.runtime_policies, name="runtime-policies"),
    path("runtime/add/", runtime.add_runtime_policy, name="add-runtime-policy"),
    path("runtime/<uuid:policy_id>/", runtime.runtime_policy, name="runtime-policy"),
    path("runtime/<uuid:policy_id>/files.txt", runtime.runtime_policy_text, name="runtime-policy-text"),
    path("attestations/<int:attestation_id>/runtime/", runtime.runtime_from_host, name="runtime-from-host"),
    path(
        "attestations/<int:attestation_id>/findings/<int:number>/accept/",
        runtime.accept_finding,
        name="accept-finding",
    ),
    path("codepolicies/", code.code_policies, name="code-policies"),
    path("codepolicies/add/", code.add_code_policy, name="add-code-policy"),
    path("codepolicies/<uuid:policy_id>/", code.code_policy, name="code-policy"),
    path("codepolicies/<uuid:policy_id>/file/", code.code_policy_file, name="code-policy-file"),
    # makers of TPMs
    path("makers/", makers.makers, name="makers"),
    path("makers/import/", bundles.upload_bundle, name="upload-bundle"),
    path("makers/<int:vendor_id>/", makers.maker, name="maker"),
    path("makers/<int:vendor_id>/on/", makers.switch_maker, {"enabled": True}, name="maker-on"),
    path("makers/<int:vendor_id>/off/", makers.switch_maker, {"enabled": False}, name="maker-off"),
    path(
        "makers/<int:vendor_id>/exceptions/<slug:name>/allow/",
        makers.switch_exception,
        {"allowed": True},
        name="allow-exception",
    ),
    path(
        "makers/<int:vendor_id>/exceptions/<slug:name>/end/",
        makers.switch_exception,
        {"allowed": False},
        name="end-exception",
    ),
    path("authorities/<slug:fingerprint>/", makers.authority, name="authority"),
    path("authorities/<slug:fingerprint>/on/", makers.switch_authority, {"enabled": True}, name="authority-on"),
    path("authorities/<slug:fingerprint>/off/", makers.switch_authority, {"enabled": False}, name="authority-off"),
    path("bundles/<uuid:bundle_id>/", bundles.bundle, name="bundle"),
    path("bundles/<uuid:bundle_id>/import/", bundles.import_bundle, name="import-bundle"),
    # template disks
    path("templates/", templates.templates, name="templates"),
    path("templates/offer/", templates.offer_template, name="offer-template"),
    path("templates/<uuid:template_id>/", templates.template, name="template"),
    path("templates/<uuid:template_id>/catalog/", templates.template_catalog, name="template-catalog"),
    path("templates/<uuid:template_id>/retire/", templates.retire_template, {"retired": True}, name="retire-template"),
    path(
        "templates/<uuid:template_id>/offer-again/",
        templates.retire_template,
        {"retired": False},
        name="offer-template-again",
    ),
    # records
    path("attestations/", audit.attestations, name="attestations"),
    path("attestations/<int:attestation_id>/", audit.attestation_detail, name="attestation"),
    path("releases/", audit.releases, name="releases"),
    path("audit/", audit.audit, name="audit"),
    # tenants
    path("tenants/", tenants.tenants, name="tenants"),
    path("tenants/<slug:slug>/", tenants.tenant, name="tenant"),
    path("tenants/<slug:slug>/machines/", tenants.tenant_machines, name="tenant-machines"),
    path("tenants/<slug:slug>/machines/add/", tenants.add_machine, name="add-machine"),
    path("tenants/<slug:slug>/machines/new/", orders.new_machine, name="new-machine"),
    path("orders/<uuid:order_id>/", orders.order, name="order"),
    path("orders/<uuid:order_id>/file/", orders.order_download, name="order-file"),
    path("orders/<uuid:order_id>/cancel/", orders.cancel, name="cancel-order"),
    path("tenants/<slug:slug>/shielding/", shielding.shielding, name="shielding"),
    path("tenants/<slug:slug>/shielding/upload/", shielding.upload_shielding, name="upload-shielding"),
    path("shielding/<uuid:data_id>/", shielding.shielding_data, name="shielding-data"),
    path("shielding/<uuid:data_id>/file/", shielding.shielding_file, name="shielding-file"),
    path("shielding/<uuid:data_id>/approvals/<uuid:approval_id>/", shielding.answer_making, name="answer-making"),
    path("shielding/<uuid:data_id>/withdraw/", shielding.withdraw_shielding, name="withdraw-shielding"),
    path("tenants/<slug:slug>/keys/", tenants.key_queue, name="key-queue"),
    path("tenants/<slug:slug>/log/", proofs.log, name="tenant-log"),
    path("tenants/<slug:slug>/evidence/<int:attestation_id>/", proofs.evidence, name="evidence"),
    path("guardian/", proofs.guardian, name="guardian"),
    path("guardian/file/", proofs.guardian_file, name="guardian-file"),
]
