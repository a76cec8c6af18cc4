"""`guardhouse inspect` reads untrusted files: 0 when it could, 2 with the byte and the reason when not."""

import hashlib
import inspect
import json
import os
import re
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from attestation.core import comparison, inspection, oddities
from attestation.core.certificate_reader import MEANING
from attestation.core.eventlog import EVENT_LOG_LIMIT
from cli import inspect_ima, inspect_tpm
from cli.main import main
from tests.boot_logs import CAPTURES, COLLECTION, record, spec_id
from tests.ima_lists import legacy, ng, pcr_10, sig, violated
from tests.test_independence import start
from tests.tpm_forge import certification, quote, sized

DOCS = Path(__file__).parents[2] / "docs"
BOOT = CAPTURES / "secureboot-on"
LOG, IMA, PCRS = BOOT / "eventlog.bin", BOOT / "ima.bin", BOOT / "pcrs.txt"
PLAIN = "import cli.main; cli.main.main(['inspect', 'eventlog', '--json', {path!r}])"


def run(*arguments: str | Path, columns: int = 400) -> Result:
    return CliRunner(env={"COLUMNS": str(columns)}).invoke(main, ["inspect", *map(str, arguments)])


def read(*arguments: str | Path) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert isinstance(answer, dict)
    return answer


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return tmp_path / "file"


@pytest.fixture(scope="module")
def certificate() -> x509.Certificate:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "some TPM")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, now, now + timedelta(days=1))
    return builder.sign(key, hashes.SHA256())


def test_a_log_is_answered_with_just_the_fields_that_are_documented() -> None:
    found = read("eventlog", LOG)
    assert list(found) == ["format", "events", "startup_locality", "banks", "facts", "warnings"]
    assert (found["format"], found["events"], found["startup_locality"]) == ("crypto-agile", 46, 0)
    lines = [line.split() for line in PCRS.read_text().splitlines()]
    assert found["banks"]["sha256"].items() <= {pcr: value.lower() for pcr, value in lines}.items()
    assert (found["facts"]["secure_boot"], found["facts"]["code_integrity"]) == (True, None)
    assert found["warnings"] == []


def test_every_fact_and_warning_is_in_the_manual() -> None:
    manual = (DOCS / "inspect.md").read_text(encoding="utf-8")
    sources = "".join(map(inspect.getsource, (oddities, comparison, inspection, inspect_ima, inspect_tpm)))
    codes = set(re.findall(r'(?:Oddity|warning)\(\s*"([a-z_0-9]+)"', sources))
    assert len(codes) > 30
    assert not [name for name in {*read("eventlog", LOG)["facts"], *codes, *MEANING} if f"`{name}`" not in manual]


def test_a_log_is_shown_with_what_it_proves() -> None:
    result = run("eventlog", LOG, "--pcrs", PCRS)
    assert result.exit_code == 0
    assert "UEFI variable SecureBoot         on" in result.output
    assert "kernel_command_line" in result.output
    assert "No warnings." in result.output


FITTED = {
    "a boot": ("eventlog", LOG.read_bytes()),
    "a log with warnings": ("eventlog", spec_id() + record(0, 4, bytes(4)) + record(12, 6, b"x" * 200)),
    "an IMA list": ("ima", IMA.read_bytes()),
    "a quote": ("quote", quote(b"nonce", bytes(32), (0, 1))),
}


@pytest.mark.parametrize("columns", [80, 140])
@pytest.mark.parametrize("case", FITTED.values(), ids=FITTED)
def test_a_table_fits_the_terminal_and_loses_nothing(case: tuple[str, bytes], columns: int, written: Path) -> None:
    command, data = case
    written.write_bytes(data)
    wide, fitted = run(command, written), run(command, written, columns=columns)
    assert (wide.exit_code, fitted.exit_code) == (0, 0)
    assert max(map(len, fitted.output.splitlines())) <= columns
    assert signs(fitted.output) == signs(wide.output)


def signs(table: str) -> Counter[str]:
    """How often each sign stands in a table, its rules and blanks left out."""
    return Counter("".join(table.split()).replace("-", ""))


def test_a_terminal_that_is_too_narrow_is_written_past() -> None:
    assert run("eventlog", LOG, columns=20).exit_code == 0


def test_a_table_for_another_program_has_one_line_for_each_event() -> None:
    code = f"import cli.main; cli.main.main(['inspect', 'eventlog', {str(LOG)!r}])"
    plain = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, env=plain)
    assert max(map(len, done.stdout.splitlines())) > 140
    assert re.search(r"(?m)^40 +8 +80b240ee827c7924 +yes +Kernel command line +/boot/vmlinuz console=", done.stdout)


def test_the_longest_digest_is_shown_whole() -> None:
    assert read("ima", IMA)["banks"]["sha512"]["10"] in run("ima", IMA).output


