"""Time and memory grow as the input does, whatever the input is: what is four times as long costs four times as much.

The inputs are the worst that an attacker could think of: the smallest records, the deepest nesting, what has to be read
twice. Steps are counted and not timed.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from struct import pack

import pytest

from attestation.core import der, ima, ima_templates, sipa, uefi
from attestation.core.assessment import assess_bundle
from attestation.core.bundle import read_bundle
from attestation.core.command_line import read_command_line
from attestation.core.comparison import parse_pcr_values
from attestation.core.difference import ALIGNED_EVENTS, change_in_words, difference
from attestation.core.eventlog import parse_event_log
from attestation.core.replay import LOG_PCRS, VerifiedEvent
from attestation.core.runtime_text import parse_runtime_text
from attestation.core.words import describe, printable
from attestation.errors import Refusal
from kps.core import jose
from tests.attestation.core.test_sipa import sipa as sipa_record
from tests.attestation.core.test_uefi import SHA256, node, signature_list, variable
from tests.boot_logs import no_action, record, spec_id
from tests.certificate_forge import MIDDLE_KEY, NOW, ROOT_KEY, authority
from tests.fuzz import forge
from tests.fuzz.documents import text_of
from tests.fuzz.targets import TARGETS, Target
from tests.fuzz.work import peak, steps
from tests.ima_lists import fields, legacy, ng, sig, violated
from tests.ima_lists import record as ima_record

QUARTER = 6 * 1024
SLACK = 1.3  # tables that grow in jumps
FIXED_STEPS, FIXED_BYTES = 6_000, 200_000
MOST_BYTES = 60  # of memory, for one byte of input

Make = Callable[[int], bytes]
Run = Callable[[bytes], object]


def filled(*parts: bytes) -> Make:
    """Whole parts, one after the other, up to a size."""
    body = b"".join(parts)
    return lambda size: body * (size // len(body))


def counted(part: Callable[[int], bytes]) -> Make:
    """Parts that are all different, up to a size."""
    return lambda size: b"".join(part(number) for number in range(size // len(part(size))))


def log(make: Make) -> Make:
    """Records between a header and one measurement of each PCR, which a log must have to lead anywhere."""
    return lambda size: spec_id() + make(size) + b"".join(record(pcr, 4, bytes(4)) for pcr in sorted(LOG_PCRS))


def nested(wrap: Callable[[bytes], bytes]) -> Make:
    def make(size: int) -> bytes:
        data = wrapped = b""
        while len(wrapped) <= size:
            data, wrapped = wrapped, wrap(wrapped)
        return data

    return make


def grows_as_its_input(run: Callable[[bytes], object], make: Make, quarter: int = QUARTER) -> None:
    sizes = [make(quarter * times) for times in (1, 2, 4)]
    run(sizes[0])  # what is made once is made
    for measure, fixed in ((steps, FIXED_STEPS), (peak, FIXED_BYTES)):
        costs = [measure(run, data) for data in sizes]
        for data, cost in zip(sizes, costs, strict=True):
            assert cost <= SLACK * costs[0] * len(data) / len(sizes[0]) + fixed, (measure.__name__, costs)
    assert peak(run, sizes[-1]) <= MOST_BYTES * len(sizes[-1]) + FIXED_BYTES


LOGS: dict[str, Make] = {
    "notes": filled(no_action(b"")),
    "the smallest records": filled(record(8, 0xD, b"")),
    "records of every PCR": counted(lambda number: record(number % 24, 0xD, b"%d" % number)),
    "separators": filled(record(7, 4, bytes(4))),
    "variables": filled(record(7, 0x80000001, variable("db", b""))),
    "variables of many names": counted(lambda n: record(7, 0x80000001, variable(f"v{n}", b"\1"))),
    "signatures": filled(record(7, 0x80000001, variable("dbx", signature_list(SHA256, *[bytes(32)] * 20)))),
    "authorities": filled(record(7, 4, bytes(4)), record(7, 0x800000E0, variable("db", bytes(48)))),
    "commands": counted(lambda n: record(8, 0xD, b"grub_cmd: set a=%d" % (n % 7))),
    "command lines": filled(record(8, 0xD, b"kernel_cmdline: /vmlinuz " + b'a="b c" ' * 20)),
    "Windows": filled(record(12, 6, sipa_record(1) * 5)),
    "nested Windows": filled(record(13, 6, sipa_record(0x40010001, sipa_record(0x40010002)) * 3)),
    "programs": filled(record(4, 0x80000003, bytes(24) + pack("<Q", 64) + node(4, 4) * 16)),
    "letters": filled(record(9, 0xD, b"/" * 4000)),
    "one record": lambda size: record(9, 0xD, b"\0\1" * (size // 2)),
}
READ_LOG: dict[str, Callable[[bytes], object]] = {
    "parsed": parse_event_log,
    "inspected": forge.inspected,
    "appraised": forge.appraised,
    "compared": forge.compared,
    "described": lambda data: [describe(event) for event in forge.events_of(data)],
}


@pytest.mark.parametrize("read", READ_LOG)
@pytest.mark.parametrize("make", LOGS)
def test_a_boot_log_costs_as_much_as_it_is_long(read: str, make: str) -> None:
    grows_as_its_input(READ_LOG[read], log(LOGS[make]))


LISTS: dict[str, Make] = {
    "the smallest records": filled(ima_record(b"", name=b"a")),
    "one file": filled(ng(b"/bin/sh")),
    "many files": counted(lambda number: ng(b"/bin/%d" % number)),
    "many signed files": counted(lambda number: sig(b"/bin/%d" % number, signature=bytes(72))),
    "violations": filled(violated(ng(b"/x"))),
    "old records": filled(legacy(b"/x", bytes(20))),
    "templates in turn": filled(ng(b"/x"), sig(b"/y"), legacy(b"/z", bytes(20))),
    "other PCRs": filled(ima_record(fields(b"sha256:\0" + bytes(32), b"/x\0"), pcr=11)),
    "one record": lambda size: ng(b"/" * size),
}
READ_LIST: dict[str, Callable[[bytes], object]] = {
    "cut": lambda data: sum(1 for _ in ima.ima_records(data)),
    "read": lambda data: sum(1 for _ in ima_templates.ima_entries(data)),
    "replayed": forge.replayed,
    "judged": forge.judged,
}


@pytest.mark.parametrize("read", READ_LIST)
@pytest.mark.parametrize("make", LISTS)
def test_an_ima_list_costs_as_much_as_it_is_long(read: str, make: str) -> None:
    grows_as_its_input(refused(READ_LIST[read]), LISTS[make])


def refused(run: Callable[[bytes], object]) -> Callable[[bytes], object]:
    def inner(data: bytes) -> None:
        with suppress(Refusal):
            run(data)

    return inner


def sorted_sets(data: bytes) -> bytes:
    return der.sort_sets(der.read_element(data))


def element(tag: int, content: bytes) -> bytes:
    return bytes((tag, 0x84)) + len(content).to_bytes(4, "big") + content


def of_text(run: Callable[[str], object]) -> Run:
    return lambda data: run(text_of(data))


READ_JSON: Run = partial(jose.read_json, limit=1 << 20)
OTHERS: dict[str, tuple[Run, Make]] = {
    "Windows records": (sipa.parse_sipa, filled(sipa_record(1))),
    "nested Windows records": (sipa.parse_sipa, nested(partial(sipa_record, 0x40010001))),
    "signatures of one byte": (uefi.parse_signature_lists, filled(signature_list(bytes(16), b"x"))),
    "a list of signatures": (uefi.parse_signature_lists, lambda n: signature_list(SHA256, *[bytes(32)] * (n // 48))),
    "nodes of a device path": (uefi.parse_device_path, filled(node(4, 4))),
    "elements of DER": (lambda data: list(der.read_elements(data)), filled(element(4, b""))),
    "sets of DER": (
        sorted_sets,
        lambda n: element(0x31, element(0x31, element(4, b"b") + element(4, b"a")) * (n // 30)),
    ),
    "nested DER": (sorted_sets, nested(partial(element, 0x30))),
    "lines of PCR values": (parse_pcr_values, filled(b"sha1\n")),
    "lines of an IMA list": (ima_templates.binary_from_text, filled(b"10 aa ima-ng sha1:00 /\n")),
    "empty lines of an IMA list": (ima_templates.binary_from_text, filled(b"\n")),
    "words of an IMA line": (ima_templates.binary_from_text, filled(b"10 ")),
    "files of a runtime policy": (parse_runtime_text, counted(lambda n: b"sha256:%064x  /bin/%06d\n" % (n, n))),
    "digests of a runtime policy": (parse_runtime_text, counted(lambda n: b"sha256:%064x  /bin/sh\n" % n)),
    "escapes of a runtime policy": (parse_runtime_text, lambda n: b"sha256:" + b"0" * 64 + b"  " + b"\\x41" * (n // 4)),
    "blanks of a command line": (of_text(read_command_line), filled(b" ")),
    "quotes of a command line": (of_text(read_command_line), filled(b'a="b c" ')),
    "words that differ": (of_text(lambda text: change_in_words(text, text[1:])), filled(b"a b c ")),
    "what cannot be printed": (of_text(printable), filled(b"\1")),
    "nested lists of JSON": (READ_JSON, nested(lambda inner: b"[" + inner + b"]")),
    "members of JSON": (READ_JSON, lambda n: b"{" + b",".join(b'"%06d":0' % each for each in range(n // 11)) + b"}"),
    "a number of JSON": (READ_JSON, lambda n: b'{"a":' + b"1" * n + b"}"),
    "a binary field": (of_text(jose.from_b64u), filled(b"AAAA")),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_read_costs_as_much_as_it_is_long(name: str) -> None:
    run, make = OTHERS[name]
    grows_as_its_input(refused(run), make)


@cache
def an_authority(number: int) -> bytes:
    return authority(f"{number:03}", "root", MIDDLE_KEY, ROOT_KEY).read.der


def assessed(data: bytes) -> object:
    return assess_bundle(read_bundle(data), tolerated={}, known=(), names=(), now=NOW)


def test_a_bundle_costs_as_much_as_it_has_certificates() -> None:
    size = len(an_authority(0)) + 1
    grows_as_its_input(assessed, lambda n: b"".join(an_authority(each) for each in range(n // size)))


def event(number: int, label: int) -> VerifiedEvent:
    text = b"set a=%d" % label
    return VerifiedEvent(number, 8, 0xD, text.ljust(32, b"\0"), text, text)


PAIRS: dict[str, tuple[Callable[[int], int], Callable[[int], int]]] = {
    "alike": (lambda at: 0, lambda at: 0),
    "in turn": (lambda at: at % 2, lambda at: at // 2 % 2),
    "shuffled": (lambda at: at % 100, lambda at: at * 37 % 100),
    "rare": (lambda at: at % 91, lambda at: at * 7 % 91),
    "backwards": (lambda at: at, lambda at: -at),
    "every other": (lambda at: at, lambda at: at if at % 2 else -at),
}


def compared(pair: str) -> Run:
    """Compare two boots that have an event of one PCR for each byte."""
    labels = PAIRS[pair]

    def run(data: bytes) -> object:
        before, after = ([event(at, label(at)) for at in range(len(data))] for label in labels)
        return difference(before, after, [8])

    return run


@pytest.mark.parametrize("pair", PAIRS)
def test_two_boots_are_compared_within_bounds(pair: str) -> None:
    """Alignment is not linear, so it is for so many events only; what has more costs as much as it is long."""
    assert steps(compared(pair), bytes(ALIGNED_EVENTS)) < 2_000 * ALIGNED_EVENTS
    sizes = [bytes(ALIGNED_EVENTS * times + 1) for times in (1, 4)]
    small, large = (steps(compared(pair), data) for data in sizes)
    assert large < SLACK * 4 * small


FILLINGS = (b"\0", b"\xff", b"[", b'{"":', b"0\x80", b"\n", b" ", b"AA", b"\1\0\0\0", b"\0\0\0\1")


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_filling_costs_as_much_as_it_is_long(target: Target) -> None:
    """Whatever good input is followed by, or stretched with."""
    good = min(filter(None, target.good), key=len)
    for filling in FILLINGS:
        for make in (filled(filling), lambda size, part=filling: good + part * (size // len(part))):
            grows_as_its_input(target.gives_a_value, make, min(QUARTER, target.limit // 4))
    grows_as_its_input(target.gives_a_value, lambda size: good * (size // len(good) + 1))


# --- the measure itself ------------------------------------------------------------------------------------------


def loops(data: bytes) -> int:
    return sum(1 for _ in range(0, len(data), 64) for _ in range(0, len(data), 64))


def copies(data: bytes) -> int:
    return sum(len(data[at:]) for at in range(0, len(data), 4))


def keeps(data: bytes) -> list[bytes]:
    return [bytes(data[at:]) for at in range(0, len(data), 256)]


@pytest.mark.parametrize("wasteful", [loops, copies, keeps])
def test_what_grows_faster_than_its_input_is_found(wasteful: Callable[[bytes], object]) -> None:
    with pytest.raises(AssertionError, match=r"steps|peak"):
        grows_as_its_input(wasteful, filled(b"x"))
