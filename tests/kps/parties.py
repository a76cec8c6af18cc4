"""Owners, guardians and strangers, and protectors that they make or forge."""

import hashlib
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from cli.owner_file import new_keys
from kps.core import jose, wrapped
from kps.core.chain import VerifiedChain, sign_statement, statement_digest, subject_of, verify_chain
from kps.core.guardian import Guardian, GuardianKeys
from kps.core.protector import create_protector, verify_protector
from kps.core.release_policy import NO_POLICY, ReleasePolicy

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
ID = UUID("6f1e3d2c-4b5a-4697-8899-aabbccddeeff")
OTHER_ID = UUID("00000000-0000-4000-8000-000000000000")
KEY = bytes(range(32))


OWNER, FABRIC, OTHER_FABRIC, STRANGER = map(new_keys, ("owner", "fabric", "other fabric", "stranger"))
OWNERS, STRANGERS = (keys.guardian.fingerprint for keys in (OWNER, STRANGER))
SUBJECT, TWIN_SUBJECT = (subject_of(owner, ID) for owner in (OWNERS, STRANGERS))


def protector(
    *guardians: GuardianKeys, level: str = "shielded", owner: GuardianKeys = OWNER, policy: ReleasePolicy = NO_POLICY
) -> dict[str, Any]:
    granted = [keys.guardian for keys in guardians or (FABRIC,)]
    return create_protector(owner, granted, protector_id=ID, level=level, key=KEY, policy=policy, now=NOW)


def protector_for(
    *guardians: Guardian, owner: GuardianKeys = OWNER, policy: ReleasePolicy = NO_POLICY, protector_id: UUID = ID
) -> dict[str, Any]:
    """Return a key protector for guardians of whom only the cards are known."""
    return create_protector(
        owner, guardians, protector_id=protector_id, level="shielded", key=KEY, policy=policy, now=NOW
    )


def changed(document: dict[str, Any], owner: GuardianKeys = OWNER, *, serial: int = 1, **changes: Any) -> VerifiedChain:
    """Return the chain that the owner signs next: `guardians`, `level`, `policy`, whatever is to be another."""
    statement = verify_chain(document["chain"]).statement
    return sign_statement(replace(statement, serial=serial, **changes), owner)


def said(link: str) -> dict[str, Any]:
    """What a link says, whoever signed it."""
    return deepcopy(jose.parse_jws(link, limit=1 << 16).untrusted_payload)


def signed(payload: dict[str, Any], signer: GuardianKeys, *, kid_of: GuardianKeys | None = None) -> str:
    kid = jose.thumbprint((kid_of or signer).signing.public_key())
    return jose.sign(payload, signer.signing, kid=kid)


def succession(chain: list[str], old: GuardianKeys, new: Guardian, **changes: Any) -> dict[str, Any]:
    made = {
        "type": "guardhouse-replacement/v1",
        "statement": statement_digest(chain[0]),
        "from": old.guardian.fingerprint,
        "guardian": new.card,
    }
    return made | changes


def sealed(document: dict[str, Any], signer: GuardianKeys, **changes: Any) -> dict[str, Any]:
    """Seal a document as it stands, as somebody who wants it to be taken would."""
    seal = said(document["seal"]) | {
        "chain_sha256": hashlib.sha256(jose.canonical(document["chain"])).hexdigest(),
        "wrapped_sha256": wrapped.digest(document["wrapped"]),
    }
    return document | {"seal": signed(seal | changes, signer)}


def rewrapped(document: dict[str, Any], *parties: GuardianKeys, key: bytes = KEY) -> dict[str, Any]:
    return document | {"wrapped": wrapped.encrypt(key, [keys.encryption.public_key() for keys in parties])}


def parties_of(document: dict[str, Any]) -> list[str]:
    return [guardian.name for guardian in verify_protector(document).parties]
