"""The owner's release policy (RFC 9334: Appraisal Policy for Attestation Results): when a fabric may release the key.

Part of the owner's signed statement. Every member is optional, an unknown one is refused: a fabric that does not know
what the owner asks for must not release. A policy without members asks for nothing more than a healthy host.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from kps.core import jose
from kps.errors import (
    ApprovalRequired,
    HostGroupNotAllowed,
    MalformedDocument,
    ModeTooWeak,
    OutsideHours,
    ReleasePolicyRefused,
    ReleaseTooEarly,
    ReleaseTooLate,
    TooManyHosts,
)

MODES: Final = ("kerberos", "hostkey", "tpm")  # the weakest first
PORTAL: Final = "portal"
KEY: Final = "key"
APPROVALS: Final = (PORTAL, KEY)
MOST_GROUPS: Final = 32
MOST_HOSTS: Final = 1000
MOST_OFFLINE_STARTS: Final = 100
MOST_OFFLINE_HOURS: Final = 31 * 24
_GROUP: Final = re.compile(r"[a-zA-Z0-9_-]{1,40}", re.ASCII)
_HOURS: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])", re.ASCII)
_LATEST: Final = 253402300799  # the last second that a `datetime` has


@dataclass(frozen=True, slots=True)
class Offline:
    """How often, and for how long, a host may start the VM while it does not reach its fabric."""

    starts: int
    hours: int


@dataclass(frozen=True, slots=True)
class ReleasePolicy:
    """What the owner asks for beyond a health certificate in force; what is None or empty is not asked for."""

    host_groups: tuple[str, ...] = ()
    minimum_mode: str | None = None
    not_before: int | None = None
    not_after: int | None = None
    hours: str | None = None
    simultaneous_hosts: int | None = None
    approval: str | None = None
    offline: Offline | None = None
    successors: bool = False

    @property
    def document(self) -> jose.Json:
        """Return the JSON object that `parse_policy` reads, with only what is asked for."""
        offline = self.offline and {"starts": self.offline.starts, "hours": self.offline.hours}
        members = {
            "host_groups": list(self.host_groups),
            "minimum_mode": self.minimum_mode,
            "not_before": self.not_before,
            "not_after": self.not_after,
            "hours": self.hours,
            "simultaneous_hosts": self.simultaneous_hosts,
            "approval": self.approval,
            "offline": offline,
            "successors": self.successors,
        }
        return {name: value for name, value in members.items() if value}


NO_POLICY: Final = ReleasePolicy()  # any healthy host of the fabrics that the owner has named


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is so at the moment of a release, as attestation and the records of this fabric say.

    `others` are the hosts beside this one that hold the key now; `approved` is a decision of the owner's that covers
    this release. Both are only looked up where the policy asks for them.
    """

    group: str
    mode: str
    at: datetime
    others: int
    approved: bool


def parse_policy(value: object) -> ReleasePolicy:
    """Read a release policy out of JSON. Raises `MalformedDocument` and nothing else."""
    if not isinstance(value, dict) or not value.keys() <= _READERS.keys():
        raise MalformedDocument(f"A release policy has no other members than {', '.join(_READERS)}.")
    policy = ReleasePolicy(**{name: _READERS[name](member) for name, member in value.items()})
    if policy.not_before is not None and policy.not_after is not None and policy.not_before >= policy.not_after:
        raise MalformedDocument("The first moment that a release policy allows is not before the last.")
    return policy


