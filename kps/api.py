"""What tenants and guarded hosts ask. A release request authenticates itself, so no session and no token is needed."""

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

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
from ledger.machine_api import MachineView

METADATA = MetadataSerializer()
RELEASE_REQUEST, RELEASE_ANSWER = ReleaseRequestSerializer(), ReleaseAnswerSerializer()
RETURN, RETURNED = ReturnSerializer(), ReturnedSerializer()
ACCOUNT, ACCOUNT_TAKEN = AccountSerializer(), AccountTakenSerializer()
CHAIN, CHAIN_TAKEN = ChainSerializer(), ChainTakenSerializer()
QUESTION, OWNERS_VIEW = QuestionSerializer(), OwnersViewSerializer()
APPROVAL, DECIDED = ApprovalSerializer(), DecidedSerializer()


class MetadataView(MachineView):
    @extend_schema(responses=MetadataSerializer)
    def get(self, request: Request) -> Response:
        """Return this fabric's guardian; compare its fingerprint by another way before trusting it."""
        return Response(METADATA.written({"metadata": service.metadata(now=timezone.now())}))


class ReleasesView(MachineView):
    @extend_schema(request=ReleaseRequestSerializer, responses=ReleaseAnswerSerializer)
    def post(self, request: Request) -> Response:
        """Release a VM's key to the host that proves it holds a health certificate in force."""
        body = RELEASE_REQUEST.read(request.data)
        answer = service.release(body["request"], now=timezone.now())
        return Response(RELEASE_ANSWER.written(answer))


class ReturnsView(MachineView):
    @extend_schema(request=ReturnSerializer, responses=ReturnedSerializer)
    def post(self, request: Request) -> Response:
        """Take a host's word that a VM has stopped there: the host counts no longer as one that runs it."""
        body = RETURN.read(request.data)
        returned = service.take_return(body["message"], now=timezone.now())
        return Response(RETURNED.written({"returned": returned}))


class OfflineStartsView(MachineView):
    @extend_schema(request=AccountSerializer, responses=AccountTakenSerializer)
    def post(self, request: Request) -> Response:
        """Take a host's account of when it started a VM without this fabric."""
        body = ACCOUNT.read(request.data)
        exceeded = service.take_account(body["message"], now=timezone.now())
        return Response(ACCOUNT_TAKEN.written({"exceeded": exceeded}))


class ChainsView(MachineView):
    @extend_schema(request=ChainSerializer, responses=ChainTakenSerializer)
    def post(self, request: Request) -> Response:
        """Take an owner's newer word on one of its key protectors; the owner's signature in it is what counts."""
        body = CHAIN.read(request.data)
        taken = service.take_chain(body, now=timezone.now())
        return Response(CHAIN_TAKEN.written({"serial": taken.statement.serial}))


class ProtectorsView(MachineView):
    @extend_schema(request=QuestionSerializer, responses=OwnersViewSerializer)
    def post(self, request: Request) -> Response:
        """Tell an owner, who signs the question, the newest chain of one of its protectors and what waits for it."""
        body = QUESTION.read(request.data)
        answer = service.answer_question(body["question"], now=timezone.now())
        return Response(OWNERS_VIEW.written(answer))


class ApprovalsView(MachineView):
    @extend_schema(request=ApprovalSerializer, responses=DecidedSerializer)
    def post(self, request: Request) -> Response:
        """Take an owner's signed yes to one release that waits for it."""
        body = APPROVAL.read(request.data)
        approval = service.approve_by_key(body["approval"], now=timezone.now())
        return Response(DECIDED.written(approval))
