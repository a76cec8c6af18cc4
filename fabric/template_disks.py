"""Template disks on offer: which catalogs tenants may choose from, and which no new machine should be made of.

One person offers a template. That needs no second one: a tenant names the signer it trusts itself, and a host hashes
the disk, so what is offered here decides about nothing that anybody has to believe.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar, Final

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction

from attestation.errors import NotAllowed, Refusal
from fabric.models import TemplateDisk
from kps.core.catalog import Catalog, Version, parse_catalog
from ledger import service as ledger

OFFER: Final = "fabric.offer_templates"
_DIGITS: Final = 9


class TemplateKnown(Refusal):
    """This version of this template by this signer is here already; a disk that changed is a new version."""

    code: ClassVar[str] = "template_known"
    status: ClassVar[int] = 409


class TemplateUnchanged(Refusal):
    code: ClassVar[str] = "template_unchanged"
    status: ClassVar[int] = 409


def add_template(content: bytes, *, by: User, now: datetime) -> TemplateDisk:
    """Offer the template that a catalog describes, after checking its signature.

    Raises `MalformedDocument`, `CatalogRefused` or `TemplateKnown`.
    """
    _require(by)
    token = content.decode(errors="replace").strip()
    template = _described(token, parse_catalog(token), by=by, now=now)
    try:
        with transaction.atomic():
            template.save(force_insert=True)
            detail = {"size": template.size, "root": template.root, "signer_name": template.signer_name}
            _record("template.added", template, detail, by=by, now=now)
    except IntegrityError:
        raise TemplateKnown(
            f"Version {template.version} of {template.name} by this signer is here already. A disk that was changed"
            " is signed as a new version."
        ) from None
    return template


def switch_template(template: TemplateDisk, *, retired: bool, by: User, reason: str, now: datetime) -> None:
    """Retire a template, or offer it again. Machines that were made of it are not touched."""
    _require(by)
    after = {"retired_at": now, "retired_by": by.get_username()} if retired else {"retired_at": None, "retired_by": ""}
    with transaction.atomic():
        before = TemplateDisk.objects.filter(pk=template.pk, retired_at__isnull=retired)
        if before.update(**after) != 1:
            raise TemplateUnchanged("It is retired already." if retired else "It is on offer already.")
        act = "template.retired" if retired else "template.offered_again"
        _record(act, template, {"reason": reason}, by=by, now=now)


def _described(token: str, catalog: Catalog, *, by: User, now: datetime) -> TemplateDisk:
    return TemplateDisk(
        name=catalog.name,
        version=str(catalog.version),
        version_order=order_of(catalog.version),
        signer=catalog.thumbprint,
        signer_name=catalog.signer_name,
        signed_at=catalog.signed_at,
        size=catalog.volume.size,
        root=catalog.volume.root.hex(),
        catalog=token,
        added_at=now,
        added_by=by.get_username(),
    )


def order_of(version: Version) -> str:
    """Return a text that sorts as the version does."""
    return ".".join(f"{number:0{_DIGITS}}" for number in version.numbers)


def _require(by: User) -> None:
    if not by.has_perm(OFFER):
        raise NotAllowed("Only who may offer templates does this.")


def _record(act: str, template: TemplateDisk, detail: Mapping[str, object], *, by: User, now: datetime) -> None:
    named = {"name": str(template), "signer": template.signer, **detail}
    ledger.record(actor=f"user:{by.get_username()}", act=act, subject=template.subject, detail=named, now=now)
