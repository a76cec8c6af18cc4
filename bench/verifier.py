"""The whole verifier on a real server's Evidence, beside Keylime on the same bytes in the same run.

The boot log (73 KB) and the IMA list (780 files) were captured on a server; a software TPM boots that log, extends that
list and signs the quote with an RSA-2048 key, so everything is as it came from the host and nothing is left out.
Figures are CPU time, with that of the programs Keylime starts. Both sides verify the quote, replay log and list, read
the events, and hold them against policies made of this host, which pass.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Final

from attestation import memory
from attestation.core import uefi
from attestation.core.appraise import appraise, checked
from attestation.core.check import Verdict
from attestation.core.claims import BANK, Claims, Logs, SentLogs, read_ima, verify_evidence
from attestation.core.eventlog import parse_event_log
from attestation.core.facts import read_facts
from attestation.core.ima import START, ImaPosition, ima_measurements
from attestation.core.ima_templates import binary_from_text
from attestation.core.oddities import find_oddities
from attestation.core.policy import AppraisalPolicy
from attestation.core.quote import BOOT_PCRS, QUOTED_PCRS, verify_quote
from attestation.core.reference import ReferenceValues, by_value
from attestation.core.replay import replay
from attestation.core.runtime import KnownLines, RuntimePolicy, appraise_runtime
from attestation.core.tpm import parse_public
from attestation.core.transport import verify_transport_key
from bench.beside import Captured, installed, keylime
from bench.core import NOW, Sample, sample
from bench.figures import Figure
from tests.boot_logs import COLLECTION
from tests.machines import Machine, booted_from
from tests.tpm_lab import Maker

RUNS: Final = 9
RUN_SECONDS: Final = 0.05
FIRST: Final = "Guardhouse, first sight"
NEW: Final = "Guardhouse, first sight in a new process"
FLEET: Final = "Guardhouse, log and files known from other hosts"
AGAIN: Final = "Guardhouse, log and list seen before"
KEYLIME_FIRST: Final = "Keylime check_quote"
KEYLIME_AGAIN: Final = "Keylime check_quote, same boot again, no new files"
TARGETS: Final[Mapping[str, int]] = {FIRST: 25, AGAIN: 150}  # times less CPU than Keylime's check_quote


@dataclass(frozen=True, slots=True)
class Subject:
    """One host's Evidence, and the policy that was made of it."""

    sample: Sample
    ak: bytes
    ima: bytes
    policy: AppraisalPolicy
    known: KnownLines
    place: ImaPosition

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.sample.log).hexdigest()


def appraised(subject: Subject, logs: Logs, known: KnownLines) -> Claims:
    """Verify and appraise everything, as the service does between its two statements, and insist that it passes."""
    sample = subject.sample
    claims = verify_evidence(sample.evidence, ak=parse_public(subject.ak), nonce=sample.nonce, logs=logs)
    result = appraise(claims, subject.policy, host="", now=NOW, known=known)
    assert result.affirming, result.findings
    return claims


def first_sight(subject: Subject) -> None:
    """Nothing of this host was seen: its keys and its log are read anew, and no line of the list is known."""
    parse_public.cache_clear()
    assert subject.policy.runtime is not None
    known = KnownLines(subject.policy.runtime, BANK, memory.MOST_LINES)
    _ = subject.digest  # which the log is kept under
    appraised(subject, SentLogs(subject.sample.log, subject.ima, known=known.digests), known)


def new_process(subject: Subject) -> None:
    """Not even the certificates and names that other hosts' logs have in common with this one are known."""
    for each in vars(uefi).values():
        if hasattr(each, "cache_clear"):
            each.cache_clear()
    first_sight(subject)


def among_others(subject: Subject) -> None:
    """Another host sent the same log and measured the same files: all of it travels, and is found to be known."""
    parse_public.cache_clear()
    appraised(subject, remembered(subject, subject.ima, START), subject.known)


def again(subject: Subject) -> None:
    """This host attested before: the log did not travel, and of the list what is new, which is nothing."""
    appraised(subject, remembered(subject, b"", subject.place), subject.known)


def remembered(subject: Subject, ima: bytes, after: ImaPosition) -> memory.RememberedLogs:
    log = subject.sample.log
    return memory.RememberedLogs(subject.digest, lambda: log, ima, after, subject.known.digests)


