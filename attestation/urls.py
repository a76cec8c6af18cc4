"""attestation/v1/"""

from django.urls import path

from attestation import api

app_name = "attestation"
urlpatterns = [
    path("info", api.InfoView.as_view(), name="info"),
    path("enrolments", api.EnrolmentsView.as_view(), name="enrolments"),
    path("enrolments/<uuid:enrolment_id>/activation", api.ActivationView.as_view(), name="activation"),
    path("host-keys", api.HostKeysView.as_view(), name="host-keys"),
    path("host-keys/<uuid:enrolment_id>/proof", api.KeyProofView.as_view(), name="host-key-proof"),
    path("challenges", api.ChallengesView.as_view(), name="challenges"),
    path("challenges/<uuid:challenge_id>/evidence", api.EvidenceView.as_view(), name="evidence"),
    path("challenges/<uuid:challenge_id>/possession", api.PossessionView.as_view(), name="possession"),
    path("kerberos", api.KerberosView.as_view(), name="kerberos"),
    path("signing-certificates", api.SigningCertificatesView.as_view(), name="signing-certificates"),
    path("crl", api.RevocationListView.as_view(), name="crl"),
]
