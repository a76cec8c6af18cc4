"""The log by API: an auditor's programs take all of it away, a tenant's what concerns that tenant."""

from typing import ClassVar

from django.http.response import HttpResponseBase
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from fabric.api.access import SIGNED_IN
from fabric.api.resource import PortalView
from fabric.api.serializers import ExportQuestion
from fabric.exports import TYPE, download, export, owners_for

QUESTION = ExportQuestion()


class ExportView(PortalView):
    needs: ClassVar = {"GET": SIGNED_IN}  # whose entries a person may have, `owners_for` says

    @extend_schema(parameters=[ExportQuestion], responses={(200, TYPE): OpenApiTypes.BINARY})
    def get(self, request: Request) -> HttpResponseBase:
        """Take away the log's entries with their proofs and the Evidence behind them, for `guardhouse audit verify`."""
        asked, now = QUESTION.read(request.query_params), timezone.now()
        lines = export(owners=owners_for(request.user), since=asked.get("since", 0), now=now)
        return download(request._request, lines, now=now)
