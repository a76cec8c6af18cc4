"""Files that are sent as they are read or made, so that nobody has to hold all of one."""

from collections.abc import AsyncIterator, Iterator, Mapping
from itertools import chain

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse


def streamed(
    request: HttpRequest, lines: Iterator[bytes], *, kind: str, headers: Mapping[str, str]
) -> StreamingHttpResponse:
    """Answer with these lines. Whoever reads what breaks off has to see that by itself."""
    batches = _batches(lines)
    content = _paced(batches) if isinstance(request, ASGIRequest) else batches
    return StreamingHttpResponse(content, content_type=kind, headers=dict(headers))


def _batches(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Put lines together, so that a small one is no message of its own."""
    held: list[bytes] = []
    size = 0
    for line in chain(lines, [b""]):
        held.append(line)
        size += len(line)
        if size > 1 << 16 or not line:
            yield b"".join(held)
            held, size = [], 0


async def _paced(batches: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Make the next piece when the one before is on its way, in the thread that may speak with the database."""

    def following() -> bytes | None:
        return next(batches, None)

    while (piece := await sync_to_async(following)()) is not None:
        yield piece
