"""Shielding data as tests make it, and templates that it accepts or not."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from kps.core import jose, sealed_stream
from kps.core.catalog import Catalog, build_catalog, parse_catalog, parse_version
from kps.core.chain import Statement, VerifiedChain, make_machine, new_statement, sign_statement
from kps.core.guardian import GuardianKeys
from kps.core.release_policy import NO_POLICY, ReleasePolicy
from kps.core.shielding_content import Content, GuestFile
from kps.core.shielding_data import (
    AT_LEAST,
    Label,
    ShieldingData,
    VolumeQualifier,
    build_head,
    open_content,
    read_shielding_data,
    restated,
    seal_content,
    sealed_pieces,
    verify_shielding_data,
)
from kps.core.volume import SECTOR, Volume, block_hash, volume_of
from tests.kps.parties import FABRIC, KEY, NOW, OWNER, STRANGER

FILE_ID = UUID("11111111-2222-4333-8444-555555555555")
SIGNER = STRANGER  # of template disks: anybody whom the owner has chosen
USER_DATA = '#cloud-config\nhostname: "@HostName@"\nruncmd: ["login @Secret-root@"]\n'
NETWORK = "version: 2\nethernets: {eth0: {addresses: [@IP4Addr-1@]}}\n"
FILES = (
    GuestFile("/etc/ssh/ssh_host_ed25519_key", 0o600, b"marker-of-the-host-key"),
    GuestFile("/etc/app/ca.pem", 0o644, b"\x00\xff"),
)
CONTENT = Content(USER_DATA, NETWORK, FILES, {"root": 'marker "of" the @HostName@ secret'})
VALUES = {"HostName": "web1", "IP4Addr-1": "10.1.2.3/24"}
ACCEPTED = VolumeQualifier(jose.thumbprint(SIGNER.guardian.signing), "debian-12", AT_LEAST, parse_version("12.1"))
LABEL = Label("web servers", "for the shop", (ACCEPTED,), frozenset())
# As a tenant writes it down; the signer of its one template is `SIGNER`.
RECIPE = f"""
name = "web servers"
description = "for the shop"
level = "shielded"
user_data = "user-data.yaml"
network_config = "network.yaml"

[[template]]
signer = "{ACCEPTED.signer}"
name = "debian-12"
version = "12.1"
rule = "at-least"

[[file]]
path = "/etc/ssh/ssh_host_ed25519_key"
from = "host_key"

[[file]]
path = "/etc/app/ca.pem"
from = "ca.pem"
mode = "0644"

[secrets]
root = {{from = "root"}}

[policy]
minimum_mode = "tpm"
"""


def volume() -> Volume:
    return volume_of([block_hash(bytes(SECTOR))], size=SECTOR)


def catalog_token(
    version: str = "12.1", *, name: str = "debian-12", signer: GuardianKeys = SIGNER, of: Volume | None = None
) -> str:
    return build_catalog(signer, of or volume(), name=name, version=parse_version(version), now=NOW)


def catalog(version: str = "12.1", *, name: str = "debian-12", signer: GuardianKeys = SIGNER) -> Catalog:
    return parse_catalog(catalog_token(version, name=name, signer=signer))


def statement(
    *guardians: GuardianKeys, owner: GuardianKeys = OWNER, policy: ReleasePolicy = NO_POLICY, **changes: Any
) -> Statement:
    """Return what an owner says of all machines that are made from its file."""
    granted = [keys.guardian for keys in guardians or (FABRIC,)]
    first = new_statement(owner.guardian, granted, protector_id=FILE_ID, level="shielded", policy=policy, now=NOW)
    return replace(first, makes_machines=True, **changes)


def whole_file(
    owner: GuardianKeys,
    said: Statement,
    content: Content = CONTENT,
    *,
    label: Label = LABEL,
    key: bytes = KEY,
    now: datetime = NOW,
) -> bytes:
    """Return a file as the owner's command writes it."""
    pieces = list(seal_content(content, key, of=said.id))
    digests = [sealed_stream.digest(each) for each in pieces]
    label = replace(label, asks_for=content.asks_for)
    return build_head(owner, said, digests, label=label, key=key, now=now) + b"".join(
        each.encode() + b"\n" for each in pieces
    )


def data_in(file: bytes) -> ShieldingData:
    return verify_shielding_data(io.BytesIO(file))


def pieces_in(file: bytes) -> Iterator[str]:
    """Return the pieces of a file, each as far as the owner has signed it."""
    stream = io.BytesIO(file)
    return sealed_pieces(read_shielding_data(stream), stream)


def content_in(file: bytes, key: bytes) -> Content:
    return open_content(data_in(file), pieces_in(file), key)


def head_of(file: bytes) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(file.split(b"\n", 1)[0])
    return document


def with_head(file: bytes, head: dict[str, Any]) -> bytes:
    """Return a file with another first line."""
    return jose.canonical(head) + b"\n" + file.split(b"\n", 1)[1]


def under_statement(file: bytes, chain: VerifiedChain, owner: GuardianKeys) -> bytes:
    """Return a file as the owner's command writes it under a newer statement."""
    return restated(data_in(file), chain, owner) + file.split(b"\n", 1)[1]


def shielding_data(
    *guardians: GuardianKeys,
    owner: GuardianKeys = OWNER,
    content: Content = CONTENT,
    label: Label = LABEL,
    policy: ReleasePolicy = NO_POLICY,
) -> bytes:
    said = statement(*guardians, owner=owner, policy=policy)
    return whole_file(owner, said, content, label=label)


def class_chain(*guardians: GuardianKeys, **changes: Any) -> VerifiedChain:
    return sign_statement(statement(*guardians, **changes), OWNER)


def made(chain: VerifiedChain, maker: GuardianKeys = FABRIC, *, nonce: bytes = bytes(16)) -> VerifiedChain:
    return make_machine(chain, maker, nonce=nonce, now=NOW)
