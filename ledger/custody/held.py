"""A key of this service as whoever moves it sees it: no matter which app has the row."""

from collections.abc import Callable
from dataclasses import dataclass

from ledger.custody.root import TOKEN


def in_token(sealed: bytes) -> bool:
    """Say whether a sealed key rests in a PKCS#11 token."""
    return sealed.startswith(TOKEN)


@dataclass(frozen=True, slots=True)
class HeldKey:
    """A sealed key in its row; `keep` writes it there as it rests from now on, in the caller's transaction."""

    name: str
    purpose: str
    sealed: bytes
    keep: Callable[[bytes], object]

    @property
    def in_token(self) -> bool:
        return in_token(self.sealed)
