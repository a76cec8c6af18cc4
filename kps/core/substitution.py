"""The places in cloud-init data that are filled in when a machine is made, and what may be put there.

The values come from whoever orders or makes the machine, whom its owner need not trust. So each kind has a form that
cannot be anything else where it is put: no value brings a line, a quote or a colon of its own into the guest's
configuration. Secrets are the owner's own, and are put in as they are.
"""

import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_network
from typing import Final

from kps.errors import MalformedShieldingData, SubstitutionRefused

MOST_NAMES: Final = 64
SECRET_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)
_PLACE: Final = re.compile(r"@([A-Z][A-Za-z0-9]*(?:-[A-Za-z0-9-]{1,32})?)@", re.ASCII)
_PRIVATE: Final = "Secret-"
_LONGEST: Final = 253
_HOST_NAME: Final = re.compile(
    r"(?=[^.]*[A-Za-z])[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*",
    re.ASCII,
)
_TIME_ZONE: Final = re.compile(r"[A-Z][A-Za-z0-9_+-]{0,31}(/[A-Z][A-Za-z0-9_+-]{0,31}){0,2}", re.ASCII)
_MAC: Final = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}", re.ASCII)
_ADDRESS: Final = re.compile(r"[0-9A-Fa-f.:]{2,45}(/[0-9]{1,3})?", re.ASCII)  # no scope: that may be any text


def _by_form(form: "re.Pattern[str]") -> Callable[[str], bool]:
    return lambda value: form.fullmatch(value) is not None


def _by_reader(reader: Callable[[str], object]) -> Callable[[str], bool]:
    def holds(value: str) -> bool:
        try:
            return _ADDRESS.fullmatch(value) is not None and reader(value) is not None
        except ValueError:
            return False

    return holds


# The kind of a place, how many numbers follow it, what its value is, and how that is checked.
_KINDS: Final[Mapping[str, tuple[int, str, Callable[[str], bool]]]] = {
    "HostName": (0, "a host name of letters, digits and dashes", _by_form(_HOST_NAME)),
    "TimeZone": (0, "a time zone like Europe/Berlin", _by_form(_TIME_ZONE)),
    "IP4Addr": (1, "an IPv4 address, with or without the length of its network", _by_reader(IPv4Interface)),
    "IP6Addr": (1, "an IPv6 address, with or without the length of its network", _by_reader(IPv6Interface)),
    "MACAddr": (1, "a MAC address like 52:54:00:12:34:56", _by_form(_MAC)),
    "DnsServer": (1, "the address of a name server", _by_reader(ip_address)),
    "Prefix": (2, "a network like 10.20.0.0/16", _by_reader(ip_network)),
    "NextHop": (2, "the address of a gateway", _by_reader(ip_address)),
}
_NUMBER: Final = re.compile(r"[0-9]{1,2}", re.ASCII)
KNOWN: Final = tuple("-".join([kind, *"nm"[:numbers]]) for kind, (numbers, _, _) in _KINDS.items())


def places_in(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names that a text asks values for, and the secrets that it asks for.

    What looks like a place and is of no kind known here is refused, so that no slip of the pen reaches the guest.
    Raises `MalformedShieldingData`.
    """
    found = set(_PLACE.findall(text))
    secrets = {name.removeprefix(_PRIVATE) for name in found if name.startswith(_PRIVATE)}
    for name in sorted(found):
        if not name.startswith(_PRIVATE) and not is_name(name):
            raise MalformedShieldingData(f"@{name}@ is no place that is filled in. Known are {', '.join(KNOWN)}.")
    return frozenset(name for name in found if not name.startswith(_PRIVATE)), frozenset(secrets)


def is_name(name: str) -> bool:
    """Say whether this is the name of a place: its kind, and as many numbers as its kind has."""
    kind, *numbers = name.split("-")
    return kind in _KINDS and len(numbers) == _KINDS[kind][0] and all(map(_NUMBER.fullmatch, numbers))


def kind_in_words(name: str) -> str:
    """Return what belongs in a place, for whoever has to fill it in."""
    return _KINDS[name.partition("-")[0]][1]


def require_values(names: frozenset[str], values: Mapping[str, str]) -> None:
    """Refuse values unless they are those that are asked for, each of its kind; everything wrong is said at once."""
    wrong = [f"@{name}@ needs a value: {kind_in_words(name)}." for name in sorted(names - values.keys())]
    wrong += [f"@{name}@ is not asked for." for name in sorted(values.keys() - names)]
    wrong += [
        f"@{name}@ is not {kind_in_words(name)}."
        for name in sorted(names & values.keys())
        if len(values[name]) > _LONGEST or not _KINDS[name.partition("-")[0]][2](values[name])
    ]
    if wrong:
        raise SubstitutionRefused(" ".join(wrong))


def filled_in(text: str, values: Mapping[str, str], secrets: Mapping[str, str]) -> str:
    """Return the text with every place filled in, once: what is put in is not looked at again."""

    def value(match: "re.Match[str]") -> str:
        name = match[1]
        return secrets[name.removeprefix(_PRIVATE)] if name.startswith(_PRIVATE) else values[name]

    return _PLACE.sub(value, text)
