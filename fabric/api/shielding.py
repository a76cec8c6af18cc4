"""Shielding data and orders of machines by API: a tenant's programs bring them, a host's operator takes them along.

Who may see what, the rows say (`visible_to`); who may act for a tenant, the services do.
"""

from typing import ClassVar
from uuid import UUID

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from fabric.api.access import SIGNED_IN, acting
from fabric.api.resource import Act, PortalView, listed
from fabric.api.shielding_messages import (
    ApplicabilitySerializer,
    OrderAct,
    OrderSerializer,
    OrdersPageSerializer,
    ShieldingDataDetailSerializer,
    ShieldingDataPageSerializer,
    ShieldingDataSerializer,
    TenantsQuestion,
    UploadAct,
    UsedBySerializer,
)
from fabric.downloads import streamed
from fabric.machine_orders import cancel_order, order_file, order_machine
from fabric.models import MachineOrder, ShieldingData, TemplateDisk, Tenant
from fabric.parsing import SMALL_BODY, BoundedForm
from fabric.shielding import (
    applicability,
    contents_of,
    lines_of,
    upload_shielding_data,
    used_by,
    withdraw_shielding_data,
)
from kps.core.shielding_data import SHIELDING_DATA_LIMIT

QUESTION, UPLOAD, ORDER, REASON = TenantsQuestion(), UploadAct(), OrderAct(), Act()
FILE, ORDERED, FITS, USED = ShieldingDataSerializer(), OrderSerializer(), ApplicabilitySerializer(), UsedBySerializer()
OCTETS = "application/octet-stream"
BYTES = {(200, OCTETS): OpenApiTypes.BINARY}


class ShieldingDataListView(PortalView):
    needs: ClassVar = {"GET": SIGNED_IN, "POST": SIGNED_IN}

    parser_classes = (BoundedForm,)

    def allow_large_body(self) -> int:
        """A file, and as much again as any message may have."""
        return SHIELDING_DATA_LIMIT + SMALL_BODY

    @extend_schema(
        operation_id="api_v1_shielding_data_list", parameters=[TenantsQuestion], responses=ShieldingDataPageSerializer
    )
    def get(self, request: Request) -> Response:
        """List the files of the tenants that you belong to; the fabric's people see all."""
        asked = QUESTION.read(request.query_params)
        found = ShieldingData.objects.visible_to(request.user).select_related("tenant").defer("head")
        return listed(found.filter(tenant__slug=asked["tenant"]) if "tenant" in asked else found, request, FILE)

    @extend_schema(
        request={"multipart/form-data": UploadAct},
        responses={200: ShieldingDataDetailSerializer, 201: ShieldingDataDetailSerializer},
    )
    def post(self, request: Request) -> Response:
        """Keep a file as the next version of its name, after its owner's signatures were checked. It is sent as a form.

        200 for one that is here already: under a newer statement it takes the place of the one before.
        """
        asked = UPLOAD.read(request.data)
        by = acting(request, asked)
        tenant = get_object_or_404(Tenant.objects.visible_to(by).distinct(), slug=asked["tenant"])
        now = timezone.now()
        kept = upload_shielding_data(tenant, asked["name"], asked["description"], asked["file"], by=by, now=now)
        return Response(_shown(kept), status=201 if kept.added_at == now else 200)


class ShieldingDataView(PortalView):
    needs: ClassVar = {"GET": SIGNED_IN}

    @extend_schema(responses=ShieldingDataDetailSerializer)
    def get(self, request: Request, data_id: UUID) -> Response:
        """Tell one file, which templates on offer it goes with and why others not, and what was made from it."""
        return Response(_shown(_file(request, data_id)))


class ShieldingDataFileView(PortalView):
    needs: ClassVar = {"GET": SIGNED_IN}

    @extend_schema(responses=BYTES)
    def get(self, request: Request, data_id: UUID) -> HttpResponseBase:
        """Give the file as its owner has signed it; a host verifies it anew."""
        kept = _file(request, data_id)
        headers = {**_as_file(f"{kept.tenant.slug}-{kept.version}.shield"), "Content-Length": str(kept.size)}
        return streamed(request._request, lines_of(kept), kind=OCTETS, headers=headers)


