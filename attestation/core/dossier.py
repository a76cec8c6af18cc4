"""A dossier: everything that one verdict rests on, and the verdict, so that anybody can come to it again.

The SHA-256 of a dossier stands in the ledger, in the leaf of the verdict and in that of every key that was released or
refused by it. It names the logs and the policy by their own digests. So a fabric can neither put other Evidence under
a verdict afterwards, nor another policy, nor another verdict under the Evidence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from attestation.core.appraise import AttestationResult, Before, appraise
from attestation.core.check import Counters
from attestation.core.claims import Evidence, SentLogs, verify_evidence
from attestation.core.policy import AppraisalPolicy
from attestation.core.policy_record import Load, parse_policy_record, policy_from
from attestation.core.possession import parse_host_key, verify_possession
from attestation.core.tpm import parse_public
from attestation.errors import NotKept, ParseError
from ledger.core.leaf import canonical_json
from ledger.core.strict_json import array, digest, members, read_json, text, whole_number

DOSSIER_LIMIT: Final = 4 << 20
NO_POLICY: Final = AppraisalPolicy(version=0, baselines=())
PENDING: Final = "host_pending"
_MOST: Final = 2**63
_LONGEST: Final = 64 * 1024
_QUOTED: Final = ("quote", "signature", "transport_public", "transport_certify", "transport_signature")
_MEMBERS: Final = {"host", "mode", "at", "approved", "key", "nonce", "evidence", "pcrs", "event_log", "ima", "before"}
_VERDICT: Final = {"policy", "version", "baseline", "status", "codes", "excepted"}


@dataclass(frozen=True, slots=True)
class Dossier:
    """One verdict and its grounds.

    `key` is what the host was known by: its attestation key, or its host key; empty in Kerberos mode, where the domain
    vouches. `ima_end` is up to where the IMA list was proved, None where there was none. `policy` and `event_log` are
    digests, "" for none. `approved` says whether people had approved the host.
    """

    host: str
    mode: str
    at: datetime
    approved: bool
    key: bytes
    nonce: bytes
    evidence: Mapping[str, Any]
    pcrs: Mapping[int, bytes]
    event_log: str
    ima_log: str
    ima_from: int
    ima_end: int | None
    before: Counters
    policy: str
    version: int
    baseline: str
    status: str
    codes: tuple[str, ...]
    excepted: tuple[str, ...]

    def content(self) -> bytes:
        """Return the one byte string that stands for this dossier, and that its digest is over."""
        return canonical_json(
            {
                "host": self.host,
                "mode": self.mode,
                "at": self.at.astimezone(UTC).isoformat(timespec="microseconds"),
                "approved": self.approved,
                "key": self.key.hex(),
                "nonce": self.nonce.hex(),
                "evidence": dict(self.evidence),
                "pcrs": {str(pcr): value.hex() for pcr, value in self.pcrs.items()},
                "event_log": self.event_log,
                "ima": {"log": self.ima_log, "from": self.ima_from, "end": self.ima_end},
                "before": {"reset": self.before.reset_count, "boot": self.before.boot_count},
                "policy": self.policy,
                "version": self.version,
                "baseline": self.baseline,
                "status": self.status,
                "codes": list(self.codes),
                "excepted": list(self.excepted),
            }
        )


def parse_dossier(data: bytes) -> Dossier:
    """Read what `content` wrote. Raises `ParseError`; nobody has verified what it says."""
    said = members(read_json(data, limit=DOSSIER_LIMIT), _MEMBERS | _VERDICT, what="A dossier")
    ima = members(said["ima"], {"log", "from", "end"}, what="An IMA list")
    before = members(said["before"], {"reset", "boot"}, what="What was before")
    if not isinstance(said["approved"], bool) or not isinstance(said["evidence"], dict):
        raise ParseError("A dossier cannot be read.")
    return Dossier(
        host=_short(said["host"]),
        mode=_short(said["mode"]),
        at=_moment(said["at"]),
        approved=said["approved"],
        key=_hex(said["key"]),
        nonce=_hex(said["nonce"]),
        evidence=said["evidence"],
        pcrs=_pcrs(said["pcrs"]),
        event_log=digest(said["event_log"], or_none=True),
        ima_log=digest(ima["log"], or_none=True),
        ima_from=_number(ima["from"]),
        ima_end=_optional(ima["end"]),
        before=Counters(reset_count=_optional(before["reset"]), boot_count=_optional(before["boot"])),
        policy=digest(said["policy"], or_none=True),
        version=_number(said["version"]),
        baseline=_short(said["baseline"]),
        status=_short(said["status"]),
        codes=_words(said["codes"]),
        excepted=_words(said["excepted"]),
    )


# --- judged again ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Again:
    """What the Evidence of a dossier comes to when it is judged once more; `transport_spki` is the key it proves.

    None where nothing but the domain's word was there to judge: in Kerberos mode.
    """

    status: str
    codes: tuple[str, ...]
    excepted: tuple[str, ...]
    baseline: str
    transport_spki: bytes | None


def judge_again(dossier: Dossier, load: Load, *, ima_list: bytes | None) -> Again:
    """Verify the Evidence of a dossier and hold it against the policy that it names, as of its own moment.

    `ima_list` is the host's whole list of that boot. Raises a `Refusal` when the Evidence is not authentic, or when
    something that it takes is not there.
    """
    judge = {"tpm": _quoted, "hostkey": _possessed, "kerberos": _vouched_for}.get(dossier.mode)
    if judge is None:
        raise ParseError("A dossier is of a mode that is not known here.")
    return judge(dossier, load, ima_list)


def differences(dossier: Dossier, again: Again) -> tuple[str, ...]:
    """Say in sentences where a verdict that was come to again is not the one that the fabric had given."""
    pairs = [
        ("status", dossier.status, again.status),
        ("findings", _listed(dossier.codes), _listed(again.codes)),
        ("findings that exceptions covered", _listed(dossier.excepted), _listed(again.excepted)),
        ("baseline", dossier.baseline or "none", again.baseline or "none"),
    ]
    return tuple(
        f"The {what}: the fabric had said {said}, and it is {now}." for what, said, now in pairs if said != now
    )


def _quoted(dossier: Dossier, load: Load, ima_list: bytes | None) -> Again:
    policy = policy_from(parse_policy_record(load(dossier.policy)), load) if dossier.policy else NO_POLICY
    if policy.version != dossier.version:
        raise ParseError("The policy of a dossier is of another version than the dossier says.")
    evidence = Evidence(pcr_values=dossier.pcrs, **{part: _hex(dossier.evidence.get(part)) for part in _QUOTED})
    if not dossier.event_log or (dossier.ima_end is not None and not dossier.approved):
        raise NotKept("The logs of a host that waited for approval were not kept, so nobody can judge them again.")
    if dossier.ima_end is not None and ima_list is None:
        raise NotKept("The host's IMA list is not there.")
    logs = SentLogs(load(dossier.event_log), ima_list if dossier.ima_end is not None else None)
    claims = verify_evidence(evidence, ak=parse_public(dossier.key), nonce=dossier.nonce, logs=logs)
    result = appraise(claims, policy, host=dossier.host, now=dossier.at, before=Before(dossier.before))
    return _again(dossier, result, claims.transport.spki)


def _again(dossier: Dossier, result: AttestationResult, spki: bytes) -> Again:
    codes = [] if dossier.approved else [PENDING]
    codes += [finding.code for finding in result.findings]
    status = "InsecureHostConfiguration" if codes else "Passed"
    return Again(
        status=status if dossier.approved else "UnauthorizedHost",
        codes=tuple(codes),
        excepted=tuple(finding.code for finding in result.excepted),
        baseline=result.baseline or "",
        transport_spki=spki,
    )


def _possessed(dossier: Dossier, load: Load, ima_list: bytes | None) -> Again:
    proof = text(dossier.evidence.get("proof"), what="A proof", longest=_LONGEST)
    said = verify_possession(proof, parse_host_key(dossier.key), nonce=dossier.nonce)
    codes = () if dossier.approved else (PENDING,)
    return Again("UnauthorizedHost" if codes else "Passed", codes, (), "", said.transport_spki)


def _vouched_for(dossier: Dossier, load: Load, ima_list: bytes | None) -> Again:
    """A ticket was for one request, and nobody can check it again: what is left is what the fabric had said of it."""
    return Again(dossier.status, dossier.codes, dossier.excepted, dossier.baseline, None)


def _listed(codes: Sequence[str]) -> str:
    return ", ".join(sorted(codes)) or "none"


# --- parts -------------------------------------------------------------------------------------------------------


def _short(value: object) -> str:
    return text(value, what="A word", longest=200)


def _words(value: object) -> tuple[str, ...]:
    return tuple(_short(each) for each in array(value, what="Codes", most=100_000))


def _number(value: object) -> int:
    return whole_number(value, what="A number", most=_MOST)


def _optional(value: object) -> int | None:
    return None if value is None else _number(value)


def _hex(value: object) -> bytes:
    try:
        return bytes.fromhex(text(value, what="Bytes in hexadecimal", longest=_LONGEST))
    except ValueError as error:
        raise ParseError("Something is not in hexadecimal.") from error


def _pcrs(value: object) -> dict[int, bytes]:
    if not isinstance(value, dict) or not all(name.isascii() and name.isdigit() and len(name) < 3 for name in value):
        raise ParseError("PCR values are not a JSON object by the numbers of PCRs.")
    return {int(name): _hex(each) for name, each in value.items()}


def _moment(value: object) -> datetime:
    try:
        moment = datetime.fromisoformat(_short(value))
    except ValueError as error:
        raise ParseError("A moment is not in ISO 8601 form.") from error
    if moment.tzinfo is None:
        raise ParseError("A moment names no time zone.")
    return moment
