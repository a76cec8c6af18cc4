"""ledger/v1/"""

from django.urls import path

from ledger import api

app_name = "ledger"
urlpatterns = [
    path("log", api.LogView.as_view(), name="log"),
    path("checkpoint", api.CheckpointView.as_view(), name="checkpoint"),
    path("proofs/<str:leaf>", api.ProofView.as_view(), name="proof"),
    path("consistency", api.ConsistencyView.as_view(), name="consistency"),
    path("cosignatures", api.CosignaturesView.as_view(), name="cosignatures"),
]
