"""This fabric's key pairs as a release needs them: all of them of one moment."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from kps.core.chain import VerifiedChain
from kps.core.guardian import Guardian, GuardianKeys
from kps.errors import GuardianDisabled, LinkForged, NotFound
from kps.guardianship import card, opened, pairs
from kps.models import GuardianPair

State = GuardianPair.State


def all_pairs() -> "OurPairs":
    """Return this fabric's pairs where nothing is released by them."""
    return OurPairs(tuple(pairs()))


@dataclass(frozen=True, slots=True)
class OurPairs:
    """Every pair there ever was, the newest first."""

    pairs: tuple[GuardianPair, ...]

    @property
    def fingerprints(self) -> Collection[str]:
        """Return the fingerprints of every pair that opens key protectors here."""
        return {pair.fingerprint for pair in self.pairs if pair.state != State.DISABLED}

    def keys(self, guardian: Guardian) -> GuardianKeys:
        """Return the private keys behind a card of ours. Raises `GuardianDisabled` when people have disabled them."""
        pair = self._pair_of(guardian)
        if pair is None:
            raise NotFound("These are not the keys of this fabric.")
        if pair.state == State.DISABLED:
            raise _disabled(pair)
        return opened(pair)

    def successor_of(self, guardian: Guardian) -> Guardian | None:
        """Return the card that a former one of ours has led to, which is the one in use; None for any other card."""
        if not any(pair.state == State.FORMER for pair in self._named([guardian])):
            return None
        return next((card(pair) for pair in self.pairs if pair.state == State.PRIMARY), None)

    def require_enabled(self, guardians: Iterable[Guardian]) -> None:
        """Raise `GuardianDisabled` when these name this fabric by disabled keys alone."""
        found = self._named(guardians)
        if found and all(pair.state == State.DISABLED for pair in found):
            raise _disabled(found[0])

    def forged_link(self, chain: VerifiedChain, *, seen: bool) -> LinkForged | None:
        """Return what is wrong with a link that keys of ours have signed; None when nothing is.

        Whoever has stolen a pair of ours, an old one too, can sign in its name. But what this fabric signs is known
        here: a successor is a pair of ours, and was there before the one that it follows was disabled; and a machine
        that our keys have made is written down with its making, which nobody repeats under a disabled pair. `seen`
        says whether the key protector is known here. Links of other fabrics' keys are theirs to account for.
        """
        for old, new in chain.successions:
            mine, successor = self._pair_of(old), self._pair_of(new)
            if mine is not None and (successor is None or _disabled_before(mine, successor)):
                return _forged(mine, f"names keys {new.fingerprint[:16]}… as its successor")
        mine = None if chain.maker is None else self._pair_of(chain.maker)
        if mine is not None and mine.state == State.DISABLED and not seen:
            return _forged(mine, "makes a machine")
        return None

    def _pair_of(self, guardian: Guardian) -> GuardianPair | None:
        return next(iter(self._named([guardian])), None)

    def _named(self, guardians: Iterable[Guardian]) -> list[GuardianPair]:
        named = {guardian.fingerprint for guardian in guardians}
        return [pair for pair in self.pairs if pair.fingerprint in named]


def _disabled_before(pair: GuardianPair, successor: GuardianPair) -> bool:
    """Say whether a pair was disabled before the other was made, so that it has not signed for that one here."""
    return pair.disabled_at is not None and pair.disabled_at <= successor.created_at


def _forged(pair: GuardianPair, does: str) -> LinkForged:
    return LinkForged(
        f"A link in this chain is signed with this fabric's {pair} and {does}, which this fabric has not done. Somebody"
        " else has these keys: tell the fabric's people, who disable the pair, and the owner."
    )


def _disabled(pair: GuardianPair) -> GuardianDisabled:
    since = "" if pair.disabled_at is None else f" since {pair.disabled_at:%Y-%m-%d %H:%M} UTC"
    return GuardianDisabled(
        f"The owner has named this fabric by its {pair}, which is disabled{since}. The owner grants the fabric anew by"
        " the keys in use, or the fabric’s people enable the old ones again."
    )
