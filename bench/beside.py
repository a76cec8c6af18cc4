"""Keylime's verifier as a process beside us: how it is started, given the same Evidence, and asked to verify it."""

import base64
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from struct import pack
from typing import IO, Final

ROOT: Final = Path(__file__).resolve().parent.parent
PYTHON: Final = ROOT / ".venv-keylime" / "bin" / "python"
TIMES: Final = 5  # that Keylime verifies for one figure: it has slow turns, in which it collects garbage


@dataclass(frozen=True, slots=True)
class Captured:
    """Evidence as both sides get it; `ima` is the kernel's list as text."""

    quote: bytes
    signature: bytes
    pcrs: Mapping[int, bytes]
    ak: bytes
    nonce: bytes
    log: bytes
    ima: bytes


def installed() -> bool:
    return PYTHON.exists()


@contextmanager
def keylime(captured: Captured, folder: Path) -> Iterator[tuple[str, Callable[[str], float]]]:
    """Start Keylime's side; give its version, and a function that has it verify and returns the CPU milliseconds."""
    place = folder / "keylime"
    place.mkdir()
    (place / "log.bin").write_bytes(captured.log)
    (place / "ima.txt").write_bytes(captured.ima)
    (place / "evidence.json").write_text(json.dumps(in_keylime_words(captured)), encoding="ascii")
    command = [str(PYTHON), str(ROOT / "bench" / "keylime_side.py"), str(place)]
    with (
        (folder / "keylime.log").open("wb") as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True) as side,
    ):
        assert side.stdin is not None
        assert side.stdout is not None
        requests, answers = side.stdin, side.stdout

        def ask(what: str) -> float:
            return sum(asked(requests, answers, what) for _ in range(TIMES)) / TIMES

        yield str(json.loads(answers.readline())["version"]), ask
        requests.close()


def asked(requests: IO[str], answers: IO[str], what: str) -> float:
    print(what, file=requests, flush=True)
    answer = json.loads(answers.readline())
    assert not answer["objections"], answer
    return float(answer["cpu_ms"])


def in_keylime_words(captured: Captured) -> dict[str, str]:
    parts = captured.quote, captured.signature, pcr_file(captured.pcrs)
    return {
        "nonce": in_base64(captured.nonce),
        "quote": "r" + ":".join(in_base64(part) for part in parts),
        "ak": in_base64(captured.ak),
        "pcr_10": captured.pcrs[10].hex(),
    }


def in_base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def pcr_file(pcrs: Mapping[int, bytes]) -> bytes:
    """Write PCR values as tpm2_quote does: its structures in memory, TPML_PCR_SELECTION and a TPML_DIGEST per eight."""
    chosen = sum(1 << pcr for pcr in pcrs).to_bytes(3, "little")
    selection = pack("<IHB3s2x", 1, 0xB, 3, chosen) + bytes(15 * 8)
    values = [pack("<H64s", len(value), value) for _, value in sorted(pcrs.items())]
    lists = [values[at : at + 8] for at in range(0, len(values), 8)]
    digests = [pack("<I", len(each)) + b"".join(each).ljust(8 * 66, b"\0") for each in lists]
    return selection + pack("<I", len(digests)) + b"".join(digests)
