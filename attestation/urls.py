"""attestation/v1/"""

from django.urls import path

from attestation import api

app_name = "attestation"
urlpatterns = [
    path("info", api.InfoView.as_view(), name="info"),
    path("enrolments", api.EnrolmentsView.as_view(), name="enrolments"),
    path("enrolments/<uuid:enrolment_id>/activation", api.ActivationView.as_view(), name="activation"),
    path("challenges", api.ChallengesView.as_view(), name="challenges"),
    path("challenges/<uuid:challenge_id>/evidence", api.EvidenceView.as_view(), name="evidence"),
    path("signing-certificates", api.SigningCertificatesView.as_view(), name="signing-certificates"),
    path("crl", api.RevocationListView.as_view(), name="crl"),
]
