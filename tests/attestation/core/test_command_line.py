"""A command line is read as the kernel reads it, and a line that others read otherwise is known as such."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.core.command_line import Argument, read_command_line


def kernel(line: str) -> list[str]:
    return [str(each) for each in read_command_line(line).arguments if not each.for_init]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        pytest.param('/v dm="a lockdown=integrity" ro', ["/v", "dm=a lockdown=integrity", "ro"], id="in a value"),
        pytest.param("/v ro -- lockdown=integrity", ["/v", "ro"], id="for init"),
        pytest.param('/v ro "--" lockdown=integrity', ["/v", "ro"], id="for init, quoted"),
        pytest.param("/v __ lockdown=integrity", ["/v", "__", "lockdown=integrity"], id="no end of the kernel's part"),
        pytest.param("  /v\tro ", ["/v", "ro"], id="blanks"),
        pytest.param('"lockdown=none"', ["lockdown=none"], id="quoted whole"),
        pytest.param('"lockdown="none""', ['lockdown=none"'], id="quoted twice: the last quote goes once"),
        pytest.param('lockdown="none', ["lockdown=none"], id="quote left open"),
        pytest.param('a="', ["a="], id="nothing but a quote"),
        pytest.param("intel-iommu=on-1", ["intel_iommu=on-1"], id="hyphens in a name, not in a value"),
        pytest.param("=a=b", ["=a=b"], id="no name"),
        pytest.param('/v "', ["/v"], id="an empty quote"),
        pytest.param("", [], id="nothing"),
    ],
)
def test_words_are_cut_as_the_kernel_cuts_them(line: str, words: list[str]) -> None:
    assert [word for word in kernel(line) if word] == words


def test_what_follows_the_dashes_is_for_init() -> None:
    read = read_command_line("ro -- single -- s")
    assert read.arguments == (
        Argument("ro", None),
        Argument("single", None, for_init=True),
        Argument("__", None, for_init=True),
        Argument("s", None, for_init=True),
    )


@pytest.mark.parametrize("line", ["/v root=/dev/sda1 ro", 'a="b c" "d e=f"', """a="it's" """, ""])
def test_plain_lines_have_one_reading(line: str) -> None:
    assert read_command_line(line).plain


@pytest.mark.parametrize(
    "line", ["'systemd.unit=rescue.target'", 'systemd.un"i"t=rescue.target', 'a="b"c', 'a="b', "a='b c'", 'a"b=c d"']
)
def test_a_line_that_systemd_reads_otherwise_is_not_plain(line: str) -> None:
    assert not read_command_line(line).plain


@given(st.text(st.characters(codec="ascii"), max_size=60))
def test_any_line_gives_arguments(line: str) -> None:
    read = read_command_line(line)
    assert sum(len(each.name) for each in read.arguments) <= len(line)
