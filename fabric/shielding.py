"""Shielding data that tenants keep here: uploaded by their owners, offered to hosts, opened by nobody of this fabric.

A file comes, rests and goes piece by piece; each is held against what its owner has signed before it is kept.
What a file says in the open is read out of it, verified, whenever it counts; the columns beside it are for lists.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import BinaryIO, ClassVar, Final
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Max

from attestation.errors import NotAllowed, Refusal
from fabric.models import MachineOrder, ShieldingData, ShieldingPiece, TemplateDisk, Tenant, VirtualMachine
from fabric.tenancy import OwnerMismatch, speaks_for
from kps import service as kps
from kps.core import jose
from kps.core.catalog import parse_catalog
from kps.core.shielding_data import (
    LONGEST_DESCRIPTION,
    parse_head,
    read_shielding_data,
    reasons_against,
    sealed_pieces,
)
from kps.core.shielding_data import ShieldingData as VerifiedFile
from kps.errors import ChainNotNewer, GuardianNotNamed
from ledger import service as ledger
from ledger.core.leaf import Act

MADE: Final = "machine.made"
_SHORT: Final = 8
_ANEW: Final = "What is sealed in a file cannot be changed; make a new one: `guardhouse tenant shield new`."

logger = logging.getLogger(__name__)


class ShieldingDataKnown(Refusal):
    """This very file is here already, or another one with its key protector, which only its owner can have signed."""

    code: ClassVar[str] = "shielding_data_known"
    status: ClassVar[int] = 409


class ShieldingDataWithdrawn(Refusal):
    code: ClassVar[str] = "shielding_data_withdrawn"
    status: ClassVar[int] = 409


@dataclass(frozen=True, slots=True)
class Applicability:
    """Whether machines can be made of a template; if not, a sentence for each disk that the shielding data names."""

    template: TemplateDisk
    against: tuple[str, ...]

    @property
    def applies(self) -> bool:
        return not self.against


def upload_shielding_data(
    tenant: Tenant, name: str, description: str, file: BinaryIO, *, by: User, now: datetime
) -> ShieldingData:
    """Keep a file as the next version of its name, after checking every signature and that its owner is this tenant.

    One that is here already, and comes under a newer statement of its owner's, takes the place of the one before, with
    the name, version and description that this has; that statement binds from then on. Raises `NotAllowed`,
    `MalformedDocument`, `ShieldingDataRefused`, `ProtectorRefused`, `OwnerMismatch`, `GuardianNotNamed`,
    `ShieldingDataKnown`, `ShieldingDataWithdrawn` or `ChainNotNewer`.
    """
    if not speaks_for(by, tenant):
        raise NotAllowed("Only an owner of this tenant uploads its shielding data.")
    jose.text(name, what="The name of shielding data")
    if description:
        jose.text(description, what="The description", longest=LONGEST_DESCRIPTION)
    verified = read_shielding_data(file)
    _require_usable(verified, tenant)
    with transaction.atomic():
        Tenant.objects.select_for_update().get(pk=tenant.pk)  # versions are counted by one at a time
        before = _before(verified, tenant)
        refusal = kps.hear(verified.protector.chain, by=f"user:{by.get_username()}", now=now)
        if refusal is None:
            kept = before or _added(tenant, name, description, by=by, now=now)
            _save(verified, kept, by=by, now=now)
            _keep_pieces(kept, sealed_pieces(verified, file), new=before is None)
    if refusal is not None:
        raise ChainNotNewer(
            f"{refusal} Or upload the file that the command wrote with the newest statement: `guardhouse tenant` signs"
            " the next one after that when it is given this fabric with --fabric."
        )
    return kept


def _before(file: VerifiedFile, tenant: Tenant) -> ShieldingData | None:
    """Return the row of the same file under another statement of its owner's; raise when it cannot take that place."""
    found = ShieldingData.objects.filter(tenant=tenant, protector_id=file.id).first()
    if found is None:
        return None
    here = contents_of(found)
    if here.digest == file.digest:
        raise ShieldingDataKnown(f"This very file is here already: {found}. {_ANEW}")
    if here.signed != file.signed:
        raise ShieldingDataKnown(f"{found} has the same key protector, and something else is sealed in it. {_ANEW}")
    return found


def _added(tenant: Tenant, name: str, description: str, *, by: User, now: datetime) -> ShieldingData:
    """Return a row for the next version of a name, which nobody has saved yet."""
    known = ShieldingData.objects.filter(tenant=tenant, name=name)
    version = (known.aggregate(Max("version"))["version__max"] or 0) + 1
    return ShieldingData(
        tenant=tenant, name=name, version=version, description=description, added_at=now, added_by=by.get_username()
    )


def _save(file: VerifiedFile, kept: ShieldingData, *, by: User, now: datetime) -> None:
    """Save a file in its row, and write down that it was added, or which one it took the place of."""
    before = kept.digest
    kept.protector_id, kept.level, kept.digest, kept.made_at = file.id, file.level, file.digest, file.made_at
    kept.head, kept.asks_for = file.head.decode(), sorted(file.label.asks_for)
    kept.size = len(kept.head)  # and what follows
    kept.save()
    detail: dict[str, object] = {"digest": kept.digest, "level": kept.level}
    if before:
        detail |= {"before": before, "serial": file.protector.chain.statement.serial}
    _record("shielding_data.restated" if before else "shielding_data.added", kept, detail, by=by, now=now)


