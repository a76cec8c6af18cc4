"""The whole verifier on a real server's Evidence, beside Keylime on the same bytes in the same run.

The boot log (73 KB) and the IMA list (780 files) were captured on a server; a software TPM boots that log, extends that
list and signs the quote with an RSA-2048 key, so everything is as it came from the host and nothing is left out.
Figures are CPU time, with that of the programs Keylime starts. Both sides verify the quote, replay log and list, read
the events, and hold them against policies made of this host, which pass.
"""

import base64
import hashlib
import json
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from struct import pack
from typing import IO, Final

from attestation.core.baselines import hold
from attestation.core.claims import BANK, IMA_PCR
from attestation.core.eventlog import parse_event_log
from attestation.core.facts import read_facts
from attestation.core.ima import START, Extension, ImaPosition, ImaReplay, ima_measurements, ima_records, replay_list
from attestation.core.ima_templates import binary_from_text
from attestation.core.oddities import find_oddities
from attestation.core.policy import AppraisalPolicy
from attestation.core.quote import BOOT_PCRS, QUOTED_PCRS, Quote, verify_quote
from attestation.core.reference import ReferenceValues, by_value
from attestation.core.replay import VerifiedEvent, replay
from attestation.core.runtime import KnownLines, RuntimePolicy, appraise_runtime
from attestation.core.tpm import TpmPublic, parse_public
from bench.figures import Figure
from tests.boot_logs import COLLECTION
from tests.machines import Machine, booted_from
from tests.tpm_lab import Maker

ROOT: Final = Path(__file__).resolve().parent.parent
KEYLIME: Final = ROOT / ".venv-keylime" / "bin" / "python"
RUNS: Final = 9
TIMES: Final = 5  # that Keylime verifies in each run: it has slow turns, in which it collects garbage
RUN_SECONDS: Final = 0.05
FIRST: Final = "Guardhouse, first sight"
FLEET: Final = "Guardhouse, log and files known from other hosts"
AGAIN: Final = "Guardhouse, log and list seen before"
KEYLIME_FIRST: Final = "Keylime check_quote"
KEYLIME_AGAIN: Final = "Keylime check_quote, same boot again, no new files"
TARGETS: Final[Mapping[str, int]] = {FIRST: 25, AGAIN: 150}  # times less CPU than Keylime's check_quote
NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Subject:
    """One host's Evidence, and the policies that were made of it."""

    quote: bytes
    signature: bytes
    pcrs: Mapping[int, bytes]
    ak: bytes
    nonce: bytes
    log: bytes
    ima_text: bytes
    ima: bytes
    policy: AppraisalPolicy
    runtime: RuntimePolicy


@dataclass(slots=True)
class Memory:
    """What a verifier may keep between attestations: events by log and PCR values, files by policy, a list's place."""

    known: KnownLines | None = None
    place: ImaPosition = START
    events: dict[tuple[bytes, tuple[bytes, ...]], tuple[VerifiedEvent, ...]] = field(default_factory=dict)


def verify(subject: Subject, memory: Memory) -> ImaPosition:
    """Verify and appraise everything, and insist that it passes; return how far the IMA list was proved."""
    pcrs = quoted(subject, parse_public(subject.ak)).pcrs
    events = boot_events(subject.log, pcrs, memory)
    replayed = listed(subject, pcrs, memory)
    findings = appraise_runtime(replayed, subject.runtime, pcrs=pcrs, known=memory.known)
    findings += hold(pcrs, events, subject.policy.baselines, now=NOW).findings
    assert not findings, findings
    return replayed.position


def quoted(subject: Subject, ak: TpmPublic) -> Quote:
    return verify_quote(
        subject.quote,
        subject.signature,
        ak=ak,
        nonce=subject.nonce,
        selection=(BANK, QUOTED_PCRS),
        pcr_values=subject.pcrs,
    )


def listed(subject: Subject, pcrs: Mapping[int, bytes], memory: Memory) -> ImaReplay:
    """Replay the IMA list from where it was left, which is its start at first."""
    return replay_list(
        subject.ima[memory.place.offset :],
        quoted=pcrs[IMA_PCR],
        bank=BANK,
        extension=Extension.REHASHED,
        after=memory.place,
        known=memory.known.digests if memory.known else None,
    )


def boot_events(content: bytes, pcrs: Mapping[int, bytes], memory: Memory) -> tuple[VerifiedEvent, ...]:
    """Read, replay and judge a boot log; one that led to these very values before is found by its digest."""
    key = hashlib.sha256(content).digest(), tuple(pcrs[pcr] for pcr in BOOT_PCRS)
    events = memory.events.get(key)
    if events is None:
        log = parse_event_log(content)
        events = replay(log, quoted=pcrs, bank=BANK)
        read_facts(events, bank=BANK)
        find_oddities(log, events, bank=BANK)
        memory.events[key] = events
    return events


def verifier_figures(maker: Maker, folder: Path) -> tuple[list[Figure], list[str]]:
    """Measure both sides turn by turn; without the captured Evidence or without Keylime, say so."""
    captured = next(COLLECTION.glob("*keylime-perf-tests"), None)
    if captured is None:
        return [], ["not measured: the captured Evidence of hpe-security-lab/keylime-perf-tests is not at hand"]
    with booted_from(maker, folder, name="nbg-a03", log=(captured / "uefi_log.bin").read_bytes()) as machine:
        subject = evidence(machine, (captured / "ima_log.txt").read_bytes())
    sides: dict[str, Callable[[], float]] = {name: own(work) for name, work in own_work(subject).items()}
    if not KEYLIME.exists():
        figures = measured(sides)
        return figures, ["Keylime is not installed: ratio not measured. `make bench-keylime` installs and measures it."]
    with keylime(subject, folder) as (installed, ask):
        sides |= {KEYLIME_FIRST: lambda: ask("first"), KEYLIME_AGAIN: lambda: ask("again")}
        figures = measured(sides)
    return figures, [f"Keylime {installed}, Guardhouse {version('guardhouse')}", *ratios(figures)]


