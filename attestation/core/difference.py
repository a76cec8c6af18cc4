"""Sets two boots side by side, event by event: what an operator has to look at, and nothing else."""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final, Literal

from attestation.core.replay import VerifiedEvent
from attestation.core.words import FILE_READ, GRUB_COMMAND, EventWords, describe

# Above this many events per PCR the middle is paired by name only: the alignment's worst case is not linear, and a host
# may extend its PCRs as often as it likes. Real logs stay far below.
ALIGNED_EVENTS: Final = 300


@dataclass(frozen=True, slots=True)
class Measurement:
    """One side of a difference: the digest, which is proved, and the words for it."""

    words: EventWords
    digest: bytes


@dataclass(frozen=True, slots=True)
class Difference:
    """One row that differs. `index` is the place in the measured log, or in the expected one for what is missing."""

    pcr: int
    kind: Literal["changed", "added", "missing"]
    expected: Measurement | None
    measured: Measurement | None
    index: int

    @property
    def words(self) -> EventWords:
        """What the row is about: the measured side where there is one."""
        side = self.measured or self.expected
        return side.words if side else EventWords("Nothing", "", False)


@dataclass(frozen=True, slots=True)
class Same:
    """A run of events that are alike on both sides, folded into its length."""

    pcr: int
    count: int


def difference(
    expected: Sequence[VerifiedEvent], measured: Sequence[VerifiedEvent], pcrs: Iterable[int]
) -> tuple[Difference | Same, ...]:
    """Return, PCR by PCR, what was changed, added or left out, by digest. Types and untrusted data are not compared."""
    return tuple(row for pcr in sorted(set(pcrs)) for row in _rows(pcr, _of(expected, pcr), _of(measured, pcr)))


def _of(events: Sequence[VerifiedEvent], pcr: int) -> list[VerifiedEvent]:
    return [event for event in events if event.pcr == pcr]


def _rows(pcr: int, expected: list[VerifiedEvent], measured: list[VerifiedEvent]) -> Iterator[Difference | Same]:
    for alike, before, after in _runs(expected, measured):
        if alike:
            yield Same(pcr, len(after))
        else:
            yield from _pair(pcr, before, after)


def _runs(
    expected: list[VerifiedEvent], measured: list[VerifiedEvent]
) -> Iterator[tuple[bool, list[VerifiedEvent], list[VerifiedEvent]]]:
    before, after = [event.digest for event in expected], [event.digest for event in measured]
    if max(len(before), len(after)) > ALIGNED_EVENTS:
        head = next((at for at, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), None)
        head = min(len(before), len(after)) if head is None else head
        if head:
            yield True, expected[:head], measured[:head]
        if len(before) > head or len(after) > head:
            yield False, expected[head:], measured[head:]
        return
    for tag, a, b, c, d in SequenceMatcher(None, before, after).get_opcodes():
        yield tag == "equal", expected[a:b], measured[c:d]


def _pair(pcr: int, expected: list[VerifiedEvent], measured: list[VerifiedEvent]) -> Iterator[Difference]:
    """Bring what calls itself the same together, so that an altered command line is one row and not two."""
    waiting: defaultdict[tuple[str, str], deque[tuple[VerifiedEvent, Measurement]]] = defaultdict(deque)
    for event in measured:
        side = Measurement(describe(event), event.digest)
        waiting[_kin(side.words)].append((event, side))
    for event in expected:
        side = Measurement(describe(event), event.digest)
        partners = waiting[_kin(side.words)]
        if not partners:
            yield Difference(pcr, "missing", side, None, event.index)
            continue
        partner, other = partners.popleft()
        # Alike after all: only its place in a run that was too long to align differs, and its neighbours tell that.
        if other.digest != side.digest:
            yield Difference(pcr, "changed", side, other, partner.index)
    left = [row for rest in waiting.values() for row in rest]
    for event, side in sorted(left, key=lambda row: row[0].index):
        yield Difference(pcr, "added", None, side, event.index)


def _kin(words: EventWords) -> tuple[str, str]:
    """What a changed event keeps: a GRUB command its verb, a file its path, anything else its name."""
    if words.name == GRUB_COMMAND:
        return words.name, words.text.partition(" ")[0]
    return words.name, words.text if words.name == FILE_READ else ""


def changed_arguments(expected: str, measured: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return which words of a command line were added and which removed, in their order, repeats counted."""
    before, after = expected.split(), measured.split()
    return _without(after, before), _without(before, after)


def _without(words: list[str], others: list[str]) -> tuple[str, ...]:
    spare = Counter(others)
    left = []
    for word in words:
        if spare[word]:
            spare[word] -= 1
        else:
            left.append(word)
    return tuple(left)


def change_in_words(expected: str, measured: str) -> str:
    """Say how a command line changed: "`drift=1` was added"."""
    added, removed = changed_arguments(expected, measured)
    parts = [
        f"{_list(words)} {'was' if len(words) == 1 else 'were'} {verb}"
        for words, verb in ((added, "added"), (removed, "removed"))
        if words
    ]
    return " and ".join(parts) or "its order, its spacing or its far end changed"


def _list(words: Sequence[str]) -> str:
    shown = [word if len(word) <= 80 else word[:79] + "…" for word in words[:6]]
    rest = [f"{len(words) - 6} more"] if len(words) > 6 else []
    *most, last = shown + rest
    return f"{', '.join(most)} and {last}" if most else last
