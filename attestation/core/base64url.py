"""Binary fields on the wire: base64url without padding (RFC 4648, section 5; RFC 7515, section 2), written one way."""

import base64
import binascii
from typing import Final

# How a text may end that has two or three characters above a multiple of four: the bits that no byte takes are zero.
WITHOUT_STRAY_BITS: Final = {2: "AQgw", 3: "AEIMQUYcgkosw048"}
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")


def to_b64u(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_b64u(text: str) -> bytes:
    """The inverse, strict: other characters, padding and stray bits at the end are a ValueError.

    Two texts that stand for the same bytes would let a token be altered without breaking its signature.
    """
    if "+" in text or "/" in text or "=" in text:  # Python's decoder would let them through
        raise ValueError("not base64url without padding")
    odd = len(text) % 4
    standard = text.encode("ascii").translate(_STANDARD) + b"=" * (-odd % 4)
    data = binascii.a2b_base64(standard, strict_mode=True)  # what `base64.b64decode` does, without four steps before it
    if odd and text[-1] not in WITHOUT_STRAY_BITS[odd]:
        raise ValueError("not base64url: stray bits at the end")
    return data
