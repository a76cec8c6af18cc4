"""What each attestation mode proves and does not prove, in plain words."""

from dataclasses import dataclass
from typing import Final

from attestation.service import Mode


@dataclass(frozen=True, slots=True)
class ModeWords:
    """A mode for people: how hosts are known, and what that is worth."""

    mode: Mode
    icon: str
    known_by: str
    proves: str
    does_not: str


MODES: Final = (
    ModeWords(
        Mode.TPM,
        "shield-check",
        "its TPM, and what that measured while the host booted",
        "Which machine it is, what it booted, and that a key opens only there and only in that boot.",
        "What happens after the boot beyond what is measured, and the memory of running guests.",
    ),
    ModeWords(
        Mode.HOST_KEY,
        "key",
        "a key that it holds and an approver registered",
        "That whoever answers holds the registered key.",
        "What the host booted, and that the key is still in one place: root on a host can copy it.",
    ),
    ModeWords(
        Mode.KERBEROS,
        "users",
        "its machine account in a group of the directory",
        "That the domain’s administrators have put the account into a group.",
        "What the host booted, and anything that a domain administrator does not want to tell.",
    ),
)


def words_of(mode: str) -> ModeWords:
    (found,) = (each for each in MODES if each.mode == mode)
    return found
