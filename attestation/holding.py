"""A health certificate with all that its worth depends on now, read in one statement.

Every release of a key reads it. What a certificate is worth is decided in `attestation.certificates`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from attestation.models import (
    Attestation,
    Attester,
    DenyBefore,
    HealthCertificate,
    ModeSwitch,
    PolicyVersion,
    SignerKey,
    Stop,
)
from ledger.statements import Part, read, worded

_CERTIFICATE: Final = Part(
    HealthCertificate,
    "held",
    *("serial", "attester_id", "attestation_id", "signer_id", "der", "issued_at", "not_after"),
    *("revoked_at", "revoked_reason"),
)
_HOST: Final = Part(Attester, "host", "id", "name", "group_id", "state", "status")
_PROVED: Final = Part(Attestation, "proved", "id", "mode", "policy_version", "policy_sha256", "dossier_sha256")
_SIGNER: Final = Part(SignerKey, "signer", "number", "certificate")
_SWITCH: Final = Part(ModeSwitch, "switch", "id", "mode", "before", "before_until")
_DENIED: Final = Part(DenyBefore, "denied", "id", "moment")
_STOPPED: Final = Part(Stop, "stopped", "id", "scope", "at")
_VERSION: Final = Part(PolicyVersion, "policy", "version", "created_at")

_SELECT: Final = worded(
    """
SELECT :certificate, :host, :proved, :signer, :switch, :denied, :stopped, :version
FROM attestation_healthcertificate AS held
JOIN attestation_attester AS host ON host.id = held.attester_id
JOIN attestation_attestation AS proved ON proved.id = held.attestation_id
JOIN attestation_signerkey AS signer ON signer.number = held.signer_id
JOIN attestation_modeswitch AS switch ON switch.id = (SELECT max(id) FROM attestation_modeswitch)
LEFT JOIN attestation_denybefore AS denied ON denied.id = (
  SELECT id FROM attestation_denybefore ORDER BY moment DESC LIMIT 1)
LEFT JOIN attestation_stop AS stopped ON stopped.id = (
  SELECT id FROM attestation_stop AS each
  WHERE each.lifted_at IS NULL
    AND (each.scope = 'fabric' OR each.group_id = host.group_id OR each.attester_id = host.id)
  ORDER BY each.scope LIMIT 1)
LEFT JOIN attestation_policyversion AS policy ON policy.version = (
  SELECT max(version) FROM attestation_policyversion WHERE group_id = host.group_id AND effective_at <= %s)
WHERE held.serial = %s
""",
    certificate=_CERTIFICATE,
    host=_HOST,
    proved=_PROVED,
    signer=_SIGNER,
    switch=_SWITCH,
    denied=_DENIED,
    stopped=_STOPPED,
    version=_VERSION,
)


@dataclass(frozen=True, slots=True)
class Holding:
    """A certificate that was issued here, its host, what that had proved, and what is in force, all of one moment.

    `denied` is the newest moment before which certificates count no more, `stopped` what keeps keys from this host,
    `version` the policy of its group.
    """

    certificate: HealthCertificate
    host: Attester
    proved: Attestation
    signer: SignerKey
    switch: ModeSwitch
    denied: DenyBefore | None
    stopped: Stop | None
    version: PolicyVersion | None

    @property
    def attester_id(self) -> UUID:
        return self.host.id

    @property
    def not_after(self) -> datetime:
        return self.certificate.not_after


def holding(serial: str, *, now: datetime) -> Holding | None:
    """Return what is known here of a certificate; None for one that was never issued here."""
    found = read(_SELECT, [now, serial])
    return None if found is None else _holding(found)


def _holding(values: Iterator[Any]) -> Holding:
    return Holding(
        certificate=_CERTIFICATE.take(values),
        host=_HOST.take(values),
        proved=_PROVED.take(values),
        signer=_SIGNER.take(values),
        switch=_SWITCH.take(values),
        denied=_DENIED.read(values),
        stopped=_STOPPED.read(values),
        version=_VERSION.read(values),
    )
