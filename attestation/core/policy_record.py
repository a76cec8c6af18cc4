"""A policy version written down whole: its document, and by digest everything that the document only names.

The digest of the record stands in the ledger beside each verdict (`attestation.core.dossier`). Whoever has what the
digests stand for has the very policy that judged, and whoever changes a byte of it has another one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from attestation.core.check import CodePolicy
from attestation.core.ci_policy import parse_ci_policy
from attestation.core.document import BaselineEntry, parse_document
from attestation.core.eventlog import parse_event_log
from attestation.core.ima_signature import parse_signer
from attestation.core.policy import AppraisalPolicy
from attestation.core.reference import PLATFORMS, ReferenceValues, rules_from_json
from attestation.core.replay import VerifiedEvent, replay
from attestation.core.runtime import RuntimePolicy
from attestation.core.runtime_text import parse_runtime_text
from attestation.errors import ParseError
from ledger.core.leaf import canonical_json
from ledger.core.strict_json import array, digest, members, read_json, text, whole_number

RECORD_LIMIT: Final = 16 << 20
_LONGEST: Final = 2000
_MOST: Final = 10_000
_MOST_VERSIONS: Final = 2**31

Load = Callable[[str], bytes]
"""Returns what a SHA-256 stands for; raises a `Refusal` when that is not there."""


@dataclass(frozen=True, slots=True)
class PolicyRecord:
    """A version's document, and the digests of what it names; `runtime` is "" where it names none."""

    version: int
    document: Mapping[str, Any]
    baselines: Mapping[str, str]
    runtime: str
    code_policies: Mapping[str, str]

    def content(self) -> bytes:
        return canonical_json(
            {
                "version": self.version,
                "document": self.document,
                "baselines": dict(self.baselines),
                "runtime": self.runtime,
                "code_policies": dict(self.code_policies),
            }
        )


def parse_policy_record(data: bytes) -> PolicyRecord:
    said = members(
        read_json(data, limit=RECORD_LIMIT),
        {"version", "document", "baselines", "runtime", "code_policies"},
        what="A policy",
    )
    if not isinstance(said["document"], dict):
        raise ParseError("A policy's document is not a JSON object.")
    return PolicyRecord(
        version=whole_number(said["version"], what="A version", most=_MOST_VERSIONS),
        document=said["document"],
        baselines=_digests(said["baselines"]),
        runtime=digest(said["runtime"], or_none=True),
        code_policies=_digests(said["code_policies"]),
    )


def policy_from(record: PolicyRecord, load: Load) -> AppraisalPolicy:
    """Return the policy that a record stands for, as it judges. Raises a `Refusal` when something of it is not there.

    A baseline that the document names and the record does not was not there either when the policy judged.
    """
    document = parse_document(record.document)
    entries = [each for each in document.baselines if each.id in record.baselines]
    return AppraisalPolicy(
        version=record.version,
        baselines=tuple(_baseline(load(record.baselines[each.id]), each, load) for each in entries),
        required=document.required,
        parameters=document.parameters,
        exceptions=document.exceptions,
        runtime=_runtime(load(record.runtime), load) if record.runtime else None,
        code_policies=tuple(_code_policy(load(each), load) for _, each in sorted(record.code_policies.items())),
    )


def baseline_content(
    *, name: str, bank: str, platform: str, pcrs: Mapping[str, Any], event_log: str, explained: Mapping[str, str]
) -> bytes:
    """Write a baseline down; `event_log` is the digest of the log that explains its values, "" for none."""
    said = {"name": name, "bank": bank, "platform": platform, "pcrs": pcrs}
    return canonical_json({**said, "event_log": event_log, "explained": explained})


def _baseline(data: bytes, entry: BaselineEntry, load: Load) -> ReferenceValues:
    names = {"name", "bank", "platform", "pcrs", "event_log", "explained"}
    said = members(read_json(data, limit=RECORD_LIMIT), names, what="A baseline")
    bank, platform = text(said["bank"], what="A bank", longest=10), said["platform"]
    if platform not in PLATFORMS:
        raise ParseError("A baseline is for a platform that is not known here.")
    try:
        rules = rules_from_json(said["pcrs"])
        explained = {int(pcr): bytes.fromhex(value) for pcr, value in said["explained"].items()}
    except (AttributeError, TypeError, ValueError, KeyError) as error:
        raise ParseError("The values of a baseline cannot be read.") from error
    event_log = digest(said["event_log"], or_none=True)
    return ReferenceValues(
        id=entry.id,
        name=text(said["name"], what="A name", longest=_LONGEST),
        bank=bank,
        pcrs=rules,
        events=_events(load(event_log), explained, bank) if event_log else (),
        platform=platform,
        accepted_from=entry.accepted_from,
        accepted_until=entry.accepted_until,
    )


def _events(log: bytes, explained: Mapping[int, bytes], bank: str) -> tuple[VerifiedEvent, ...]:
    return replay(parse_event_log(log), quoted=explained, bank=bank)


def runtime_content(*, text: str, excludes: list[str], signers: list[str]) -> bytes:
    """Write a runtime policy down; `text` is the digest of its lines, signers are certificates in hexadecimal."""
    return canonical_json({"text": text, "excludes": excludes, "signers": signers})


def _runtime(data: bytes, load: Load) -> RuntimePolicy:
    said = members(read_json(data, limit=RECORD_LIMIT), {"text", "excludes", "signers"}, what="A runtime policy")
    excludes = [
        text(each, what="A path", longest=_LONGEST) for each in array(said["excludes"], what="Paths", most=_MOST)
    ]
    signers = [parse_signer(_hex(each)) for each in array(said["signers"], what="Signers", most=_MOST)]
    return parse_runtime_text(load(digest(said["text"])), excludes=excludes, signers=signers)


def code_policy_content(*, name: str, file: str, digests: Mapping[str, str], audits: bool, trivial: list[str]) -> bytes:
    """Write a code integrity policy down; `file` is the digest of its file."""
    return canonical_json({"name": name, "file": file, "digests": digests, "audits": audits, "trivial": trivial})


def _code_policy(data: bytes, load: Load) -> CodePolicy:
    names = {"name", "file", "digests", "audits", "trivial"}
    said = members(read_json(data, limit=RECORD_LIMIT), names, what="A code integrity policy")
    if not isinstance(said["digests"], dict) or not isinstance(said["audits"], bool):
        raise ParseError("A code integrity policy cannot be read.")
    return CodePolicy(
        name=text(said["name"], what="A name", longest=_LONGEST),
        # A SHA-1 is no policy's (`is_measured_as`).
        digests=frozenset(f"{name}:{value}" for name, value in said["digests"].items() if name != "sha1"),
        audits=said["audits"],
        trivial=tuple(
            text(each, what="A rule", longest=_LONGEST) for each in array(said["trivial"], what="Rules", most=_MOST)
        ),
        supplemental=parse_ci_policy(load(digest(said["file"]))).supplemental,
    )


def _digests(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > _MOST:
        raise ParseError("What a policy names is not a JSON object of digests.")
    return {name: digest(each) for name, each in value.items()}


def _hex(value: object) -> bytes:
    try:
        return bytes.fromhex(text(value, what="Bytes in hexadecimal", longest=1 << 16))
    except ValueError as error:
        raise ParseError("Something is not in hexadecimal.") from error
