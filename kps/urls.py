"""kps/v1/"""

from django.urls import path

from kps import api

app_name = "kps"
urlpatterns = [
    path("metadata", api.MetadataView.as_view(), name="metadata"),
    path("releases", api.ReleasesView.as_view(), name="releases"),
    path("returns", api.ReturnsView.as_view(), name="returns"),
    path("offline-starts", api.OfflineStartsView.as_view(), name="offline_starts"),
    path("chains", api.ChainsView.as_view(), name="chains"),
    path("protectors", api.ProtectorsView.as_view(), name="protectors"),
    path("approvals", api.ApprovalsView.as_view(), name="approvals"),
]
