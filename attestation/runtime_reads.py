"""What pages show of runtime policies: versions, lines a page at a time, who may sign, and what a version changed.

A policy may have 500,000 lines: they are read past in one go and never made into 500,000 objects.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from typing import overload
from uuid import UUID

from django.db.models import F, OuterRef, QuerySet, Subquery

from attestation.core.ima_signature import ImaSigner, parse_signer
from attestation.errors import NotFound
from attestation.models import Attestation, Blob, RuntimePolicy
from attestation.policy import base_document

SHOWN_CHANGES = 200
LEAST_DIGITS = 8
_NOT_PLAIN = re.compile(rb"[^ -~]")


@dataclass(frozen=True, slots=True)
class Line:
    """One accepted file, as a policy's text has it."""

    digest: str
    path: str


class Lines(Sequence[Line]):
    """The accepted files of a policy that contain what was searched for; taken in slices, as a paginator does it."""

    def __init__(self, text: bytes, query: str = "") -> None:
        self._text = text
        # As the text writes what is not printable ASCII; a backslash is left, so that a line can be copied and found.
        self._query = _NOT_PLAIN.sub(lambda found: b"\\x%02x" % found.group()[0], query.encode())

    def _found(self) -> Iterator[bytes]:
        every = iter(BytesIO(self._text))
        return filter(self._fits, every) if self._query else every

    def _fits(self, line: bytes) -> bool:
        """Look in the path, and in the digest for what is long enough to be meant as one."""
        digest, _, path = line.partition(b"  ")
        return self._query in path or (len(self._query) >= LEAST_DIGITS and self._query in digest)

    def __len__(self) -> int:
        return sum(1 for _ in self._found()) if self._query else self._text.count(b"\n")

    @overload
    def __getitem__(self, at: int) -> Line: ...
    @overload
    def __getitem__(self, at: slice) -> "tuple[Line, ...]": ...
    def __getitem__(self, at: int | slice) -> "Line | tuple[Line, ...]":
        if isinstance(at, slice):
            return tuple(map(_line, islice(self._found(), at.start, at.stop, at.step)))
        for line in islice(self._found(), at, at + 1):
            return _line(line)
        raise IndexError(at)


@dataclass(frozen=True, slots=True)
class RuntimeChange:
    """What one version of a runtime policy accepts that another does not: the first lines of text, and how many."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    more_added: int = 0
    more_removed: int = 0


def runtime_policies() -> QuerySet[RuntimePolicy]:
    """Return every version of every runtime policy, by name, newest first."""
    return RuntimePolicy.objects.select_related("content").defer("content__content")


def newest_runtime_policies() -> QuerySet[RuntimePolicy]:
    """Return the newest version of every runtime policy, by name."""
    same = RuntimePolicy.objects.filter(name=OuterRef("name")).order_by("-version")
    return runtime_policies().annotate(newest=Subquery(same.values("version")[:1])).filter(version=F("newest"))


def runtime_policy(policy_id: UUID) -> RuntimePolicy:
    found = runtime_policies().filter(pk=policy_id).first()
    if found is None:
        raise NotFound("There is no such runtime policy.")
    return found


def runtime_policy_of(found: Attestation) -> RuntimePolicy | None:
    """Return the runtime policy that the newest policy of a host's group names: what accepting a file starts from."""
    _, document = base_document(str(found.attester.group_id))
    return runtime_policies().filter(pk=document.runtime).first() if document.runtime else None


def text_of(policy: RuntimePolicy) -> bytes:
    """Return the accepted files as they are stored."""
    return bytes(Blob.objects.get(pk=policy.content_id).content)


def lines_of(policy: RuntimePolicy, query: str = "") -> Lines:
    return Lines(text_of(policy), query)


def signers_of(policy: RuntimePolicy) -> tuple[ImaSigner, ...]:
    return tuple(parse_signer(bytes.fromhex(der)) for der in policy.signers)


def difference(before: RuntimePolicy, after: RuntimePolicy, *, most: int = SHOWN_CHANGES) -> RuntimeChange:
    """Say what changes from one version to another; both texts are sorted, so they are walked side by side once."""
    added: list[bytes] = []
    removed: list[bytes] = []
    old, new = iter(BytesIO(text_of(before))), iter(BytesIO(text_of(after)))
    left, right = next(old, b""), next(new, b"")
    more = {True: 0, False: 0}
    while left or right:
        if left == right:
            left, right = next(old, b""), next(new, b"")
            continue
        gone = bool(left) and (not right or left < right)
        shown, line = (removed, left) if gone else (added, right)
        if len(shown) < most:
            shown.append(line)
        else:
            more[gone] += 1
        if gone:
            left = next(old, b"")
        else:
            right = next(new, b"")
    return RuntimeChange(_texts(added), _texts(removed), more[False], more[True])


def _line(line: bytes) -> Line:
    digest, _, path = line.decode("ascii").rstrip("\n").partition("  ")
    return Line(digest, path)


def _texts(lines: Sequence[bytes]) -> tuple[str, ...]:
    return tuple(line.decode("ascii").rstrip("\n") for line in lines)
