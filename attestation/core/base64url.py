"""Binary fields on the wire: base64url without padding (RFC 4648, section 5; RFC 7515, section 2), written one way."""

import base64


def to_b64u(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_b64u(text: str) -> bytes:
    """The inverse, strict: other characters, padding and stray bits at the end are a ValueError.

    Two texts that stand for the same bytes would let a token be altered without breaking its signature.
    """
    if any(other in text for other in "+/="):  # Python's decoder would let them through
        raise ValueError("not base64url without padding")
    data = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if to_b64u(data[len(data) // 3 * 3 :]) != text[len(text) // 4 * 4 :]:
        raise ValueError("not base64url: stray bits at the end")
    return data
