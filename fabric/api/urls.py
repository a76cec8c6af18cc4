"""api/v1/"""

from django.urls import path

from fabric.api import denials, directory_groups, guardian_keys, log, modes, proposals, schema, shielding, stops

__all__ = ["app_name", "schema", "urlpatterns"]  # the scheme classes are known once their module is loaded

app_name = "api"
urlpatterns = [
    path("mode", modes.ModeView.as_view(), name="mode"),
    path("mode/rollback", modes.RollbackView.as_view(), name="mode-rollback"),
    path("mode/<slug:slug>/rehearsal", modes.RehearsalView.as_view(), name="rehearsal"),
    path("mode/<slug:slug>/proposals", modes.SwitchesView.as_view(), name="mode-proposals"),
    path("log/export", log.ExportView.as_view(), name="log-export"),
    path("stops", stops.StopsView.as_view(), name="stops"),
    path("stops/impact", denials.StopImpactView.as_view(), name="stop-impact"),
    path("stops/<int:stop_id>/lift", stops.LiftView.as_view(), name="lift-stop"),
    path("certificates/denial", denials.CertificatesDenialView.as_view(), name="certificates-denial"),
    path("protectors", denials.ProtectorsView.as_view(), name="protectors"),
    path("protectors/<int:record_id>", denials.ProtectorView.as_view(), name="protector"),
    path("protectors/<int:record_id>/denial", denials.DenialView.as_view(), name="protector-denial"),
    path("protectors/<int:record_id>/lift", denials.ProposeLiftView.as_view(), name="propose-lift"),
    path("guardian-keys", guardian_keys.GuardianKeysView.as_view(), name="guardian-keys"),
    path("guardian-keys/<int:number>", guardian_keys.GuardianPairView.as_view(), name="guardian-pair"),
    path("guardian-keys/<int:number>/protectors", guardian_keys.PairQueueView.as_view(), name="pair-queue"),
    path("guardian-keys/<int:number>/changes", guardian_keys.PairChangesView.as_view(), name="pair-changes"),
    path("guardian-key-changes", guardian_keys.ChangesView.as_view(), name="key-changes"),
    path("guardian-key-changes/<int:change_id>", guardian_keys.ChangeView.as_view(), name="key-change"),
    path(
        "guardian-key-changes/<int:change_id>/decision",
        guardian_keys.ChangeDecisionView.as_view(),
        name="key-change-decision",
    ),
    path("denial-lifts", denials.LiftsView.as_view(), name="denial-lifts"),
    path("denial-lifts/<int:lift_id>", denials.LiftView.as_view(), name="denial-lift"),
    path("denial-lifts/<int:lift_id>/decision", denials.LiftDecisionView.as_view(), name="lift-decision"),
    path("proposals", proposals.ProposalsView.as_view(), name="proposals"),
    path("proposals/<int:proposal_id>", proposals.ProposalView.as_view(), name="proposal"),
    path("proposals/<int:proposal_id>/decision", proposals.DecisionView.as_view(), name="decision"),
    path("directory-groups", directory_groups.DirectoryGroupsView.as_view(), name="directory-groups"),
    path(
        "directory-groups/<uuid:group_id>/retirement",
        directory_groups.RetirementView.as_view(),
        name="directory-group-retirement",
    ),
    path("shielding-data", shielding.ShieldingDataListView.as_view(), name="shielding-data-list"),
    path("shielding-data/<uuid:data_id>", shielding.ShieldingDataView.as_view(), name="shielding-data"),
    path("shielding-data/<uuid:data_id>/file", shielding.ShieldingDataFileView.as_view(), name="shielding-data-file"),
    path("shielding-data/<uuid:data_id>/withdrawal", shielding.WithdrawalView.as_view(), name="withdrawal"),
    path("machine-orders", shielding.OrdersView.as_view(), name="machine-orders"),
    path("machine-orders/<uuid:order_id>", shielding.OrderView.as_view(), name="machine-order"),
    path("machine-orders/<uuid:order_id>/file", shielding.OrderFileView.as_view(), name="machine-order-file"),
    path("machine-orders/<uuid:order_id>/cancellation", shielding.CancellationView.as_view(), name="cancellation"),
]
