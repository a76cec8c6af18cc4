"""An export held against what a person knows: the log's key, the last checkpoint that they kept, and their witnesses.

Everything that does not hold is found at once and said in sentences. What was not shown is never taken for shown.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from ledger.core.beginning import BEGUN_ANEW, Beginning, verify_beginning
from ledger.core.checkpoint import Checkpoint, Receipt, verify_checkpoint
from ledger.core.counts import COUNTED, Count, CountTree
from ledger.core.export import EntryLine, Header, OwnerLine
from ledger.core.leaf import entry_hash, owner_in
from ledger.core.note import VerifierKey, cosigned_at, parse_note, parse_vkey
from ledger.core.tree import GrowingTree, Hash, verify_consistency, verify_inclusion
from ledger.errors import LogRefused, ParseError, Refusal

MOST_PROBLEMS: Final = 100


@dataclass(frozen=True, slots=True)
class Grounds:
    """What an entry says that a verdict or a release rests on, by digest; `serial` is that of the certificate."""

    index: int
    at: datetime
    act: str
    host: str
    status: str
    evidence: str
    policy: str
    version: int
    certificate: str
    serial: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A log that a person followed until it ended: its key, and the newest checkpoint of it that they kept."""

    key: VerifierKey
    kept: Checkpoint | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What a person brings: the log's key, the checkpoint that they kept, their witnesses, receipts of releases.

    `ended` are the logs that they followed before this one, and accepted that it took their place.
    """

    key: VerifierKey
    kept: Checkpoint | None = None
    witnesses: tuple[VerifierKey, ...] = ()
    receipts: tuple[Receipt, ...] = ()
    ended: tuple[Ended, ...] = ()


@dataclass(slots=True)
class Found:
    """What came of it; `receipts` are those whose entries are there.

    `acts` counts entries by their act, `witnessed` says up to which size and when, by witness. Of the owners who are
    `uncounted` the log shows nothing, and that there is nothing cannot be shown. `begun` is where a log began in the
    place of another, and `lost` which of these have fewer entries than the person had seen.
    """

    checkpoint: Checkpoint
    note: str
    owners: tuple[str, ...] | None
    entries: int = 0
    acts: dict[str, int] = field(default_factory=dict)
    witnessed: dict[str, tuple[int, int]] = field(default_factory=dict)
    grounds: list[Grounds] = field(default_factory=list)
    uncounted: tuple[str, ...] = ()
    receipts: int = 0
    begun: list[tuple[EntryLine, Beginning]] = field(default_factory=list)
    lost: list[tuple[Ended, Beginning]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def problem(self, said: str) -> None:
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(said)
        elif len(self.problems) == MOST_PROBLEMS:
            self.problems.append("There is more, which is left out here.")


class Audit:
    """Takes an export line by line, in its order, and says at the end what was found.

    Raises a `Refusal` where going on makes no sense: at a line that cannot be read, or a checkpoint that the log has
    not signed.
    """

    def __init__(self, header: Header, known: Known) -> None:
        if parse_vkey(header.log) != known.key:
            raise LogRefused(f"This is an export of another log than {known.key.name}, or somebody else's forgery.")
        self._known, self._header = known, header
        head = verify_checkpoint(parse_note(header.checkpoint), known.key)
        self.found = Found(head, header.checkpoint, header.owners)
        self._promised = {receipt.leaf: receipt for receipt in known.receipts}
        self._last_at: object = None
        self._seen_before = self._earlier()
        self._scope: _Whole | _Some
        if header.owners is None:
            before = {ended.kept.size for ended in known.ended if ended.kept is not None}
            self._scope = _Whole(self.found, self._seen_before, before)
        else:
            self._scope = _Some(self.found)
            self._grown()

    def owner(self, line: OwnerLine) -> None:
        self._scope.owner(line)

    def entry(self, line: EntryLine) -> None:
        found = self.found
        found.entries += 1
        if entry_hash(line.content) != line.hash:
            found.problem(f"Entry {line.index} is not what was recorded: it was changed afterwards.")
        act = line.said.get("act")
        name = act if isinstance(act, str) else "?"
        found.acts[name] = found.acts.get(name, 0) + 1
        self._scope.entry(line, name)
        if name == BEGUN_ANEW:
            self._begun(line)
        self._bound(line, name)
        self._last_at = line.said.get("at")
        if line.hash in self._promised:
            del self._promised[line.hash]
            found.receipts += 1

    def finished(self) -> Found:
        """Return what was found, once every line was there."""
        self._scope.finish()
        self._named()
        for ended in self._known.ended:
            self._follows(ended)
        for receipt in self._promised.values():
            self.found.problem(_broken(receipt, self._last_at))
        return self.found

    # -- checkpoints that somebody has seen before --

    def _earlier(self) -> list[tuple[str, Checkpoint, Sequence[Hash]]]:
        """Return the earlier heads that this log has to go on from, who has seen each, and the proof that it does."""
        earlier: list[tuple[str, Checkpoint, Sequence[Hash]]] = []
        kept, head = self._known.kept, self.found.checkpoint
        if kept is not None and kept.size > head.size:
            self.found.problem(
                f"The export ends at {head.size} entries, and you kept a checkpoint of {kept.size}: it is an old one,"
                " or entries were taken out. Get a new one."
            )
        elif kept is not None:
            if self._header.owners is not None and kept.size != head.size and self._header.since != kept.size:
                self.found.problem(
                    f"The export does not show how the log went on from the checkpoint of {kept.size} entries that you"
                    f" kept. Get it again with since={kept.size}."
                )
            else:
                earlier.append(("the checkpoint that you kept", kept, self._header.growth))
        for witness in self._known.witnesses:
            earlier += self._cosigned(witness)
        return earlier

    def _cosigned(self, witness: VerifierKey) -> list[tuple[str, Checkpoint, Sequence[Hash]]]:
        newest: tuple[int, int, Checkpoint, Sequence[Hash]] | None = None
        for each in self._header.witnessed:
            note = parse_note(each.note)
            at = cosigned_at(note, witness)
            if at is not None:
                head = verify_checkpoint(note, self._known.key)
                newest = max(newest or (0, 0, head, ()), (head.size, at, head, each.path), key=lambda found: found[:2])
        if newest is None:
            self.found.problem(f"The witness {witness.name} has cosigned nothing that is in this export.")
            return []
        size, at, head, path = newest
        if size > self.found.checkpoint.size:
            self.found.problem(f"{witness.name} has cosigned {size} entries, which are more than the export ends at.")
        self.found.witnessed[witness.name] = (size, at)
        return [(f"the checkpoint that {witness.name} has cosigned", head, path)]

    def _grown(self) -> None:
        """Hold the proofs of growth of an owner's export, which has not the entries to grow the tree again."""
        head = self.found.checkpoint
        for who, before, path in self._seen_before:
            same = before.size == head.size
            try:
                verify_consistency(before.size, head.size, before.root, head.root, () if same else path)
            except LogRefused:
                self.found.problem(forked(who, before))

    # -- logs that ended, and those that took their place --

    def _begun(self, line: EntryLine) -> None:
        """Hold a beginning against the signatures of the log before it, and its place against what that had."""
        try:
            beginning = verify_beginning(line.said.get("detail"))
        except Refusal as refusal:
            self.found.problem(f"Entry {line.index} begins a log, and what it says of the one before fails: {refusal}")
            return
        self.found.begun.append((line, beginning))
        if line.index != beginning.left.size:
            self.found.problem(
                f"Entry {line.index} begins a log after {beginning.left.size} entries of the one before, and stands"
                " elsewhere: entries were taken out, or put in."
            )
        elif not self._scope.goes_on_from(beginning.left):
            self.found.problem(forked(f"what {beginning.before.name} had signed", beginning.left))

    def _named(self) -> None:
        """See that the logs took one another's place, and that the last of them is the one that is exported."""
        begun = [beginning for _, beginning in self.found.begun]
        keys = [beginning.key for beginning in begun]
        if begun and (keys[-1] != self._known.key or [each.before for each in begun[1:]] != keys[:-1]):
            self.found.problem("The beginnings in this export do not lead from one log to the next, up to this one.")

    def _follows(self, ended: Ended) -> None:
        beginning = next((each for _, each in self.found.begun if each.before == ended.key), None)
        if beginning is None:
            self.found.problem(
                f"You followed the log {ended.key.name}, and no entry here says that {self._known.key.name} has taken"
                " its place, and why."
            )
        elif ended.kept is None:
            return
        elif ended.kept.size > beginning.left.size:
            self.found.lost.append((ended, beginning))
        elif self._known.kept is None:
            self._require_contained(ended.key.name, ended.kept)

    def _require_contained(self, name: str, before: Checkpoint) -> None:
        """See that the log goes on from a checkpoint of one that ended; in an owner's export by its proof."""
        head = self.found.checkpoint
        if self._header.owners is not None and self._header.since != before.size:
            self.found.problem(
                f"The export does not show how this log goes on from the checkpoint of {before.size} entries of {name}"
                f" that you kept. Get it again with since={before.size}."
            )
            return
        try:
            if self._header.owners is not None:
                verify_consistency(before.size, head.size, before.root, head.root, self._header.growth)
            held = self._scope.goes_on_from(before)
        except LogRefused:
            held = False
        if not held:
            self.found.problem(forked(f"the checkpoint of {name} that you kept", before))

    # -- what a verdict rests on --

    def _bound(self, line: EntryLine, act: str) -> None:
        if not act.startswith(("key.", "attestation.")):
            return
        detail = line.said.get("detail")
        if not isinstance(detail, dict):
            return
        if not detail.get("evidence"):
            if act in ("key.released", "attestation.passed"):
                self.found.problem(f"Entry {line.index} ({act}) does not say what it rests on.")
            return
        try:
            self.found.grounds.append(_grounds(line, act, detail))
        except (KeyError, TypeError, ValueError):
            self.found.problem(f"Entry {line.index} does not say what it rests on in a way that can be read.")


