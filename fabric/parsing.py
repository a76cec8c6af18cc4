"""The way in for machines' messages: JSON in UTF-8, bounded in bytes, members and depth before anything is built of it.

A JSON text of brackets costs fifty times its size in memory once parsed, and one nested deeply enough ends the
parser. No message of ours has more than a few dozen members; what is long in them is base64, which has no brackets.
"""

import json
from collections.abc import Iterable, Mapping
from typing import IO, Any, Final, NoReturn

from django.http import UnreadablePostError
from rest_framework.exceptions import ParseError
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import BaseParser, MultiPartParser
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request

from attestation.errors import TooLarge

SMALL_BODY: Final = 256 * 1024
MOST_MEMBERS: Final = 256


class OneAnswer(DefaultContentNegotiation):
    """Where a view can answer in one form only there is nothing to negotiate (RFC 9110, section 12.5.1, allows it)."""

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        found = list(renderers)
        if len(found) == 1:
            return found[0], str(found[0].media_type)
        chosen: tuple[BaseRenderer, str] = super().select_renderer(request, found, format_suffix)
        return chosen


class BoundedJson(BaseParser):
    """Reads at most a small body, unless its view allows this sender more. JSON is UTF-8 (RFC 8259, section 8.1).

    A view that takes more has a method `allow_large_body`, which returns how much, or raises what is to be answered.
    """

    media_type = "application/json"
    renderer_class = JSONRenderer

    def parse(
        self, stream: IO[bytes], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        try:
            content = stream.read(SMALL_BODY + 1)
            if len(content) > SMALL_BODY:
                limit = _allowed((parser_context or {}).get("view"))
                content += stream.read(limit + 1 - len(content))
                if len(content) > limit:
                    raise TooLarge(f"The message is larger than {limit} bytes.")
        except UnreadablePostError as error:
            raise ParseError("The message did not arrive whole.") from error
        if sum(content.count(sign) for sign in (b"[", b"{", b",")) > MOST_MEMBERS:
            raise ParseError(f"The message has more than {MOST_MEMBERS} members.")
        try:
            return json.loads(content.decode(), object_pairs_hook=_without_repetition, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise ParseError("The message is not JSON in UTF-8.") from error


class BoundedForm(MultiPartParser):
    """Reads a form with a file, of which nothing is kept when its view does not allow this sender as much.

    Django writes what is larger than a few megabytes to a temporary file while it comes in.
    """

    def parse(
        self, stream: IO[bytes], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        context = dict(parser_context or {})
        limit = _allowed(context.get("view"))
        if int(context["request"].META.get("CONTENT_LENGTH") or 0) > limit:
            raise TooLarge(f"The message is larger than {limit} bytes.")
        return super().parse(stream, media_type, context)


def _allowed(view: object) -> int:
    allow = getattr(view, "allow_large_body", None)
    return SMALL_BODY if allow is None else int(allow())


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two members of one name mean one thing to us and may mean another to whoever reads the message after us."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is repeated")
    return members


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")
