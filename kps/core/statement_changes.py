"""What a newer statement of an owner's changes, a line for each thing: before it is signed, and before it counts.

On the portal's pages and on the owner's own machine in the same words, so that what was read there is read here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Final

from kps.core.chain import SHIELDED, Statement
from kps.core.guardian import Guardian
from kps.core.release_policy import NO_POLICY, ReleasePolicy, in_words

NOTHING: Final = ""
_ANEW: Final = "These keys count no more; the same name is named by others, which is as you compared them."
_TOPICS: Final[Mapping[str, str]] = {
    "host_groups": "Host groups",
    "minimum_mode": "Least attestation mode",
    "not_before": "Earliest start",
    "not_after": "Latest start",
    "hours": "Hours of the day",
    "simultaneous_hosts": "Hosts at a time",
    "approval": "Approval",
    "offline": "Offline starts",
    "successors": "New keys of a fabric",
}


@dataclass(frozen=True, slots=True)
class _Effects:
    """What follows from a change: for a VM, or for shielding data and the machines that are made from it."""

    named: str  # the topic of who is named
    closed: str
    opened: str
    granted: str
    revoked: str
    nobody: str
    asked_for: str
    given_up: str


_OF_VM: Final = _Effects(
    named="May run it",
    closed="From its next start the VM has no console, no guest agent and no channel for the host’s people.",
    opened="LOST: from its next start the host’s people may have its console, type there, and use its guest agent.",
    granted="It finds the key from the next time that this is wrapped: at a start where it runs now, or by the owner.",
    revoked="No key is released there any more, whatever protector a host presents. A VM that runs goes on. What they"
    " had they have: whoever kept a key and a backup of an earlier start can open that backup. Against that only new"
    " secrets help: protect the VM anew.",
    nobody="NO FABRIC may run it then. You alone can open it, with a copy of it and the owner’s key.",
    asked_for="Counts from the next release on.",
    given_up="Not asked for any more, from the next release on.",
)
_OF_FILE: Final = _Effects(
    named="May make machines from it",
    closed="Machines made from then on have no console, no guest agent and no channel for the host’s people. Those that"
    " are there stay as they are.",
    opened="LOST: the host’s people may have the console of machines made from then on, type there, and use the guest"
    " agent. Those that are there stay as they are.",
    granted="It makes machines from a copy of the file whose key the owner has wrapped for it too, and may run those"
    " that are made anywhere from then on.",
    revoked="No machine is made from it there any more, whatever copy of the file is presented. Those that are there go"
    " on. What they had they have: whoever kept a copy and the key can read what is sealed in it. Against that only new"
    " secrets in a new file help.",
    nobody="NO FABRIC makes machines from it then: it is taken back. You alone can open it, with the owner’s key.",
    asked_for="Counts from the next making on, and for the machines that are made then.",
    given_up="Not asked for any more: from the next making on, and of the machines that are made then.",
)


@dataclass(frozen=True, slots=True)
class StatementChange:
    """One thing that the owner says differently: as it was, as it will be, and what follows for the VM.

    `before` or `after` is empty where the owner had said, or says now, nothing about it.
    """

    topic: str
    before: str
    after: str
    effect: str

    def __str__(self) -> str:
        """Return it in one line, for where there is no table."""
        if not self.before:
            return f"{self.topic}: {_ended(self.after)} {self.effect}"
        if not self.after:
            return f"{self.topic}, no longer: {_ended(self.before)} {self.effect}"
        return f"{self.topic}: {_ended(self.after)} Before: {_ended(self.before)} {self.effect}"


def changes(before: Statement, after: Statement) -> tuple[StatementChange, ...]:
    """Return everything in which two statements about one key protector differ, beside serial and time."""
    effects = _OF_FILE if after.makes_machines else _OF_VM
    return (
        *_names(before, after),
        *_levels(before, after, effects),
        *_guardians(before, after, effects),
        *_policies(before, after, effects),
    )


def _names(before: Statement, after: Statement) -> Iterator[StatementChange]:
    old, new = before.owner.name, after.owner.name
    if old != new:
        yield StatementChange("Owner’s name", old, new, "The key is the same; only what it calls itself changes.")


def _levels(before: Statement, after: Statement, effects: _Effects) -> Iterator[StatementChange]:
    if before.level != after.level:
        effect = effects.closed if after.level == SHIELDED else effects.opened
        yield StatementChange("Level", before.level, after.level, effect)


def _guardians(before: Statement, after: Statement, effects: _Effects) -> Iterator[StatementChange]:
    old, new = ({each.fingerprint: each for each in statement.guardians} for statement in (before, after))
    lost = [each for each in old if each not in new]
    named_still = {guardian.name for guardian in after.guardians}
    for fingerprint in lost:
        effect = _ANEW if old[fingerprint].name in named_still else effects.revoked
        effect = effect if new else f"{effect} {effects.nobody}"
        yield StatementChange(effects.named, _named(old[fingerprint]), NOTHING, effect)
    for fingerprint in [each for each in new if each not in old]:
        effect = f"Its fingerprint is {fingerprint}. {effects.granted}"
        yield StatementChange(effects.named, NOTHING, _named(new[fingerprint]), effect)
    for fingerprint in [each for each in old if each in new]:
        if old[fingerprint].name != new[fingerprint].name:
            effect = "The same keys under another name."
            yield StatementChange(effects.named, old[fingerprint].name, new[fingerprint].name, effect)


def _policies(before: Statement, after: Statement, effects: _Effects) -> Iterator[StatementChange]:
    for each in fields(ReleasePolicy):
        old, new = _alone(before.policy, each.name), _alone(after.policy, each.name)
        if old != new:
            yield StatementChange(_TOPICS[each.name], old, new, effects.asked_for if new else effects.given_up)


def _alone(policy: ReleasePolicy, member: str) -> str:
    """Return what one member of a policy says, in words; nothing when it asks for nothing."""
    only = replace(NO_POLICY, **{member: getattr(policy, member)})
    return NOTHING if only == NO_POLICY else " ".join(in_words(only))


def _named(guardian: Guardian) -> str:
    return f"{guardian.name} ({guardian.fingerprint[:16]}…)"


def _ended(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
