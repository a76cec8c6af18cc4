"""Recovery shares: the owner's secret as words on paper (SLIP-39), so many sheets of which together are the owner.

Fewer sheets say nothing about the secret. One set is one group of shares without a passphrase; anything else that
SLIP-39 can describe is refused, also because a share names how much work it is to open.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final

import shamir_mnemonic as slip39
from shamir_mnemonic.wordlist import WORD_INDEX_MAP

from attestation.errors import ParseError, Refusal
from cli.owner_secret import SECRET_SIZE, OwnerSecret
from kps.core import jose
from kps.errors import MalformedDocument

SHARES: Final = range(2, 17)
WORDS: Final = 33  # of a share of 32 bytes
_LIMIT: Final = 4 * 1024
_TITLE: Final = "Guardhouse recovery share"
_LABELS: Final = (_TITLE, "Owner", "Fingerprint", "Made")
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")
_COUNTER: Final = re.compile(r"[0-9]{1,2}[.)]?")
_COLUMNS: Final = 3


class ShareMalformed(ParseError):
    """What was read is no recovery share, or one with a mistake in it."""

    code = "malformed_share"


class RecoveryRefused(Refusal):
    """These shares, each good by itself, do not make this owner."""

    code = "recovery_refused"


@dataclass(frozen=True, slots=True)
class Share:
    """One sheet. The words bind each other; what else is written on it is for people, and may be missing."""

    words: tuple[str, ...] = field(repr=False)
    untrusted_owner: str | None = None
    untrusted_fingerprint: str | None = None

    @property
    def number(self) -> int:
        return int(self._decoded.index) + 1

    @property
    def needed(self) -> int:
        return int(self._decoded.member_threshold)

    @property
    def set_name(self) -> str:
        """What all shares of one split, and hardly any other, begin with."""
        return " ".join(self.words[:2])

    @property
    def _decoded(self) -> slip39.Share:
        return slip39.Share.from_mnemonic(" ".join(self.words))


def split(owner: OwnerSecret, *, shares: int, needed: int) -> list[Share]:
    """Return new shares of which any `needed` recover the owner; it was tried before they are handed out."""
    if shares not in SHARES or not 2 <= needed <= shares:
        raise ValueError("2 to 16 shares are made, and at least 2 are needed")
    [mnemonics] = slip39.generate_mnemonics(1, [(needed, shares)], owner.secret, iteration_exponent=0)
    fingerprint = owner.keys.guardian.fingerprint
    made = [Share(tuple(mnemonic.split()), owner.name, fingerprint) for mnemonic in mnemonics]
    if combine(made) != owner.secret:
        raise RuntimeError("the shares that were made do not lead back to the secret")
    return made


def build_share(share: Share, *, of: int, made: date) -> bytes:
    """Return the sheet: what to know about it in words, then its words, numbered, to be copied by hand or printed."""
    fingerprint = share.untrusted_fingerprint or ""
    spaced = " ".join(fingerprint[at : at + 4] for at in range(0, len(fingerprint), 4))
    values = (f"{share.number} of {of}, any {share.needed} recover the owner", share.untrusted_owner, spaced, made)
    lines = [f"{label}: {value}" for label, value in zip(_LABELS, values, strict=True)]
    cells = [f"{number:2} {word:10}" for number, word in enumerate(share.words, 1)]
    lines += ["", *("  ".join(cells[at : at + _COLUMNS]).rstrip() for at in range(0, WORDS, _COLUMNS))]
    return "\n".join([*lines, ""]).encode()


def parse_share(content: bytes) -> Share:
    """Read a sheet, or just its words: numbers between them, capitals and line breaks do not matter.

    No sentence repeats a word: it may end in a log.
    """
    if len(content) > _LIMIT:
        raise ShareMalformed(f"A recovery share is larger than {_LIMIT} bytes.")
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError as error:
        raise ShareMalformed("A recovery share is not text.") from error
    labelled = _labels([line for line in lines if ":" in line])
    tokens = " ".join(line for line in lines if ":" not in line).lower().split()
    words = tuple(token for token in tokens if not _COUNTER.fullmatch(token))
    _check(words)
    return Share(words, labelled.get("Owner"), labelled.get("Fingerprint"))


def _labels(lines: Sequence[str]) -> dict[str, str]:
    pairs = [(label.strip(), value.strip()) for label, _, value in (line.partition(":") for line in lines)]
    found = dict(pairs)
    if len(found) != len(pairs) or not set(found) <= set(_LABELS):
        raise ShareMalformed(f"A line of a recovery share has another label than {', '.join(_LABELS)}, or one twice.")
    if "Owner" in found:
        try:
            jose.text(found["Owner"], what="The owner of a recovery share")
        except MalformedDocument as error:
            raise ShareMalformed(str(error)) from error
    if "Fingerprint" in found:
        found["Fingerprint"] = found["Fingerprint"].replace(" ", "").lower()
        if not _FINGERPRINT.fullmatch(found["Fingerprint"]):
            raise ShareMalformed("The fingerprint on a recovery share is not 64 hexadecimal digits.")
    return found


def _check(words: Sequence[str]) -> None:
    unknown = [number for number, word in enumerate(words, 1) if word not in WORD_INDEX_MAP]
    if unknown:
        raise ShareMalformed(
            f"Word {unknown[0]} of a recovery share is not one of the {len(WORD_INDEX_MAP)} words it is made of."
        )
    if len(words) != WORDS:
        raise ShareMalformed(f"A recovery share has {WORDS} words, this one has {len(words)}.")
    try:
        share = slip39.Share.from_mnemonic(" ".join(words))
    except slip39.MnemonicError as error:
        raise ShareMalformed(
            "The checksum of a recovery share does not hold: a word is another one, or two have changed places. "
            "Compare each word with the paper."
        ) from error
    ours = (True, 0, 0, 1, 1, SECRET_SIZE)
    parameters = (share.extendable, share.iteration_exponent, share.group_index)
    if (*parameters, share.group_threshold, share.group_count, len(share.value)) != ours or share.member_threshold < 2:
        raise ShareMalformed("These words are a backup that another program has made, and no owner's recovery share.")


def combine(shares: Sequence[Share]) -> bytes:
    """Return the secret that every one of these shares leads to. Whose it is, only a fingerprint can say."""
    different = _one_set(shares)
    needed = different[0].needed if different else SHARES.start
    if len(different) < needed:
        raise RecoveryRefused(
            f"Too few shares: {needed} different ones of one set are needed, {len(different)} are here."
        )
    first = different[:needed]
    secret = _interpolated(first)
    for more in different[needed:]:
        if _interpolated([*first[1:], more]) != secret:
            raise RecoveryRefused(
                f"Share {more.number} does not fit the others: it was altered, or is of another owner."
            )
    return secret


def recover(shares: Sequence[Share], *, name: str, fingerprint: str) -> OwnerSecret:
    """Return the owner with this fingerprint, out of shares that say no other."""
    for share in shares:
        if share.untrusted_fingerprint not in (None, fingerprint):
            raise RecoveryRefused(f"Share {share.number} is of another owner: the fingerprint on it is not the same.")
    owner = OwnerSecret(name, combine(shares))
    if owner.keys.guardian.fingerprint != fingerprint:
        raise RecoveryRefused(
            f"The shares lead to the owner {owner.keys.guardian.fingerprint}, and not to {fingerprint}."
        )
    return owner


def _one_set(shares: Sequence[Share]) -> list[Share]:
    """Return each share once, in order, when all are of one split."""
    if len({(share.set_name, share.needed) for share in shares}) > 1:
        names = ", ".join(sorted({f"“{share.set_name}”" for share in shares}))
        raise RecoveryRefused(f"The shares are of different sets, and only those of one set go together: {names}.")
    by_number = {share.number: share for share in shares}
    for share in shares:
        if by_number[share.number].words != share.words:
            raise RecoveryRefused(f"There are two shares {share.number} with different words: one of them is forged.")
    return [by_number[number] for number in sorted(by_number)]


def _interpolated(shares: Sequence[Share]) -> bytes:
    groups = slip39.decode_mnemonics(" ".join(share.words) for share in shares)
    try:
        return bytes(slip39.recover_ems(groups).decrypt(b""))
    except slip39.MnemonicError as error:
        raise RecoveryRefused(
            "The shares do not fit together though each one’s checksum holds: one was altered, or is of another owner."
        ) from error
