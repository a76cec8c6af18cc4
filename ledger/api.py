"""What anybody may ask of the log: heads and proofs, which are made of hashes. No entry is shown here."""

import re
from typing import Final

from django.http import HttpResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from ledger import service
from ledger.errors import NotFound
from ledger.machine_api import MachineView
from ledger.serializers import (
    CosignatureSerializer,
    GrowthQuestionSerializer,
    GrowthSerializer,
    KeptSerializer,
    LeafProofSerializer,
    LogSerializer,
)

NOTE: Final = "text/plain; charset=utf-8"


class LogView(MachineView):
    @extend_schema(responses=LogSerializer)
    def get(self, request: Request) -> Response:
        """Return the log's name, its key and its witnesses; compare the key by another way before trusting it."""
        key = service.log_verifier()
        if key is None:
            raise NotFound("The log has not begun yet: nothing was recorded.")
        before = [str(each) for each in service.verifiers() if each != key]
        body = {"origin": key.name, "vkey": str(key), "before": before, "witnesses": service.witnesses()}
        return Response(LogSerializer(body).data)


class CheckpointView(MachineView):
    @extend_schema(responses={(200, "text/plain"): OpenApiTypes.STR})
    def get(self, request: Request) -> HttpResponse:
        """Return the newest checkpoint as a signed note, with the cosignatures that witnesses have given so far."""
        return HttpResponse(service.note_of(service.newest_checkpoint()), content_type=NOTE)


class ProofView(MachineView):
    @extend_schema(responses=LeafProofSerializer)
    def get(self, request: Request, leaf: str) -> Response:
        """Return where a leaf is in the log, with its proof to the newest checkpoint."""
        if re.fullmatch("[0-9a-f]{64}", leaf) is None:
            raise NotFound("A leaf is named by its hash, in 64 hexadecimal digits.")
        return Response(service.prove_leaf(bytes.fromhex(leaf)).members())


class ConsistencyView(MachineView):
    @extend_schema(parameters=[GrowthQuestionSerializer], responses=GrowthSerializer)
    def get(self, request: Request) -> Response:
        """Return the proof that the log at one size goes on from what it was at another."""
        asked = GrowthQuestionSerializer(data=request.query_params)
        asked.is_valid(raise_exception=True)
        sizes = asked.validated_data
        return Response(service.prove_growth(sizes["from"], sizes.get("to")).members())


class CosignaturesView(MachineView):
    @extend_schema(request=CosignatureSerializer, responses={201: KeptSerializer})
    def post(self, request: Request) -> Response:
        """Keep a known witness's cosignature of a checkpoint, and show it with that from then on."""
        body = CosignatureSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        kept = service.cosign(body.validated_data["size"], body.validated_data["line"], now=timezone.now())
        return Response(KeptSerializer({"kept": kept.checkpoint_id}).data, status=201)
