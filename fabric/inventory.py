"""Keeps the inventory in step with what attestation records, in the same transaction."""

from uuid import UUID

from fabric.models import Host
from ledger.core.leaf import Act

ENROLLED = {"host.enrolled", "host.identity_changed", "host.key_registered", "host.joined"}


def keep(sender: object, act: Act, **kwargs: object) -> None:
    """Receive `ledger.service.recorded`: a host that attestation has enrolled is in the inventory from then on."""
    if act.act in ENROLLED:
        attester_id = UUID(act.subject.removeprefix("host:"))
        Host.objects.get_or_create(attester_id=attester_id, defaults={"name": str(act.detail["name"])})