def _keep_pieces(kept: ShieldingData, pieces: Iterator[str], *, new: bool) -> None:
    """Go through all of a file, so that one which does not hold to its end is not kept, and keep what is not here."""
    for number, piece in enumerate(pieces):
        kept.size += len(piece) + 1
        if new:
            ShieldingPiece.objects.create(data=kept, number=number, sealed=piece)
    kept.save(update_fields=["size"])


def withdraw_shielding_data(kept: ShieldingData, *, by: User, reason: str, now: datetime) -> None:
    """Erase a file, so that no new machine is made from it here. Machines that were made go on, and so does its row."""
    if not speaks_for(by, kept.tenant):
        raise NotAllowed("Only an owner of this tenant withdraws its shielding data.")
    with transaction.atomic():
        offered = ShieldingData.objects.filter(pk=kept.pk, withdrawn_at=None)
        if offered.update(withdrawn_at=now, withdrawn_by=by.get_username(), head="") != 1:
            raise ShieldingDataWithdrawn("It is withdrawn already.")
        kept.pieces.all().delete()
        _record("shielding_data.withdrawn", kept, {"reason": reason}, by=by, now=now)


def contents_of(kept: ShieldingData) -> VerifiedFile:
    """Return what a file says in the open. Raises `ShieldingDataWithdrawn` when there is no file any more."""
    if kept.withdrawn:
        raise ShieldingDataWithdrawn(f"{kept} was withdrawn; no new machine is made from it.")
    return parse_head(kept.head.encode())


def lines_of(kept: ShieldingData) -> Iterator[bytes]:
    """Return the file as its owner has signed it, line by line. Raises `ShieldingDataWithdrawn`."""
    head = contents_of(kept).head
    pieces = kept.pieces.values_list("sealed", flat=True)
    return chain([head], (piece.encode() + b"\n" for piece in pieces.iterator(chunk_size=1)))


def applicability(file: VerifiedFile, templates: Iterable[TemplateDisk]) -> list[Applicability]:
    """Return for each of these templates whether it goes with this file, and why not."""
    return [Applicability(each, reasons_against(file, parse_catalog(each.catalog))) for each in templates]


def used_by(kept: ShieldingData) -> list[VirtualMachine]:
    """Return the machines that were made from a file, by name."""
    return list(kept.machines.all())


def keep(sender: object, act: Act, **kwargs: object) -> None:
    """Receive `ledger.service.recorded`: a machine that was made is its tenant's machine from then on."""
    if act.act != MADE:
        return
    owner, _, protector_id = act.subject.removeprefix("protector:").partition("/")
    tenant = Tenant.objects.filter(owner_fingerprint=owner).first()
    if tenant is None:
        logger.info("a machine was made for an owner who is no tenant here: %.16s", owner)
        return
    made_from = ShieldingData.objects.filter(tenant=tenant, protector_id=str(act.detail["shielding_data"])).first()
    machine, new = VirtualMachine.objects.get_or_create(
        tenant=tenant,
        protector_id=UUID(protector_id),
        defaults={
            "name": _free_name(tenant, str(act.detail["name"]), protector_id),
            "level": str(act.detail["level"]),
            "added_at": act.at,
            "made_from": made_from,
        },
    )
    if new and made_from is not None:
        orders = MachineOrder.objects.filter(shielding_data=made_from, name=act.detail["name"], machine=None)
        orders.filter(cancelled_at=None).update(machine=machine)


def _free_name(tenant: Tenant, wanted: str, protector_id: str) -> str:
    """Return the name that a host gave a machine, or one that says which machine it is where that is taken."""
    taken = not wanted or VirtualMachine.objects.filter(tenant=tenant, name=wanted).exists()
    return f"{wanted or 'machine'}-{protector_id[:_SHORT]}" if taken else wanted


def _require_usable(file: VerifiedFile, tenant: Tenant) -> None:
    if file.owner.fingerprint != tenant.owner_fingerprint:
        raise OwnerMismatch(
            f"This file was signed by the owner {file.owner.fingerprint[:16]}…, and the owner key of {tenant.name} is"
            f" {tenant.owner_fingerprint[:16]}…"
        )
    if not kps.newest_named(file.protector.guardians):
        here = ShieldingData.objects.filter(tenant=tenant, protector_id=file.id, withdrawn_at=None).first()
        if here is not None:
            raise GuardianNotNamed(
                f"This file names this fabric no more, so no host here could open it. To take {here} from this fabric,"
                " bring the statement alone: on its page, or with `guardhouse tenant bring`."
            )
        raise GuardianNotNamed(
            "This file does not name this fabric, so no host here could open it. Import this fabric's guardian, and"
            " make the file with --guardian."
        )


def _record(act: str, kept: ShieldingData, detail: dict[str, object], *, by: User, now: datetime) -> None:
    said = {"name": str(kept), "tenant": kept.tenant.slug, "owner": kept.tenant.owner_fingerprint, **detail}
    ledger.record(actor=f"user:{by.get_username()}", act=act, subject=kept.subject, detail=said, now=now)
