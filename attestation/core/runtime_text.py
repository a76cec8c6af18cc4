"""A runtime policy's accepted files as text: a line per digest, "sha256:<hex>  <path>", sorted, like sha256sum's.

It is what is stored, shown, uploaded and compared; one policy has one text. In paths, a backslash and every byte that
is not printable ASCII is written as "\\xNN", so that a line is a line whatever a file is called.
"""

import re
from collections.abc import Iterable
from typing import Final

from attestation.core.ima_signature import ImaSigner
from attestation.core.ima_templates import path_text
from attestation.core.runtime import RuntimePolicy, one_more, template_digest
from attestation.errors import ParseError, TooLarge

RUNTIME_TEXT_LIMIT: Final = 128 << 20
_ESCAPED: Final = re.compile(rb"\\x([0-9a-f]{2})")
_LONGEST_DIGEST: Final = 200


def runtime_text(policy: RuntimePolicy) -> bytes:
    """Write the accepted files of a policy down."""
    lines = [
        b"%s  %s\n" % (_digest_text(digest), path_text(path).encode("ascii"))
        for path, digests in policy.accepted.items()
        for digest in digests
    ]
    return b"".join(sorted(lines))


def parse_runtime_text(
    text: bytes, *, excludes: Iterable[str] = (), signers: Iterable[ImaSigner] = ()
) -> RuntimePolicy:
    """Read accepted files, or raise ParseError with the line that is wrong. Empty lines and "#" lines say nothing."""
    if len(text) > RUNTIME_TEXT_LIMIT:
        raise TooLarge(f"The list has {len(text)} bytes; {RUNTIME_TEXT_LIMIT} is the limit.")
    accepted: dict[bytes, tuple[bytes, ...]] = {}
    forms: dict[bytes, bytes] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line or line.startswith(b"#"):
            continue
        digest, blank, path = line.partition(b"  ")
        if not blank or not path or len(digest) > _LONGEST_DIGEST:
            raise ParseError(f"Line {number} of the list is not a digest, two blanks and a path.")
        form = forms.get(digest)
        if form is None:
            form = forms[digest] = _form(digest, number)
        plain = text_path(path) if b"\\" in path else path
        digests = accepted.get(plain, ())
        if form not in digests:
            accepted[plain] = one_more(digests, form)
    return RuntimePolicy(accepted, tuple(each.encode() for each in excludes), tuple(signers))


def text_path(text: bytes) -> bytes:
    """Return the path that `path_text` wrote."""
    return _ESCAPED.sub(_unescape, text)


def _form(digest: bytes, number: int) -> bytes:
    try:
        return template_digest(digest.decode("ascii"))
    except (UnicodeDecodeError, ParseError):
        raise ParseError(
            f"Line {number} of the list does not begin with a digest like “sha256:” and its digits."
        ) from None


def _digest_text(form: bytes) -> bytes:
    algorithm, _, digest = form.partition(b":\0")
    return b"%s:%s" % (algorithm, digest.hex().encode())


def _unescape(found: re.Match[bytes]) -> bytes:
    return bytes((int(found.group(1), 16),))
