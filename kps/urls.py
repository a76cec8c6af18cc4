"""kps/v1/"""

from django.urls import path

from kps import api

app_name = "kps"
urlpatterns = [
    path("metadata", api.MetadataView.as_view(), name="metadata"),
    path("releases", api.ReleasesView.as_view(), name="releases"),
]
