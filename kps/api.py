"""What tenants and guarded hosts ask. A release request authenticates itself, so no session and no token is needed."""

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from kps import service
from kps.serializers import (
    AccountSerializer,
    AccountTakenSerializer,
    ApprovalSerializer,
    ChainSerializer,
    ChainTakenSerializer,
    DecidedSerializer,
    MetadataSerializer,
    OwnersViewSerializer,
    QuestionSerializer,
    ReleaseAnswerSerializer,
    ReleaseRequestSerializer,
    ReturnedSerializer,
    ReturnSerializer,
)


class MachineView(APIView):
    """Open to anyone who can send a message; what the message proves decides."""

    authentication_classes = ()
    permission_classes = (AllowAny,)


class MetadataView(MachineView):
    @extend_schema(responses=MetadataSerializer)
    def get(self, request: Request) -> Response:
        """Return this fabric's guardian; compare its fingerprint by another way before trusting it."""
        return Response(MetadataSerializer({"metadata": service.metadata(now=timezone.now())}).data)


class ReleasesView(MachineView):
    @extend_schema(request=ReleaseRequestSerializer, responses=ReleaseAnswerSerializer)
    def post(self, request: Request) -> Response:
        """Release a VM's key to the host that proves it holds a health certificate in force."""
        body = ReleaseRequestSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        answer = service.release(body.validated_data["request"], now=timezone.now())
        return Response(ReleaseAnswerSerializer(answer).data)


class ReturnsView(MachineView):
    @extend_schema(request=ReturnSerializer, responses=ReturnedSerializer)
    def post(self, request: Request) -> Response:
        """Take a host's word that a VM has stopped there: the host counts no longer as one that runs it."""
        body = ReturnSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        returned = service.take_return(body.validated_data["message"], now=timezone.now())
        return Response(ReturnedSerializer({"returned": returned}).data)


class OfflineStartsView(MachineView):
    @extend_schema(request=AccountSerializer, responses=AccountTakenSerializer)
    def post(self, request: Request) -> Response:
        """Take a host's account of when it started a VM without this fabric."""
        body = AccountSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        exceeded = service.take_account(body.validated_data["message"], now=timezone.now())
        return Response(AccountTakenSerializer({"exceeded": exceeded}).data)


class ChainsView(MachineView):
    @extend_schema(request=ChainSerializer, responses=ChainTakenSerializer)
    def post(self, request: Request) -> Response:
        """Take an owner's newer word on one of its key protectors; the owner's signature in it is what counts."""
        body = ChainSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        taken = service.take_chain(body.validated_data, now=timezone.now())
        return Response(ChainTakenSerializer({"serial": taken.statement.serial}).data)


class ProtectorsView(MachineView):
    @extend_schema(request=QuestionSerializer, responses=OwnersViewSerializer)
    def post(self, request: Request) -> Response:
        """Tell an owner, who signs the question, the newest chain of one of its protectors and what waits for it."""
        body = QuestionSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        answer = service.answer_question(body.validated_data["question"], now=timezone.now())
        return Response(OwnersViewSerializer(answer).data)


class ApprovalsView(MachineView):
    @extend_schema(request=ApprovalSerializer, responses=DecidedSerializer)
    def post(self, request: Request) -> Response:
        """Take an owner's signed yes to one release that waits for it."""
        body = ApprovalSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        approval = service.approve_by_key(body.validated_data["approval"], now=timezone.now())
        return Response(DecidedSerializer(approval).data)
