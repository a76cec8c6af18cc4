"""The examples of docs/inspect.md are run as they stand there, and say what they are said to say."""

import hashlib
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cli.main import main
from tests.boot_logs import CAPTURES, boot
from tests.tpm_forge import quote

MANUAL = (Path(__file__).parents[2] / "docs" / "inspect.md").read_text(encoding="utf-8")
LEFT_OUT = "…"


def examples() -> Iterator[tuple[str, list[str]]]:
    """Yield each command of the manual and the lines that it is shown to print."""
    for block in re.findall(r"```\n(.*?)```", MANUAL, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *lines = part.splitlines()
            yield command, [line for line in lines if line != LEFT_OUT]


EXAMPLES = dict(examples())


def certificate() -> bytes:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "some TPM")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, now, now + timedelta(days=1))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the examples name, from a real boot."""
    captured = boot("secureboot-on")
    for name in ("eventlog.bin", "ima.bin", "pcrs.txt"):
        shutil.copy(CAPTURES / "secureboot-on" / name, tmp_path / name)
    shutil.copy(CAPTURES / "secureboot-off" / "pcrs.txt", tmp_path / "other-pcrs.txt")
    values = hashlib.sha256(captured.pcrs[0] + captured.pcrs[1]).digest()
    (tmp_path / "quote.msg").write_bytes(quote(b"nonce", values, (0, 1)))
    (tmp_path / "ek.der").write_bytes(certificate())
    (tmp_path / "cut.bin").write_bytes(captured.log[:3000])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    return tmp_path


def run(command: str) -> Result:
    program, *arguments = shlex.split(command)
    assert program == "guardhouse"
    return CliRunner().invoke(main, arguments)


def picked(answer: object, query: str) -> str:
    """Return what jq prints for `.name.name`."""
    for name in query.strip(".").split("."):
        assert isinstance(answer, dict)
        answer = answer[name]
    return json.dumps(answer)


@pytest.mark.parametrize("command", EXAMPLES)
def test_an_example_says_what_the_manual_says(command: str, host: Path) -> None:
    command, _, query = command.partition(" | jq ")
    shown = EXAMPLES[f"{command} | jq {query}" if query else command]
    result = run(command)
    if "cut" in command:
        assert (result.exit_code, result.stdout, result.stderr.splitlines()) == (2, "", shown)
    elif query:
        assert (result.exit_code, [picked(json.loads(result.stdout), query)]) == (0, shown)
    else:
        lines = [line.rstrip() for line in result.stdout.splitlines()]
        assert result.exit_code == 0
        assert shown == [line for line in lines if line in shown]


def test_every_command_has_an_example() -> None:
    assert {command.split()[2] for command in EXAMPLES} == {"eventlog", "ima", "quote", "ek"}


@pytest.mark.parametrize(
    ("command", "file"), [("eventlog", "eventlog.bin"), ("ima", "ima.bin"), ("quote", "quote.msg"), ("ek", "ek.der")]
)
def test_the_manual_names_every_field_of_the_json(command: str, file: str, host: Path) -> None:
    result = run(f"guardhouse inspect {command} {file} --json")
    assert result.exit_code == 0
    assert [field for field in json.loads(result.stdout) if f"`{field}`" not in MANUAL] == []
