"""The opening of an appraisal: the challenge is spent, and everything that the appraisal rests on is read beside it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from attestation.models import Attestation, Attester, Challenge, ImaProgress, PolicyVersion, SignerKey
from ledger.statements import Change, Part, change_and_read, read_beside, worded

_CHALLENGE: Final = Part(
    Challenge, "changed", "id", "attester_id", "nonce", "event_log_sha256", "send_event_log", "ima_from", "trial"
)
_HOST: Final = Part(
    Attester,
    "host",
    *("id", "name", "mode", "host_key", "state", "group_id", "ak_public", "status", "status_at"),
    *("reset_count", "boot_count", "latest_id"),
)
_LATEST: Final = Part(Attestation, "latest", "id", "status", "policy_version", "findings")
_PROGRESS: Final = Part(
    ImaProgress, "ima", "attester_id", "reset_count", "offset", "entries", "pcr_value", "runtime", "findings"
)
_VERSION: Final = Part(PolicyVersion, "policy", "version", "created_at")
_SIGNER: Final = Part(SignerKey, "signer", "number", "sealed", "certificate")

# Documents of policies are not read here: a process compiles each version once (`attestation.policy`).
_SELECT: Final = worded(
    """
SELECT {number}, :challenge, :host, :latest, :progress, :version, :signer,
  EXISTS (SELECT 1 FROM attestation_signerkey AS successor WHERE successor.number = signer.number + 1),
  (SELECT mode FROM attestation_modeswitch ORDER BY id DESC LIMIT 1) FROM changed
JOIN attestation_attester AS host ON host.id = changed.attester_id
LEFT JOIN attestation_attestation AS latest ON latest.id = host.latest_id
LEFT JOIN attestation_imaprogress AS ima ON ima.attester_id = host.id
LEFT JOIN attestation_policyversion AS policy ON policy.version = (
  SELECT max(version) FROM attestation_policyversion WHERE group_id = host.group_id AND effective_at <= %s)
LEFT JOIN attestation_signerkey AS signer ON signer.number = (
  SELECT min(number) FROM attestation_signerkey WHERE soft_expires_at > %s)
""",
    challenge=_CHALLENGE,
    host=_HOST,
    latest=_LATEST,
    progress=_PROGRESS,
    version=_VERSION,
    signer=_SIGNER,
)


@dataclass(frozen=True, slots=True)
class Opening:
    """What an appraisal rests on, all of one moment.

    `version` is the policy version in force for the host's group, `signer` the one in use, `number` the key that the
    attestation will have.
    """

    challenge: Challenge
    host: Attester
    latest: Attestation | None
    progress: ImaProgress | None
    version: PolicyVersion | None
    signer: SignerKey | None
    has_successor: bool
    mode: str
    number: int


def spend(challenge_id: UUID, *, now: datetime) -> Opening | None:
    """Have a challenge answered that nobody has answered; of many that try, one gets it, and the others get None."""
    spent = Change(
        Challenge(pk=challenge_id, spent_at=now), ["spent_at"], seen={"spent_at": None}, later={"expires_at": now}
    )
    found = change_and_read(spent, _CHALLENGE, _SELECT, _moments(now), number_of=Attestation)
    return None if found is None else _opening(found)


def anew(opening: Opening, *, now: datetime) -> Opening:
    """Read once more what an appraisal rests on, with the host's row held until the caller's transaction ends."""
    Attester.objects.select_for_update().only("pk").get(pk=opening.host.pk)
    return _opening(read_beside(_CHALLENGE, opening.challenge.pk, _SELECT, _moments(now), number=opening.number))


def _moments(now: datetime) -> list[object]:
    """The values of `_SELECT`: when a policy version has begun, and when a signer is still in use."""
    return [now, now]


def _opening(values: Iterator[Any]) -> Opening:
    number = int(next(values))
    challenge, host = _CHALLENGE.take(values), _HOST.take(values)
    latest, progress = _LATEST.read(values), _PROGRESS.read(values)
    version, signer = _VERSION.read(values), _SIGNER.read(values)
    has_successor, mode = values
    return Opening(challenge, host, latest, progress, version, signer, bool(has_successor), mode, number)