def verifier_figures(maker: Maker, folder: Path) -> tuple[list[Figure], list[str]]:
    """Measure both sides turn by turn; without the captured Evidence or without Keylime, say so."""
    published = next(COLLECTION.glob("*keylime-perf-tests"), None)
    if published is None:
        return [], ["not measured: the captured Evidence of hpe-security-lab/keylime-perf-tests is not at hand"]
    with booted_from(maker, folder, name="nbg-a03", log=(published / "uefi_log.bin").read_bytes()) as machine:
        subject, captured = evidence(machine, (published / "ima_log.txt").read_bytes())
    work: dict[str, Callable[[], object]] = {FIRST: partial(first_sight, subject), **steps(subject)}
    work |= {NEW: partial(new_process, subject), FLEET: partial(among_others, subject), AGAIN: partial(again, subject)}
    sides: dict[str, Callable[[], float]] = {name: own(each) for name, each in work.items()}
    passed = f"policy of Guardhouse: this boot, these files and {len(subject.policy.required)} checks"
    if not installed():
        missing = "Keylime is not installed: ratio not measured. `make bench-keylime` installs and measures it."
        return measured(sides), [passed, missing]
    with keylime(captured, folder) as (which, ask):
        sides |= {KEYLIME_FIRST: lambda: ask("first"), KEYLIME_AGAIN: lambda: ask("again")}
        figures = measured(sides)
    return figures, [passed, f"Keylime {which}, Guardhouse {version('guardhouse')}", *ratios(figures)]


def evidence(machine: Machine, ima_text: bytes) -> tuple[Subject, Captured]:
    """Extend the list, quote everything with an RSA key, and approve what there is."""
    ima = binary_from_text(ima_text)
    for pcr, digest in ima_measurements(ima, bank=BANK):
        machine.tpm.extend(pcr, digest)
    machine.tpm.forget(machine.ak)
    ak = machine.tpm.primary("rsa2048:rsassa-sha256:null")
    taken = sample(machine, ak)
    claims = verify_evidence(taken.evidence, ak=taken.ak, nonce=taken.nonce, logs=SentLogs(machine.log, ima))
    assert claims.ima is not None
    policy = policy_of(claims, RuntimePolicy.from_list(claims.ima.fresh))
    assert policy.runtime is not None
    subject = Subject(
        taken, ak.public, ima, policy, KnownLines(policy.runtime, BANK, memory.MOST_LINES), claims.ima.position
    )
    quoted = taken.evidence
    captured = Captured(
        quoted.quote, quoted.signature, quoted.pcr_values, ak.public, taken.nonce, machine.log, ima_text
    )
    return subject, captured


def policy_of(claims: Claims, runtime: RuntimePolicy) -> AppraisalPolicy:
    """Ask for this boot, these files, and every check that this host passes."""
    pinned = by_value({pcr: claims.pcrs[pcr] for pcr in BOOT_PCRS})
    baseline = ReferenceValues("1", "server", BANK, pinned, claims.boot.events)
    policy = AppraisalPolicy(1, (baseline,), runtime=runtime)
    answers = checked(claims, policy, now=NOW)
    passed = frozenset(each.check.code for each in answers if each.answer.verdict is Verdict.PASS)
    return replace(policy, required=passed)


def steps(subject: Subject) -> dict[str, Callable[[], object]]:
    """Where the time of the first sight goes."""
    ak, evidence, nonce = subject.sample.ak, subject.sample.evidence, subject.sample.nonce
    pcrs, runtime = evidence.pcr_values, subject.policy.runtime
    assert runtime is not None
    log = parse_event_log(subject.sample.log)
    events = replay(log, quoted=pcrs, bank=BANK)
    claims = appraised(subject, SentLogs(subject.sample.log, subject.ima), subject.known)
    listed, without = claims.ima, replace(subject.policy, runtime=None)
    assert listed is not None
    signed = evidence.transport_public, evidence.transport_certify, evidence.transport_signature
    return {
        "  attestation key parsed": lambda: parse_public.__wrapped__(subject.ak),
        "  quote verified": lambda: verify_quote(
            evidence.quote, evidence.signature, ak=ak, nonce=nonce, selection=(BANK, QUOTED_PCRS), pcr_values=pcrs
        ),
        "  transport key parsed": lambda: parse_public.__wrapped__(evidence.transport_public),
        "  transport key verified": lambda: verify_transport_key(*signed, ak=ak, nonce=nonce, pcrs=pcrs),
        "  log hashed": lambda: subject.digest,
        "  log parsed": lambda: parse_event_log(subject.sample.log),
        "  log replayed": lambda: replay(log, quoted=pcrs, bank=BANK),
        "  facts read": lambda: read_facts(events, bank=BANK),
        "  oddities found": lambda: find_oddities(log, events, bank=BANK),
        "  IMA list replayed": lambda: read_ima(subject.ima, pcrs),
        "  files appraised": lambda: appraise_runtime(listed, runtime, pcrs=pcrs),
        "  boot and checks appraised": lambda: appraise(claims, without, host="", now=NOW),
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
