"""A tenant's shielding data as the portal's tests use it, and templates that it accepts."""

import io
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from django.contrib.auth.models import User

from fabric.models import ShieldingData, TemplateDisk, Tenant
from fabric.shielding import lines_of, upload_shielding_data
from fabric.template_disks import add_template
from kps import service as kps
from kps.core.chain import new_statement, sign_statement
from kps.core.guardian import Guardian, GuardianKeys, parse_metadata
from kps.core.release_policy import NO_POLICY, ReleasePolicy
from kps.core.shielding_content import Content
from kps.core.shielding_data import Label
from tests.kps.parties import OWNER
from tests.kps.shielding import CONTENT, FILE_ID, LABEL, catalog_token, data_in, under_statement, whole_file


def now() -> datetime:
    return datetime.now(UTC)


def this_fabric() -> Guardian:
    return parse_metadata(kps.metadata(now=now()))


def file_of(
    *guardians: Guardian,
    owner: GuardianKeys = OWNER,
    content: Content = CONTENT,
    label: Label = LABEL,
    policy: ReleasePolicy = NO_POLICY,
    file_id: Any = FILE_ID,
) -> bytes:
    """Return a file that this fabric's hosts may open, or those of other guardians."""
    named = guardians or (this_fabric(),)
    statement = new_statement(owner.guardian, named, protector_id=file_id, level="shielded", policy=policy, now=now())
    return whole_file(owner, statement, content, label=label, now=now())


def under(content: bytes, serial: int, *guardians: Guardian, **changes: Any) -> bytes:
    """Return a file as the owner's command writes it under the statement of this serial."""
    data = data_in(content)
    named = guardians or data.protector.guardians
    said = replace(data.protector.chain.statement, serial=serial, guardians=named, **changes)
    return under_statement(content, sign_statement(said, OWNER), OWNER)


def uploaded(tenant: Tenant, by: User, name: str = "web servers", **how: Any) -> ShieldingData:
    return keep(tenant, file_of(**how), name, by=by)


def keep(
    tenant: Tenant, file: bytes, name: str = "web servers", description: str = "for the shop", *, by: User
) -> ShieldingData:
    return upload_shielding_data(tenant, name, description, io.BytesIO(file), by=by, now=now())


def file_here(kept: ShieldingData) -> bytes:
    """Return a file as the portal would give it."""
    return b"".join(lines_of(kept))


def template(by: User, version: str = "12.1", name: str = "debian-12", **how: Any) -> TemplateDisk:
    return add_template(catalog_token(version, name=name, **how).encode(), by=by, now=now())
