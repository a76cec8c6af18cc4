"""What appraisal reports: one cause of trouble in three sentences, or one thing that the Evidence does not prove."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

FAIL: Final = "fail"
UNPROVEN: Final = "unproven"


@dataclass(frozen=True, slots=True)
class Deviation:
    """One measured event that no reference has, or one expected event that is missing: what an operator looks at.

    `expected` and `seen` are digests in hexadecimal, "" where there is none. `name` and `text` are for people; `proved`
    says whether the text was hashed into the PCR.
    """

    pcr: int
    name: str
    text: str
    proved: bool
    expected: str
    seen: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Three sentences for people, a stable code for machines, and the substatus word that HGS users search for.

    `check` names the check of the policy that this is about, and `verdict` whether the Evidence speaks against the
    host or only does not speak for it.
    """

    code: str
    substatus: str
    what: str
    why: str
    remedy: str
    pcrs: tuple[int, ...] = ()
    check: str = ""
    verdict: Literal["fail", "unproven"] = FAIL
    deviations: tuple[Deviation, ...] = ()


def substatus_of(findings: Iterable[Finding]) -> list[str]:
    """Return the substatus words of findings, each once, in order of the alphabet."""
    return sorted({finding.substatus for finding in findings if finding.substatus})


def finding_from(fields: Mapping[str, Any]) -> Finding:
    """Return a finding as `dataclasses.asdict` once wrote it; what a later version wrote more of is left out."""
    known = {name: value for name, value in fields.items() if name in Finding.__slots__}
    return Finding(
        **{
            **known,
            "pcrs": tuple(fields.get("pcrs", ())),
            "deviations": tuple(Deviation(**each) for each in fields.get("deviations", ())),
        }
    )