def _broken(receipt: Receipt, last_at: object) -> str:
    """Say of a receipt without its entry whether that was due, by the last entry that there is."""
    due = datetime.fromtimestamp(receipt.due, UTC)
    which = f"{receipt.leaf.hex()[:16]}…, due {due:%Y-%m-%d %H:%M:%S} UTC"
    said = f"No entry of this export is the one that a receipt promises ({which})"
    late = isinstance(last_at, str) and last_at > due.isoformat(timespec="microseconds")
    if late:
        return f"{said}, and later ones are there: the log has not kept its word, or the entry concerns somebody else."
    return f"{said}. It was not due yet when the export was made: get a newer one."


def forked(who: str, before: Checkpoint) -> str:
    return (
        f"The log does not go on from {who}, of {before.size} entries: its past was changed, or different people are"
        " shown different logs. Keep both; together they prove it."
    )


def _grounds(line: EntryLine, act: str, detail: Mapping[str, Any]) -> Grounds:
    host = line.said["actor"] if act.startswith("key.") else line.said["subject"]
    return Grounds(
        index=line.index,
        at=datetime.fromisoformat(line.said["at"]).astimezone(UTC),
        act=act,
        host=str(host).removeprefix("host:"),
        status=str(detail.get("status", "")),
        evidence=str(detail["evidence"]),
        policy=str(detail["policy_sha256"]),
        version=int(detail["policy"]),
        certificate=str(detail["certificate_sha256"]),
        serial=str(detail.get("certificate", "")),
    )


