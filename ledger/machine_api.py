"""What the machines' APIs of all apps have in common: views that are open, and messages of one shape each."""

from typing import Any

from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.views import APIView


class MachineView(APIView):
    """Open to anyone who can send a message; what the message proves decides."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    def perform_authentication(self, request: Request) -> None:
        """Look for no person behind the request: there is none."""


class Message(serializers.Serializer[object]):
    """The shape of one kind of message. One instance serves every request: reading and writing change nothing in it.

    A serializer of its own for each request would first copy each of its fields, which takes longer than reading.
    """

    def read(self, data: object) -> dict[str, Any]:
        """Return the fields of a message that came, or raise what becomes `malformed_request`."""
        return dict(self.run_validation(data))

    def written(self, value: object) -> dict[str, Any]:
        return dict(self.to_representation(value))
