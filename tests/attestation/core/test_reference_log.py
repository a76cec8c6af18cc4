"""A `.tcglog`, which Windows writes as a reference, is the boot log itself, with nothing around it to unwrap.

Get-HgsAttestationBaselinePolicy writes "the raw data of the last full boot from the TCG log of the TPM" (its
documentation), which is what Windows gives to any program that asks for the log, and what the collection's logs are.
"""

import json
from pathlib import Path
from struct import pack

import pytest

from attestation.core.eventlog import parse_event_log
from attestation.core.inspection import inspect_log
from attestation.core.replay import replay_banks
from attestation.errors import ParseError
from tests.attestation.core.test_sipa import sipa
from tests.boot_logs import COLLECTION, SHA1, SHA256, record, sha1_record, spec_id

CODE_INTEGRITY = sipa(0x40010001, sipa(0x00050002, b"\1"))
TRUST_POINT = sipa(0xC0010004)
WINDOWS = record(13, 6, CODE_INTEGRITY) + record(13, 4, b"WBCL") + record(0xFFFFFFFF, 3, TRUST_POINT)


def _windows_logs() -> list[Path]:
    index = COLLECTION / "index.json"
    entries = json.loads(index.read_text()) if index.exists() else []
    logs = [COLLECTION / each["file"] for each in entries if each["kind"] == "eventlog" and each.get("os") == "Windows"]
    return [log for log in logs if b"WBCL" in log.read_bytes()]


LOGS = _windows_logs()


@pytest.mark.parametrize(
    "log",
    [
        pytest.param(spec_id() + WINDOWS, id="one bank"),
        pytest.param(spec_id((SHA1, SHA256)) + WINDOWS, id="a bank that Windows leaves out"),
        pytest.param(
            sha1_record(13, 6, CODE_INTEGRITY)
            + sha1_record(13, 4, b"WBCL")
            + sha1_record(0xFFFFFFFF, 3, sipa(0xC0010004)),
            id="SHA-1 only",
        ),
    ],
)
def test_what_windows_adds_to_a_log_is_read(log: bytes) -> None:
    fact = inspect_log(log, measured=None).facts["code_integrity"]
    assert fact is not None
    assert (fact.value, fact.pcr) == (True, 13)


def wrapped(log: bytes) -> bytes:
    """WBCL_LogHdr (wbcl.h): applications that keep logs of their own write it, Windows does not."""
    return pack("<4sIII", b"WBCL", 1, 1, len(log)) + log


@pytest.mark.parametrize(
    "around",
    [
        pytest.param(wrapped, id="WBCL_LogHdr"),
        pytest.param(lambda log: pack("<I", len(log)) + log, id="a length"),
        pytest.param(lambda log: b"\xef\xbb\xbf" + log, id="a mark of UTF-8"),
        pytest.param(lambda log: log.hex().encode(), id="hexadecimal"),
    ],
)
def test_a_log_with_something_around_it_is_refused(around: object) -> None:
    assert callable(around)
    with pytest.raises(ParseError):
        parse_event_log(around(spec_id() + WINDOWS))


@pytest.mark.skipif(not LOGS, reason="the collection of other people's logs is not on this machine")
@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.name)
def test_the_logs_of_windows_hosts_are_read_as_they_are(path: Path) -> None:
    data = path.read_bytes()
    log = parse_event_log(data)
    report = inspect_log(data, measured=None)
    code_integrity = report.facts["code_integrity"]
    assert code_integrity is not None
    assert code_integrity.value is True
    assert {11, 12, 13} <= set(replay_banks(log)[report.bank or ""])
    with pytest.raises(ParseError):
        parse_event_log(wrapped(data))
