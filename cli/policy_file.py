"""A release policy as an owner writes it: TOML or JSON, with the members that `docs/release-policy.md` lists."""

import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from kps.core import jose
from kps.core.release_policy import ReleasePolicy, parse_policy
from kps.errors import MalformedDocument

_LIMIT: Final = 16 * 1024


def read_policy(path: Path) -> ReleasePolicy:
    """Read a policy out of a file; one that ends in `.json` is JSON, any other TOML."""
    content = path.read_bytes()
    return parse_policy(jose.read_json(content, limit=_LIMIT) if path.suffix == ".json" else _toml(content))


def changed(policy: ReleasePolicy, members: dict[str, object], without: tuple[str, ...]) -> ReleasePolicy:
    """Return the policy with some members set and others taken out, read as strictly as one from anywhere."""
    kept = {name: value for name, value in policy.document.items() if name not in without}
    return parse_policy(kept | members)


def _toml(content: bytes) -> dict[str, object]:
    """Read TOML. A moment may be written as such; one without a time zone is refused, it would mean anything."""
    if len(content) > _LIMIT:
        raise MalformedDocument(f"A release policy is larger than {_LIMIT} bytes.")
    try:
        members = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise MalformedDocument(f"The release policy is not TOML: {error}.") from error
    return {name: seconds(value) if isinstance(value, datetime) else value for name, value in members.items()}


def seconds(moment: datetime) -> int:
    """Return a moment as a policy has it."""
    if moment.tzinfo is None:
        raise MalformedDocument("A moment in a release policy has a time zone: 2027-01-01T00:00:00Z.")
    return int(moment.astimezone(UTC).timestamp())
