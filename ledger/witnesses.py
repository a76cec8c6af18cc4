"""Witnesses: who may cosign checkpoints, and the cosignatures that have come.

A witness is outside: it keeps the last checkpoint that it has seen, asks for a proof that the next one goes on from it,
and signs that. Here its line is only checked, kept and shown.
"""

from datetime import UTC, datetime

from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from ledger.core.note import Kind, parse_note, parse_signature, parse_vkey, verify_cosignature
from ledger.errors import NotFound, ParseError, UnknownWitness
from ledger.models import Checkpoint, Cosignature, Witness
from ledger.recording import record


def witnesses() -> QuerySet[Witness]:
    return Witness.objects.filter(removed_at=None)


def add_witness(vkey: str, *, by: str, now: datetime) -> Witness:
    """Let somebody cosign, by the verifier key that they have published. Raises `ParseError`."""
    key = parse_vkey(vkey.strip())
    if key.kind is not Kind.COSIGNATURE:
        raise ParseError("This is the key of a log. A witness has one of its own kind, for cosignatures.")
    try:
        with transaction.atomic():
            added = Witness.objects.create(name=key.name, vkey=str(key), added_at=now, added_by=by)
            _record(added, "witness.added", by, now)
    except IntegrityError:
        raise ParseError(f"There is, or was, a witness called {key.name} already.") from None
    return added


def remove_witness(name: str, *, by: str, now: datetime) -> None:
    """Take no more cosignatures of a witness, and show none; those that it has given stay on record."""
    with transaction.atomic():
        if witnesses().filter(name=name).update(removed_at=now) != 1:
            raise NotFound(f"There is no witness called {name}.")
        _record(Witness.objects.get(name=name), "witness.removed", by, now)


def cosign(size: int, line: str, *, now: datetime) -> Cosignature:
    """Keep a witness's cosignature of the checkpoint of this size; one that is there already stays as it is.

    Raises `ParseError`, `UnknownWitness`, `NotFound`, or `NoteSignature` for a line that does not hold.
    """
    signature = parse_signature(line)
    witness = witnesses().filter(name=signature.name).first()
    if witness is None:
        raise UnknownWitness("This fabric does not know a witness of this name.")
    checkpoint = Checkpoint.objects.filter(pk=size).first()
    if checkpoint is None:
        raise NotFound("The log has no checkpoint of this size.")
    text = parse_note(checkpoint.note).untrusted_text
    at = verify_cosignature(text, signature, parse_vkey(witness.vkey))
    if at > now.timestamp() + 300:
        raise ParseError("The cosignature is from the future. Is the witness's clock right?")
    kept, _ = Cosignature.objects.get_or_create(
        checkpoint=checkpoint,
        witness=witness,
        defaults={"line": str(signature), "signed_at": datetime.fromtimestamp(at, UTC)},
    )
    return kept


def _record(witness: Witness, act: str, by: str, now: datetime) -> None:
    detail = {"name": witness.name, "key": witness.vkey}
    record(actor=by, act=act, subject=witness.subject, detail=detail, now=now)