def _groups(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= MOST_GROUPS:
        raise MalformedDocument(f"A release policy names 1 to {MOST_GROUPS} host groups, or none at all.")
    if not all(isinstance(group, str) and _GROUP.fullmatch(group) for group in value) or len(set(value)) != len(value):
        raise MalformedDocument("A host group is 1 to 40 letters, digits, dashes, and is named once.")
    return tuple(value)


def _one_of(words: tuple[str, ...], what: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise MalformedDocument(f"{what} of a release policy is one of {', '.join(words)}.")
        return value

    return read


def _number(what: str, most: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        number = jose.whole_number(value, what=f"{what} of a release policy", most=most)
        if not number:
            raise MalformedDocument(f"{what} of a release policy is at least 1.")
        return number

    return read


def _hours(value: object) -> str:
    if not isinstance(value, str) or not _HOURS.fullmatch(value) or value[:5] == value[6:]:
        raise MalformedDocument("The hours of a release policy are like 22:00-04:30, in UTC.")
    return value


def _offline(value: object) -> Offline:
    fields = jose.members(value, {"starts", "hours"}, what="What a release policy says of offline starts")
    return Offline(
        _number("The number of offline starts", MOST_OFFLINE_STARTS)(fields["starts"]),
        _number("The time of offline starts", MOST_OFFLINE_HOURS)(fields["hours"]),
    )


def _true(value: object) -> bool:
    if value is not True:
        raise MalformedDocument("What a release policy says of successors is true, or nothing.")
    return True


_READERS: Final[Mapping[str, Callable[[object], Any]]] = {
    "host_groups": _groups,
    "minimum_mode": _one_of(MODES, "The minimum mode"),
    "not_before": _number("The first moment", _LATEST),
    "not_after": _number("The last moment", _LATEST),
    "hours": _hours,
    "simultaneous_hosts": _number("The number of hosts", MOST_HOSTS),
    "approval": _one_of(APPROVALS, "The approval"),
    "offline": _offline,
    "successors": _true,
}


def refusals(policy: ReleasePolicy, found: Circumstances) -> tuple[ReleasePolicyRefused, ...]:
    """Return everything that speaks against a release now, so that it can be put right in one go.

    That an approval is missing is said only when nothing else is: nobody is asked about a start that cannot be.
    """
    against = tuple(_against(policy, found))
    if against or policy.approval is None or found.approved:
        return against
    return (
        ApprovalRequired(
            "The owner approves each release of this key. "
            + ("Ask the owner to approve it in the portal" if policy.approval == PORTAL else "Ask for the owner's key")
            + " (`guardhouse tenant approve`), then start the VM again."
        ),
    )


def hours_refusals(policy: ReleasePolicy, at: datetime) -> tuple[ReleasePolicyRefused, ...]:
    """Return what speaks against a start at a moment, wherever it is; for a host that does not reach its fabric."""
    return tuple(_wrong_time(policy, at))


def _against(policy: ReleasePolicy, found: Circumstances) -> Iterator[ReleasePolicyRefused]:
    if policy.host_groups and found.group not in policy.host_groups:
        yield HostGroupNotAllowed(
            f"The owner allows only hosts of {_listed(policy.host_groups)}; this one is in {found.group}."
            " Start the VM on one of those."
        )
    if policy.minimum_mode is not None and _weaker(found.mode, policy.minimum_mode):
        yield ModeTooWeak(
            f"The owner asks for {policy.minimum_mode} attestation or better; this host attested in {found.mode} mode."
            " Start the VM when the fabric is back in that mode."
        )
    yield from _wrong_time(policy, found.at)
    if policy.simultaneous_hosts is not None and found.others >= policy.simultaneous_hosts:
        yield TooManyHosts(
            f"The owner allows {_hosts(policy.simultaneous_hosts)} at a time, and {_hosts(found.others)} beside this"
            " one got the key and has not said that the VM stopped. Stop it there with `guardhouse host vm stop`, or"
            " wait until that host's certificate lapses."
        )


def _wrong_time(policy: ReleasePolicy, at: datetime) -> Iterator[ReleasePolicyRefused]:
    now = int(at.timestamp())
    if policy.not_before is not None and now < policy.not_before:
        yield ReleaseTooEarly(f"The owner allows starts only from {_moment(policy.not_before)} on.")
    if policy.not_after is not None and now > policy.not_after:
        yield ReleaseTooLate(
            f"The owner allowed starts only until {_moment(policy.not_after)}. The owner can sign a later date."
        )
    if policy.hours is not None and not _within(policy.hours, at):
        yield OutsideHours(f"The owner allows starts only at {policy.hours} UTC, and it is {_clock(at)} now.")


def _weaker(mode: str, than: str) -> bool:
    return mode not in MODES or MODES.index(mode) < MODES.index(than)


def _within(hours: str, at: datetime) -> bool:
    """Say whether a moment lies in a window of the day, which may go past midnight; the end is not part of it."""
    start, end, now = hours[:5], hours[6:], _clock(at)
    return start <= now < end if start < end else now >= start or now < end


def in_words(policy: ReleasePolicy) -> tuple[str, ...]:
    """Return what the policy asks for, a sentence each; for whoever signs it and whoever is bound by it."""
    return tuple(_sentences(policy)) or ("Any healthy host of these fabrics may start it, at any time.",)


def _sentences(policy: ReleasePolicy) -> Iterator[str]:
    if policy.host_groups:
        yield f"Only on hosts of {_listed(policy.host_groups)}."
    if policy.minimum_mode is not None:
        yield f"Only on hosts that attested in {policy.minimum_mode} mode or a stronger one."
    if policy.not_before is not None:
        yield f"Not before {_moment(policy.not_before)}."
    if policy.not_after is not None:
        yield f"Not after {_moment(policy.not_after)}."
    if policy.hours is not None:
        yield f"Starts only at {policy.hours} UTC."
    if policy.simultaneous_hosts is not None:
        yield f"On {_hosts(policy.simultaneous_hosts)} at a time."
    if policy.approval is not None:
        yield "Each start is approved by the owner, " + (
            "in the portal or with the owner's key." if policy.approval == PORTAL else "with the owner's key."
        )
    if policy.offline is not None:
        yield f"Offline, a host may start it {policy.offline.starts} times within {policy.offline.hours} hours."
    if policy.successors:
        yield "A fabric may replace its own keys by new ones without asking."


def _listed(groups: tuple[str, ...]) -> str:
    return f"the group {groups[0]}" if len(groups) == 1 else f"the groups {', '.join(groups)}"


def _hosts(number: int) -> str:
    return "1 host" if number == 1 else f"{number} hosts"


def _moment(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _clock(at: datetime) -> str:
    return f"{at.astimezone(UTC):%H:%M}"