@dataclass(slots=True)
class _Chain:
    """An owner's entries as they are counted while reading."""

    line: OwnerLine
    count: Count


class _Whole:
    """An export of everything: the tree is grown again from its first leaf, and every owner's entries are counted."""

    def __init__(
        self, found: Found, earlier: Sequence[tuple[str, Checkpoint, Sequence[Hash]]], watched: Collection[int]
    ) -> None:
        self._found, self._earlier, self._watched = found, earlier, watched
        self._tree, self._counts = GrowingTree(), CountTree()
        self._chains: dict[str, _Chain] = {}
        self._changed: set[str] = set()
        self._in_order = True
        self._heads: dict[int, Hash] = {}

    def owner(self, line: OwnerLine) -> None:
        self._chains[line.owner] = _Chain(line, Count(line.owner, 0, line.start))

    def entry(self, line: EntryLine, act: str) -> None:
        if line.index != self._tree.size and self._in_order:
            self._in_order = False
            self._found.problem(
                f"Where entry {self._tree.size} has to be there is entry {line.index}: entries were taken out, or"
                " put in, or stand in another order."
            )
        if act == BEGUN_ANEW:
            self._heads[self._tree.size] = self._tree.head()
        self._tree.add(line.hash)
        if self._tree.size in self._watched:
            self._heads[self._tree.size] = self._tree.head()
        for who, before, _ in self._earlier:
            if before.size == self._tree.size and before.root != self._tree.head():
                self._found.problem(forked(who, before))
        if act == COUNTED:
            self._counted(line)
        elif owner := owner_in(line.said.get("detail") or {}):
            self._count(owner, line)

    def goes_on_from(self, before: Checkpoint) -> bool:
        """Say whether these entries begin with those of a checkpoint of a log that ended."""
        return self._heads.get(before.size) == before.root

    def _count(self, owner: str, line: EntryLine) -> None:
        chain = self._chains.get(owner)
        if chain is None:
            self._found.problem(f"Entry {line.index} concerns an owner whom the log does not count.")
            return
        chain.count = chain.count.and_one(line.hash)
        self._changed.add(owner)

    def _counted(self, line: EntryLine) -> None:
        """Hold a batch's last entry against the counts as they are here."""
        for owner in sorted(self._changed, key=lambda owner: self._chains[owner].line.position):
            chain = self._chains[owner]
            if chain.line.position > self._counts.size:
                self._found.problem(f"The owner {owner[:16]}… is not where the log counts it.")
                continue
            self._counts.put(chain.line.position, chain.count)
        self._changed.clear()
        said = {"size": line.index + 1, "owners": self._counts.size, "root": self._counts.head().hex()}
        if line.said.get("detail") != said:
            self._found.problem(f"Entry {line.index} does not count the owners' entries as they are.")

    def finish(self) -> None:
        head = self._found.checkpoint
        if (self._tree.size, self._tree.head()) != (head.size, head.root):
            self._found.problem(
                f"The {self._tree.size} entries of the export are not the {head.size} that the log has signed."
            )


