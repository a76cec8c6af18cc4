"""What tenants and guarded hosts ask. A release request authenticates itself, so no session and no token is needed."""

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from kps import service
from kps.serializers import MetadataSerializer, ReleaseAnswerSerializer, ReleaseRequestSerializer


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
