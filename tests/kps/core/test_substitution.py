"""What is put into a guest's configuration is of its kind, and can be nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kps.core.substitution import KNOWN, filled_in, is_name, kind_in_words, places_in, require_values
from kps.errors import MalformedShieldingData, SubstitutionRefused

GOOD = {
    "HostName": ("web1", "a", "web-1.example.org", "1st", "A" * 63),
    "TimeZone": ("UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+1"),
    "IP4Addr-1": ("10.1.2.3", "10.1.2.3/24"),
    "IP6Addr-12": ("2001:db8::1", "2001:db8::1/64", "::ffff:10.1.2.3"),
    "MACAddr-1": ("52:54:00:12:34:56", "AA:bb:cc:dd:ee:ff"),
    "DnsServer-1": ("10.1.2.3", "2001:db8::53"),
    "Prefix-1-2": ("0.0.0.0/0", "10.20.0.0/16", "2001:db8::/32", "10.1.2.3"),
    "NextHop-1-2": ("10.1.2.1", "fe80::1"),
}
EVIL = (
    "",
    " ",
    "x\n",
    "\nruncmd: [id]",
    "web1\n",
    'a"b',
    "a: b",
    "$(id)",
    "`id`",
    "a'b",
    "a#b",
    "{x}",
    "[x]",
    "\u212a",
)
BAD = {
    "HostName": ("-web", "web-", "web_1", "web..1", ".web", "a" * 64, ".".join(["a" * 63] * 5), "10.1.2.3", "42"),
    "TimeZone": ("utc", "Europe/", "/etc/passwd", "Europe/../../x", "A/B/C/D"),
    "IP4Addr-1": ("10.1.2", "10.1.2.3/33", "10.1.2.3/255.255.255.0", "2001:db8::1", "010.1.2.3", "10.1.2.3%eth0"),
    "IP6Addr-1": ("10.1.2.3", "2001:db8::1/129", "fe80::1%eth0", "fe80::1%\nruncmd", ":::"),
    "MACAddr-1": ("52-54-00-12-34-56", "52:54:00:12:34", "52:54:00:12:34:5g"),
    "DnsServer-1": ("10.1.2.3/24", "example.org"),
    "Prefix-1-1": ("10.20.1.0/16", "10.20.0.0/33"),
    "NextHop-1-1": ("10.1.2.1/24", "gateway"),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in GOOD.items() for value in values])
def test_a_value_of_its_kind_is_taken(name: str, value: str) -> None:
    require_values(frozenset({name}), {name: value})
    assert filled_in(f"a @{name}@ b", {name: value}, {}) == f"a {value} b"


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in BAD for value in (*BAD[name], *EVIL, "\u212a")])
def test_a_value_of_another_kind_is_refused(name: str, value: str) -> None:
    with pytest.raises(SubstitutionRefused, match="is not"):
        require_values(frozenset({name}), {name: value})


@given(st.sampled_from(sorted(GOOD)), st.text())
def test_no_value_brings_a_line_or_a_quote_along(name: str, value: str) -> None:
    try:
        require_values(frozenset({name}), {name: value})
    except SubstitutionRefused:
        return
    assert value.isascii()
    assert not set(value) & set("\n\r\t \"'`$#{}[],;&|<>\\")


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(SubstitutionRefused) as refused:
        require_values(frozenset({"HostName", "IP4Addr-1"}), {"IP4Addr-1": "x", "TimeZone": "UTC"})
    assert str(refused.value) == (
        "@HostName@ needs a value: a host name of letters, digits and dashes. @TimeZone@ is not asked for."
        " @IP4Addr-1@ is not an IPv4 address, with or without the length of its network."
    )


def test_places_and_secrets_are_told_apart() -> None:
    names, secrets = places_in("@HostName@ @Secret-db-1@ a@b.org @IP4Addr-1@@HostName@")
    assert names == {"HostName", "IP4Addr-1"}
    assert secrets == {"db-1"}


@pytest.mark.parametrize(
    "text", ["@Hostname@", "@HostName-1@", "@IP4Addr@", "@IP4Addr-1-2@", "@IP4Addr-123@", "@Prefix-1@", "@ProductKey@"]
)
def test_a_place_of_no_known_kind_is_a_slip_of_the_pen(text: str) -> None:
    with pytest.raises(MalformedShieldingData, match="no place that is filled in"):
        places_in(text)


def test_what_is_put_in_is_not_looked_at_again() -> None:
    text = filled_in("@Secret-a@ @HostName@", {"HostName": "web1"}, {"a": "@HostName@@Secret-a@"})
    assert text == "@HostName@@Secret-a@ web1"


def test_every_known_kind_is_in_words() -> None:
    names = [name.replace("-n", "-1").replace("-m", "-2") for name in KNOWN]
    assert all(map(is_name, names))
    assert all(map(kind_in_words, names))
    assert not any(map(is_name, ("", "HostName-", "Secret-a", "IP4Addr-", "IP4Addr--1", "IP4Addr-\u0661")))