class _Some:
    """An export for owners: each entry comes with its proof, and the counts show that none was left out."""

    def __init__(self, found: Found) -> None:
        self._found = found
        self._chains: dict[str, _Chain] = {}
        self._closing: EntryLine | None = None
        self._last = -1

    def owner(self, line: OwnerLine) -> None:
        if line.owner not in (self._found.owners or ()):
            raise ParseError("The export counts the entries of an owner whom it is not for.")
        self._chains[line.owner] = _Chain(line, Count(line.owner, 0, line.start))

    def entry(self, line: EntryLine, act: str) -> None:
        head = self._found.checkpoint
        if line.index <= self._last:
            self._found.problem(f"Entry {line.index} stands after entry {self._last}.")
        self._last = line.index
        try:
            verify_inclusion(line.hash, line.index, head.size, line.path, head.root)
        except LogRefused as refusal:
            self._found.problem(f"Entry {line.index} is not in the log: {refusal}")
        if act == COUNTED:
            self._closing = line
            return
        if act == BEGUN_ANEW and not owner_in(line.said.get("detail") or {}):
            return
        chain = self._chains.get(owner_in(line.said.get("detail") or {}))
        if chain is None:
            self._found.problem(f"Entry {line.index} does not concern an owner whom the export is for.")
        else:
            chain.count = chain.count.and_one(line.hash)

    def goes_on_from(self, before: Checkpoint) -> bool:
        """Without the entries of others nothing here shows otherwise; a proof of growth does."""
        return True

    def finish(self) -> None:
        closing = self._closing
        if closing is None or closing.index + 1 != self._found.checkpoint.size:
            self._found.problem(
                "The export has not the last entry of its checkpoint, which counts the owners' entries."
            )
            return
        detail = closing.said.get("detail")
        for owner in self._found.owners or ():
            chain = self._chains.get(owner)
            if chain is None:
                self._found.uncounted += (owner,)
                continue
            if not isinstance(detail, dict) or not _has(detail, chain):
                self._found.problem(
                    f"The log counts other entries of the owner {owner[:16]}… than the {chain.count.count} that are"
                    " here: some were left out."
                )


def _has(detail: Mapping[str, Any], chain: _Chain) -> bool:
    owners, root = detail.get("owners"), detail.get("root")
    if not isinstance(owners, int) or not isinstance(root, str):
        return False
    try:
        verify_inclusion(chain.count.hash, chain.line.position, owners, chain.line.path, bytes.fromhex(root))
    except (Refusal, ValueError):
        return False
    return True
