"""What every resource of the portal's API has in common: who may ask, what is a question, how long lists come."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from django.db.models import QuerySet
from rest_framework import serializers
from rest_framework.pagination import PageNumberPagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from fabric.forms import LEAST_REASON
from ledger.machine_api import Message

LARGEST_PAGE = 200


class PortalView(APIView):
    """A resource of the portal; `needs` names for each method the permission without which nobody gets further."""

    needs: ClassVar[Mapping[str, str]] = {}


class Pages(PageNumberPagination):
    """Lists in pages, with the addresses of the next and the previous one."""

    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = LARGEST_PAGE


def listed(rows: Sequence[object] | QuerySet[Any], request: Request, message: Message) -> Response:
    """Answer with the page of these rows that the question asks for."""
    return listed_page(rows, request, lambda shown: map(message.written, shown))


def listed_page(
    rows: Sequence[Any] | QuerySet[Any], request: Request, written: Callable[[Sequence[Any]], Iterable[object]]
) -> Response:
    """Answer likewise where what is said of a page's rows is found out for all of them together."""
    pages = Pages()
    shown = pages.paginate_queryset(rows, request) or []
    return pages.get_paginated_response(list(written(shown)))


class Strict(Message):
    """A message without anything that we do not know: a misspelt member must not mean “as usual”."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if isinstance(data, Mapping) and not data.keys() <= self.fields.keys():
            raise serializers.ValidationError(f"Only these are known here: {', '.join(sorted(self.fields))}.")
        return dict(super().to_internal_value(data))


class Question(Strict):
    """What the address of a list may ask for."""

    page = serializers.IntegerField(min_value=1, required=False)
    page_size = serializers.IntegerField(min_value=1, max_value=LARGEST_PAGE, required=False)


class Act(Strict):
    """An act of a person: why, for the ledger; and in a session the password, as on the pages."""

    reason = serializers.CharField(
        min_length=LEAST_REASON, max_length=2000, help_text="Goes to the audit log for good. At least a sentence."
    )
    password = serializers.CharField(
        max_length=4096,
        required=False,
        write_only=True,
        trim_whitespace=False,
        style={"input_type": "password"},
        help_text="Asked for in a session only; a request by token needs none.",
    )