def evidence(machine: Machine, ima_text: bytes) -> Subject:
    """Extend the list, quote everything with an RSA key, and approve what there is."""
    ima = binary_from_text(ima_text)
    for pcr, digest in ima_measurements(ima, bank=BANK):
        machine.tpm.extend(pcr, digest)
    machine.tpm.forget(machine.ak)
    ak = machine.tpm.primary("rsa2048:rsassa-sha256:null")
    nonce = secrets.token_bytes(32)
    quote, signature = machine.tpm.quote(ak, nonce, QUOTED_PCRS)
    pcrs = machine.tpm.pcrs(QUOTED_PCRS)
    events = replay(parse_event_log(machine.log), quoted=pcrs, bank=BANK)
    baseline = ReferenceValues("1", "server", BANK, by_value({pcr: pcrs[pcr] for pcr in BOOT_PCRS}), events)
    return Subject(
        quote=quote,
        signature=signature,
        pcrs=pcrs,
        ak=ak.public,
        nonce=nonce,
        log=machine.log,
        ima_text=ima_text,
        ima=ima,
        policy=AppraisalPolicy(1, (baseline,)),
        runtime=RuntimePolicy.from_list(line for _, _, line, _, _ in ima_records(ima)),
    )


def own_work(subject: Subject) -> dict[str, Callable[[], object]]:
    fleet = Memory(known=KnownLines(subject.runtime, BANK, limit=len(subject.ima)))
    host = Memory(known=fleet.known)
    host.place = verify(subject, host)
    return {
        FIRST: lambda: verify(subject, Memory()),
        **steps(subject),
        FLEET: lambda: verify(subject, fleet),
        AGAIN: lambda: verify(subject, host),
    }


def steps(subject: Subject) -> dict[str, Callable[[], object]]:
    """Where the time of the first sight goes, step by step."""
    ak, pcrs, nothing = parse_public(subject.ak), subject.pcrs, Memory()
    log = parse_event_log(subject.log)
    events = replay(log, quoted=pcrs, bank=BANK)
    replayed = listed(subject, pcrs, nothing)
    return {
        "  key parsed": lambda: parse_public(subject.ak),
        "  quote verified": lambda: quoted(subject, ak),
        "  log parsed": lambda: parse_event_log(subject.log),
        "  log replayed": lambda: replay(log, quoted=pcrs, bank=BANK),
        "  facts read": lambda: read_facts(events, bank=BANK),
        "  oddities found": lambda: find_oddities(log, events, bank=BANK),
        "  IMA list replayed": lambda: listed(subject, pcrs, nothing),
        "  files appraised": lambda: appraise_runtime(replayed, subject.runtime, pcrs=pcrs),
        "  boot appraised": lambda: hold(pcrs, events, subject.policy.baselines, now=NOW),
    }


def own(work: Callable[[], object]) -> Callable[[], float]:
    """Return a measurement of our own work: CPU milliseconds for each time, over a twentieth of a second."""

    def once() -> float:
        count, began = 0, time.process_time()
        while (spent := time.process_time() - began) < RUN_SECONDS or not count:
            work()
            count += 1
        return spent * 1000 / count

    return once


def measured(sides: Mapping[str, Callable[[], float]]) -> list[Figure]:
    """Measure all sides in turn, so that a slow minute of this machine is slow for all of them."""
    for measure in sides.values():
        measure()
    runs: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(RUNS):
        for name, measure in sides.items():
            runs[name].append(measure())
    return [Figure(name, tuple(times), FIRST) for name, times in runs.items()]


def ratios(figures: Sequence[Figure]) -> list[str]:
    runs = {figure.name: figure.runs for figure in figures}
    lines = []
    for name, target in TARGETS.items():
        times = median(theirs / mine for mine, theirs in zip(runs[name], runs[KEYLIME_FIRST], strict=True))
        lines.append(f"{name}: 1/{times:.0f} of Keylime's CPU; the target is 1/{target}")
    return lines


@contextmanager
def keylime(subject: Subject, folder: Path) -> Iterator[tuple[str, Callable[[str], float]]]:
    """Start Keylime's side; give its version, and a function that has it verify and returns the CPU milliseconds."""
    place = folder / "keylime"
    place.mkdir()
    (place / "log.bin").write_bytes(subject.log)
    (place / "ima.txt").write_bytes(subject.ima_text)
    (place / "evidence.json").write_text(json.dumps(in_keylime_words(subject)), encoding="ascii")
    command = [str(KEYLIME), str(ROOT / "bench" / "keylime_side.py"), str(place)]
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


def in_keylime_words(subject: Subject) -> dict[str, str]:
    parts = subject.quote, subject.signature, pcr_file(subject.pcrs)
    return {
        "nonce": in_base64(subject.nonce),
        "quote": "r" + ":".join(in_base64(part) for part in parts),
        "ak": in_base64(subject.ak),
        "pcr_10": subject.pcrs[IMA_PCR].hex(),
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