class WithdrawalView(PortalView):
    needs: ClassVar = {"POST": SIGNED_IN}

    @extend_schema(request=Act, responses=ShieldingDataDetailSerializer)
    def post(self, request: Request, data_id: UUID) -> Response:
        """Erase the file here, so that no new machine is made from it. Machines that were made go on."""
        asked = REASON.read(request.data)
        by = acting(request, asked)
        withdraw_shielding_data(_file(request, data_id), by=by, reason=asked["reason"], now=timezone.now())
        return Response(_shown(_file(request, data_id)))


class OrdersView(PortalView):
    needs: ClassVar = {"GET": SIGNED_IN, "POST": SIGNED_IN}

    @extend_schema(
        operation_id="api_v1_machine_orders_list", parameters=[TenantsQuestion], responses=OrdersPageSerializer
    )
    def get(self, request: Request) -> Response:
        """List what was ordered, the newest first."""
        asked = QUESTION.read(request.query_params)
        found = MachineOrder.objects.visible_to(request.user).select_related("tenant", "machine")
        return listed(found.filter(tenant__slug=asked["tenant"]) if "tenant" in asked else found, request, ORDERED)

    @extend_schema(request=OrderAct, responses={201: OrderSerializer})
    def post(self, request: Request) -> Response:
        """Order a machine, after all that could keep a host from making it was looked at."""
        asked = ORDER.read(request.data)
        by = acting(request, asked)
        data = _file(request, asked["shielding_data"])
        template = get_object_or_404(TemplateDisk.objects.visible_to(by), pk=asked["template"])
        order = order_machine(
            data, template, asked["name"], memory=asked["memory"], values=asked["values"], by=by, now=timezone.now()
        )
        return Response(ORDERED.written(order), status=201)


class OrderView(PortalView):
    needs: ClassVar = {"GET": SIGNED_IN}

    @extend_schema(responses=OrderSerializer)
    def get(self, request: Request, order_id: UUID) -> Response:
        """Tell one order, and whether its machine is there."""
        return Response(ORDERED.written(_order(request, order_id)))


class OrderFileView(PortalView):
    needs: ClassVar = {"GET": SIGNED_IN}

    @extend_schema(responses=BYTES)
    def get(self, request: Request, order_id: UUID) -> HttpResponseBase:
        """Give the order as `guardhouse host vm provision` reads it."""
        order = _order(request, order_id)
        return HttpResponse(order_file(order), content_type=OCTETS, headers=_as_file(f"{order.name}.order"))


class CancellationView(PortalView):
    needs: ClassVar = {"POST": SIGNED_IN}

    @extend_schema(request=Act, responses=OrderSerializer)
    def post(self, request: Request, order_id: UUID) -> Response:
        """Take an open order back. A host that has its file by now can still make the machine."""
        asked = REASON.read(request.data)
        by = acting(request, asked)
        cancel_order(_order(request, order_id), by=by, reason=asked["reason"], now=timezone.now())
        return Response(ORDERED.written(_order(request, order_id)))


def _file(request: Request, data_id: UUID) -> ShieldingData:
    found = ShieldingData.objects.visible_to(request.user).select_related("tenant")
    return get_object_or_404(found, pk=data_id)


def _order(request: Request, order_id: UUID) -> MachineOrder:
    found = MachineOrder.objects.visible_to(request.user).select_related("tenant", "template", "shielding_data")
    return get_object_or_404(found, pk=order_id)


def _shown(kept: ShieldingData) -> dict[str, object]:
    offered = TemplateDisk.objects.filter(retired_at=None)
    fits = [] if kept.withdrawn else applicability(contents_of(kept), offered)
    more = {
        "templates": [FITS.written(each) for each in fits],
        "used_by": [USED.written(each) for each in used_by(kept)],
    }
    return {**FILE.written(kept), **more}


def _as_file(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
