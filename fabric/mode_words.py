"""What each attestation mode proves and does not prove, in plain words."""

from dataclasses import dataclass
from typing import Final

from attestation.service import Mode


@dataclass(frozen=True, slots=True)
class ModeWords:
    """A mode for people: how hosts are known, and what that is worth.

    `passed` is what a host that passes has done, `had` what one had done that got a key, `hosts` who gets keys at all.
    """

    mode: Mode
    icon: str
    known_by: str
    proves: str
    does_not: str
    passed: str
    had: str
    hosts: str


MODES: Final = (
    ModeWords(
        Mode.TPM,
        "shield-check",
        "its TPM, and what that measured while the host booted",
        "Which machine it is, what it booted, and that a key opens only there and only in that boot.",
        "What happens after the boot beyond what is measured, and the memory of running guests.",
        "Booted an approved baseline",
        "had proved its boot",
        "hosts that have just proved what they booted",
    ),
    ModeWords(
        Mode.HOST_KEY,
        "key",
        "a key that it holds and an approver registered",
        "That whoever answers holds the registered key.",
        "What the host booted, and that the key is still in one place: root on a host can copy it.",
        "Holds its registered key",
        "had proved that it holds its key, and not what it booted",
        "hosts that hold a registered key, whatever they booted",
    ),
    ModeWords(
        Mode.KERBEROS,
        "users",
        "its machine account in a group of the directory",
        "That the domain’s administrators have put the account into a group.",
        "What the host booted, and anything that a domain administrator does not want to tell.",
        "Is in an approved group of the directory",
        "had proved that it is in an approved group, and not what it booted",
        "hosts in an approved group of the directory, whatever they booted",
    ),
)


def words_of(mode: str) -> ModeWords:
    (found,) = (each for each in MODES if each.mode == mode)
    return found
