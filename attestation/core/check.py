"""What a check is: one small rule that says pass, fail or unproven, and what of the Evidence it leans on.

A rule reads facts that `attestation.core.facts` has proved, never the log itself. A fact from a PCR that the running
system may extend counts only where the baseline pins that PCR (`Proved.pinned`). The codes are stable, and each check
has a page in docs/checks/.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from attestation.core.facts import Fact
from attestation.core.oddities import Oddity
from attestation.core.tpm import Clock


class Verdict(Enum):
    PASS = "pass"  # noqa: S105  (a verdict)
    FAIL = "fail"
    UNPROVEN = "unproven"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a rule says, in a sentence, and the PCRs and events (their index in the log) that it leans on."""

    verdict: Verdict
    said: str
    leans: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class CodePolicy:
    """A Windows code integrity policy that somebody registered, by the digests that Windows measures for it.

    What a supplemental policy allows is allowed beside what its base does.
    """

    name: str
    digests: frozenset[str]
    audits: bool
    trivial: tuple[str, ...]
    supplemental: bool


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a policy asks beside yes and no; empty means that nothing is asked.

    `firmware_versions` are the accepted texts of EV_S_CRTM_VERSION, `least_dbx_entries` how many revocations the dbx
    has to hold, `dump_keys` the SHA-256 of registered dump encryption keys, in hexadecimal.
    """

    firmware_versions: tuple[str, ...] = ()
    least_dbx_entries: int = 0
    dump_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Counters:
    """What grows from boot to boot of one host; None where the Evidence does not prove it."""

    reset_count: int | None = None
    restart_count: int | None = None
    boot_count: int | None = None


@dataclass(frozen=True, slots=True)
class RuntimeOutcome:
    """What a runtime policy made of a proved IMA list: how many entries, and how many of them are trouble."""

    entries: int
    troubles: int


@dataclass(frozen=True, slots=True)
class Proved:
    """Everything that a rule may lean on."""

    facts: Mapping[str, Fact | None]
    pinned: frozenset[int]
    clock: Clock
    oddities: tuple[Oddity, ...] = ()
    before: Counters = field(default_factory=Counters)
    parameters: Parameters = field(default_factory=Parameters)
    code_policies: tuple[CodePolicy, ...] = ()
    runtime: RuntimeOutcome | None = None

    def fact(self, name: str) -> Fact | None:
        return self.facts.get(name)


Rule = Callable[[Proved], Answer]


@dataclass(frozen=True, slots=True)
class Check:
    """A question to a host's Evidence. `windows` and `linux` are its rules, None where the question makes no sense."""

    code: str
    substatus: str
    title: str
    why: str
    remedy: str
    windows: Rule | None
    linux: Rule | None
    default: bool = False

    def rule_for(self, platform: str) -> Rule | None:
        return self.windows if platform == "windows" else self.linux


def passed(said: str, *facts: Fact | None) -> Answer:
    return Answer(Verdict.PASS, said, _leans(facts))


def failed(said: str, *facts: Fact | None) -> Answer:
    return Answer(Verdict.FAIL, said, _leans(facts))


def unproven(said: str, *facts: Fact | None) -> Answer:
    return Answer(Verdict.UNPROVEN, said, _leans(facts))


def _leans(facts: tuple[Fact | None, ...]) -> tuple[tuple[int, int], ...]:
    return tuple((fact.pcr, fact.event) for fact in facts if fact is not None)
