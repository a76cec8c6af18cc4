"""What a newer statement of an owner's changes, a line for each thing, for whoever is about to let it count."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Final

from kps.core.chain import SHIELDED, Statement
from kps.core.guardian import Guardian
from kps.core.release_policy import NO_POLICY, ReleasePolicy, in_words

NOTHING: Final = ""
_REVOKED: Final = (
    "No key is released there any more, whatever protector a host presents. A VM that runs goes on. Whoever kept a key"
    " and a backup of an earlier start can open that backup; against that, protect the VM anew."
)
_ANEW: Final = "These keys count no more; the same name is named by others, which is as you compared them."
_GRANTED: Final = "It finds the key from the next time that the protector is wrapped: at a start where it runs now."
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
class StatementChange:
    """One thing that the owner says differently: as it was, as it will be, and what follows for the VM.

    `before` or `after` is empty where the owner had said, or says now, nothing about it.
    """

    topic: str
    before: str
    after: str
    effect: str


def changes(before: Statement, after: Statement) -> tuple[StatementChange, ...]:
    """Return everything in which two statements about one key protector differ, beside serial and time."""
    return (*_names(before, after), *_levels(before, after), *_guardians(before, after), *_policies(before, after))


def _names(before: Statement, after: Statement) -> Iterator[StatementChange]:
    old, new = before.owner.name, after.owner.name
    if old != new:
        yield StatementChange("Owner’s name", old, new, "The key is the same; only what it calls itself changes.")


def _levels(before: Statement, after: Statement) -> Iterator[StatementChange]:
    if before.level == after.level:
        return
    effect = (
        "From its next start the VM has no console, no guest agent and no channel for the host’s people."
        if after.level == SHIELDED
        else "From its next start the host’s people may have its console and its guest agent."
    )
    yield StatementChange("Level", before.level, after.level, effect)


def _guardians(before: Statement, after: Statement) -> Iterator[StatementChange]:
    old, new = ({each.fingerprint: each for each in statement.guardians} for statement in (before, after))
    lost = [each for each in old if each not in new]
    named_still = {guardian.name for guardian in after.guardians}
    for fingerprint in lost:
        effect = _ANEW if old[fingerprint].name in named_still else _REVOKED
        yield StatementChange("May run it", _named(old[fingerprint]), NOTHING, effect)
    for fingerprint in [each for each in new if each not in old]:
        yield StatementChange("May run it", NOTHING, _named(new[fingerprint]), _GRANTED)
    for fingerprint in [each for each in old if each in new]:
        if old[fingerprint].name != new[fingerprint].name:
            effect = "The same keys under another name."
            yield StatementChange("May run it", old[fingerprint].name, new[fingerprint].name, effect)


def _policies(before: Statement, after: Statement) -> Iterator[StatementChange]:
    for each in fields(ReleasePolicy):
        old, new = _alone(before.policy, each.name), _alone(after.policy, each.name)
        if old != new:
            effect = "Counts from the next release on." if new else "Not asked for any more, from the next release on."
            yield StatementChange(_TOPICS[each.name], old, new, effect)


def _alone(policy: ReleasePolicy, member: str) -> str:
    """Return what one member of a policy says, in words; nothing when it asks for nothing."""
    only = replace(NO_POLICY, **{member: getattr(policy, member)})
    return NOTHING if only == NO_POLICY else " ".join(in_words(only))


def _named(guardian: Guardian) -> str:
    return f"{guardian.name} ({guardian.fingerprint[:16]}…)"