def test_an_ima_list_is_answered_with_just_the_fields_that_are_documented() -> None:
    assert list(read("ima", IMA)) == ["entries", "violations", "templates", "banks", "warnings"]


def test_a_list_in_text_is_answered_as_the_one_in_bytes() -> None:
    assert read("ima", IMA.with_suffix(".txt")) == read("ima", IMA)


def test_violations_and_templates_are_counted(written: Path) -> None:
    written.write_bytes(ng(b"/a") + violated(ng(b"/b")) + sig(b"/c") + legacy(b"/d", bytes(20)))
    found = read("ima", written)
    assert (found["entries"], found["violations"]) == (4, 1)
    assert found["templates"] == {"ima-ng": 2, "ima-sig": 1, "ima": 1}
    assert found["banks"]["sha256"]["10"] == pcr_10(written.read_bytes()).hex()


@pytest.mark.parametrize("command", ["eventlog", "ima", "quote", "ek"])
def test_a_file_that_is_not_there_and_a_folder_end_with_2(command: str, tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        result = run(command, path, "--json")
        assert (result.exit_code, result.stdout) == (2, "")
        assert str(path) in result.stderr


def test_other_pcr_values_are_warned_about_and_prove_nothing() -> None:
    found = read("eventlog", LOG, "--pcrs", CAPTURES / "secureboot-off" / "pcrs.txt")
    assert {warning["code"] for warning in found["warnings"]} == {"pcr_mismatch"}
    assert all(list(warning) == ["code", "message", "event"] for warning in found["warnings"])
    assert found["facts"]["secure_boot"] is None


def test_a_warning_counts_events_as_the_file_has_them(written: Path) -> None:
    written.write_bytes(spec_id() + record(0, 0x40E, b"x"))
    (warning,) = [each for each in read("eventlog", written)["warnings"] if each["code"] == "type_unknown"]
    assert warning["event"] == 1


def test_several_files_are_answered_line_by_line(written: Path) -> None:
    written.write_bytes(b"not a log")
    result = run("eventlog", LOG, written, LOG, "--json")
    assert [json.loads(line)["file"] for line in result.stdout.splitlines()] == [str(LOG), str(LOG)]
    assert result.exit_code == 2
    assert f"{written}: The event log ends inside the record at byte 0." in result.stderr


def test_several_files_are_shown_under_their_names() -> None:
    result = run("ima", IMA, IMA)
    assert result.output.count(f"{IMA}:") == 2


def test_an_ima_list_leads_to_pcr_10() -> None:
    found = read("ima", IMA, "--pcrs", PCRS)
    values = dict(line.split() for line in PCRS.read_text().splitlines())
    assert found["banks"]["sha256"]["10"] == values["10"].lower()
    assert (found["entries"], found["violations"]) == (sum(found["templates"].values()), 0)
    assert found["warnings"] == []


def test_an_ima_list_may_be_longer_than_its_pcr(written: Path) -> None:
    written.write_bytes(IMA.read_bytes() + IMA.read_bytes())
    assert [each["code"] for each in read("ima", written, "--pcrs", PCRS)["warnings"]] == ["list_longer"]


def test_a_newline_behind_an_ima_list_is_named(written: Path) -> None:
    written.write_bytes(IMA.read_bytes() + b"\n")
    assert [each["code"] for each in read("ima", written, "--pcrs", PCRS)["warnings"]] == ["trailing_newline"]
    written.write_bytes(IMA.read_bytes() + b"\n\n")
    assert run("ima", written).exit_code == 2


def test_another_hosts_ima_list_does_not_match(written: Path) -> None:
    written.write_text("10 " + "ab" * 32)
    assert [each["code"] for each in read("ima", IMA, "--pcrs", written)["warnings"]] == ["pcr_mismatch"]
    written.write_text("9 " + "ab" * 32)
    assert [each["code"] for each in read("ima", IMA, "--pcrs", written)["warnings"]] == ["bank_absent"]


def test_a_quote_says_what_was_asked_and_answered(written: Path, tmp_path: Path) -> None:
    values = bytes.fromhex("".join(line.split()[1] for line in PCRS.read_text().splitlines()[:2]))
    written.write_bytes(quote(b"nonce", hashlib.sha256(values).digest(), (0, 1)))
    found = read("quote", written, "--pcrs", PCRS)
    assert (found["extra_data"], found["selection"], found["warnings"]) == (b"nonce".hex(), {"sha256": [0, 1]}, [])
    other = read("quote", written, "--pcrs", CAPTURES / "uki" / "pcrs.txt")
    assert [each["code"] for each in other["warnings"]] == ["pcr_mismatch"]
    few = tmp_path / "few"
    few.write_text("0 " + "00" * 32)
    assert [each["code"] for each in read("quote", written, "--pcrs", few)["warnings"]] == ["pcr_absent"]


def test_a_quote_may_come_with_its_size(written: Path) -> None:
    written.write_bytes(sized(quote(b"nonce", bytes(32), (0,))))
    assert read("quote", written)["pcr_digest"] == "00" * 32


@pytest.mark.parametrize("encoding", [serialization.Encoding.DER, serialization.Encoding.PEM])
def test_a_certificate_is_shown(certificate: x509.Certificate, encoding: serialization.Encoding, written: Path) -> None:
    padding = b"\xff" * 40 if encoding is serialization.Encoding.DER else b""
    written.write_bytes(certificate.public_bytes(encoding) + padding)
    found = read("ek", written)
    assert (found["subject"], found["serial"], found["key"]) == ("CN=some TPM", "7", "ECC secp256r1")
    assert found["fingerprint"] == certificate.fingerprint(hashes.SHA256()).hex()
    warnings = [each["code"] for each in found["warnings"]]
    assert warnings == ["not_for_endorsement", *(["padding"] if padding else [])]


MALFORMED = {
    "a log of text": ("eventlog", b"text, which is no log at all, and long enough"),
    "an empty log": ("eventlog", b""),
    "a log that is cut": ("eventlog", LOG.read_bytes()[:-3]),
    "an IMA list of text": ("ima", b"10 not a list"),
    "an IMA list that is cut": ("ima", IMA.read_bytes()[:-3]),
    "a quote that no TPM made": ("quote", b"text"),
    "a certification in place of a quote": ("quote", certification(b"nonce", bytes(34))),
    "a quote that is cut": ("quote", quote(b"nonce", bytes(32), (0,))[:-1]),
    "no quote": ("quote", b""),
    "a log above the limit": ("eventlog", bytes(EVENT_LOG_LIMIT + 1)),
    "no certificate": ("ek", b"text"),
    "an empty certificate": ("ek", b""),
    "a PEM of nothing": ("ek", b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----"),
}


@pytest.mark.parametrize("case", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("options", [[], ["--json"]], ids=["table", "JSON"])
def test_a_malformed_file_ends_with_2_and_the_byte(case: tuple[str, bytes], options: list[str], written: Path) -> None:
    command, data = case
    written.write_bytes(data)
    result = run(command, written, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.search(r"at (byte|offset) \d+", result.stderr)


@pytest.mark.parametrize("command", ["eventlog", "ima", "quote"])
def test_malformed_pcr_values_end_with_2(command: str, written: Path) -> None:
    written.write_text("no values")
    result = run(command, LOG, "--pcrs", written)
    assert result.exit_code == 2
    assert "at offset 0" in result.stderr


def test_what_a_file_says_cannot_move_the_cursor(written: Path) -> None:
    written.write_bytes(spec_id() + record(4, 0x80000007, b"\x1b[2J\r\nCalling"))
    result = run("eventlog", written)
    assert result.exit_code == 0
    assert "\x1b" not in result.output
    assert "\r" not in result.output


def test_it_needs_neither_django_nor_a_tpm_library() -> None:
    done = start(PLAIN.format(path=str(LOG)), {"django", "rest_framework", "channels", "tpm2_pytss", "fabric"})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["events"] == 46


def test_the_program_itself_ends_with_2(written: Path) -> None:
    written.write_bytes(b"")
    code = f"import cli.main; cli.main.main(['inspect', 'ima', {str(written) + 'x'!r}])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 2


CERTIFICATES = sorted((COLLECTION / "certs" / "ek").glob("*.der"))


@pytest.mark.skipif(not CERTIFICATES, reason="the collection of other people's certificates is not on this machine")
@pytest.mark.parametrize("path", CERTIFICATES, ids=lambda path: path.stem)
def test_real_certificates_are_read_with_the_habits_of_their_makers(path: Path) -> None:
    found = read("ek", path)
    assert found["key"].startswith(("RSA ", "ECC "))
    assert bool(found["manufacturer"]) <= found["endorsement_purpose"]


CUT = {"tpm2-software_tpm2-tss/sml-ima-ng-sha1-invalidated.bin"}


def _lists() -> list[dict[str, Any]]:
    index = COLLECTION / "index.json"
    entries = json.loads(index.read_text()) if index.exists() else []
    lists = [entry for entry in entries if entry["kind"] == "ima" and entry.get("pcr10_replay")]
    return [entry for entry in lists if entry["file"] not in CUT]


@pytest.mark.skipif(not _lists(), reason="the collection of other people's lists is not on this machine")
@pytest.mark.parametrize("entry", _lists(), ids=lambda entry: str(entry["file"]))
def test_other_peoples_lists_are_counted(entry: dict[str, Any]) -> None:
    found = read("ima", COLLECTION / entry["file"])
    assert (found["entries"], found["templates"]) == (entry["n_events"], entry["templates"])
    for bank, values in (entry.get("expected_pcrs") or {}).items():
        assert found["banks"][bank]["10"] == values["10"]
