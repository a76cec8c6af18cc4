"""Shielding data on its owner's machine: read, and written again under the owner's next statement."""

from dataclasses import dataclass
from pathlib import Path

from guardedhost.files import write_atomically
from kps.core import jose
from kps.core.chain import VerifiedChain
from kps.core.guardian import GuardianKeys
from kps.core.protector import open_protector
from kps.core.shielding_content import Content
from kps.core.shielding_data import (
    SHIELDING_DATA_LIMIT,
    ShieldingData,
    open_content,
    restated,
    verify_shielding_data,
)


@dataclass(frozen=True, slots=True)
class ShieldFile:
    """A shielding data file, where it lies."""

    path: Path
    data: ShieldingData


def shielding_data_in(path: Path) -> ShieldingData:
    return verify_shielding_data(beginning_of(path))


def found_in(path: Path | None) -> ShieldFile | None:
    """Return the shielding data in a file; None when it holds something else, whatever that is called."""
    if path is None or not path.is_file():
        return None
    content = beginning_of(path)
    document = jose.read_json(content, limit=SHIELDING_DATA_LIMIT)
    return ShieldFile(path, verify_shielding_data(content)) if "signed" in document else None


def beginning_of(path: Path, *, limit: int = SHIELDING_DATA_LIMIT) -> bytes:
    """Return a file as far as it may reach, and a byte more when it reaches further."""
    with path.open("rb") as file:
        return file.read(limit + 1)


def restate(file: ShieldFile, chain: VerifiedChain, owner: GuardianKeys) -> None:
    """Put the same file under the owner's next statement in its place, once that opens as the one before did.

    A crash leaves the one or the other. Copies from before open for those that they were wrapped for.
    """
    content = restated(file.data, chain, owner)
    before, after = (_opened(each, owner) for each in (file.data, verify_shielding_data(content)))
    if before != after:
        raise RuntimeError("the file under the next statement does not hold what it held")
    write_atomically(file.path, content)


def _opened(data: ShieldingData, owner: GuardianKeys) -> Content:
    return open_content(data, open_protector(data.protector, owner.encryption))
