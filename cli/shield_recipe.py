"""What a tenant writes down for a shielding data file: a TOML text, with the files and secrets that it names beside it.

No secret stands in it, so that it can be kept where the rest of a tenant's configuration is: it names a file for each,
or says that the person is asked.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kps.core import jose
from kps.core.chain import LEVELS
from kps.core.release_policy import NO_POLICY, ReleasePolicy, parse_policy
from kps.core.shielding_content import FILES_LIMIT, NETWORK_LIMIT, USER_DATA_LIMIT, Content, GuestFile
from kps.core.shielding_data import EQUALS, RULES
from kps.errors import MalformedShieldingData

RECIPE_LIMIT: Final = 64 * 1024
_TOP: Final = {"name", "description", "level", "user_data", "network_config", "template", "file", "secrets", "policy"}
_NEEDED: Final = {"name", "level", "user_data", "template"}
_SECRET_LIMIT: Final = 4096


@dataclass(frozen=True, slots=True)
class WantedTemplate:
    """A template disk: by its signer and a catalog, or by signer, name and version."""

    signer: str
    rule: str
    catalog: str | None
    name: str | None
    version: str | None


@dataclass(frozen=True, slots=True)
class WantedFile:
    path: str
    source: str
    mode: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the text says; paths are relative to the folder that it lies in. A secret without a path is asked for."""

    name: str
    description: str
    level: str
    user_data: str
    network_config: str | None
    templates: tuple[WantedTemplate, ...]
    files: tuple[WantedFile, ...]
    secrets: Mapping[str, str | None]
    policy: ReleasePolicy


def parse_recipe(text: bytes) -> Recipe:
    """Read a recipe. Raises `MalformedShieldingData` or, for what the release policy says, `MalformedDocument`."""
    if len(text) > RECIPE_LIMIT:
        raise MalformedShieldingData(f"The recipe is larger than {RECIPE_LIMIT} bytes.")
    try:
        said = tomllib.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise MalformedShieldingData(f"The recipe is not TOML: {error}") from error
    _require_members(said, _TOP, _NEEDED, what="The recipe")
    if said["level"] not in LEVELS:
        raise MalformedShieldingData(f"The level in the recipe is one of {', '.join(LEVELS)}.")
    return Recipe(
        name=_line(said["name"], what="The name"),
        description=_line(said["description"], what="The description") if said.get("description") else "",
        level=said["level"],
        user_data=_line(said["user_data"], what="The path of the user data"),
        network_config=_optional(said, "network_config"),
        templates=tuple(_template(each) for each in _tables(said["template"], what="template")),
        files=tuple(_file(each) for each in _tables(said.get("file", []), what="file")),
        secrets=_secrets(said.get("secrets", {})),
        policy=parse_policy(said["policy"]) if "policy" in said else NO_POLICY,
    )


def content_of(recipe: Recipe, folder: Path, ask: Callable[[str], str]) -> Content:
    """Return what the recipe's files hold, and its secrets, for which `ask` is called where it names no file."""
    user_data = _text(folder / recipe.user_data, USER_DATA_LIMIT)
    network = _text(folder / recipe.network_config, NETWORK_LIMIT) if recipe.network_config is not None else ""
    files = tuple(GuestFile(each.path, each.mode, _read(folder / each.source, FILES_LIMIT)) for each in recipe.files)
    secrets = {
        name: ask(name) if source is None else _text(folder / source, _SECRET_LIMIT).split("\n", 1)[0].rstrip("\r")
        for name, source in recipe.secrets.items()
    }
    return Content(user_data, network, files, secrets)


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        content = file.read(limit * 4 + 1)
    if len(content) > limit * 4:  # a character has up to four bytes; what counts is checked where it is sealed
        raise MalformedShieldingData(f"{path} is larger than {limit // 1024} KiB.")
    return content


def _text(path: Path, limit: int) -> str:
    try:
        return _read(path, limit).decode()
    except UnicodeDecodeError as error:
        raise MalformedShieldingData(f"{path} is not a text in UTF-8.") from error


def _require_members(value: object, names: set[str], needed: set[str], *, what: str) -> None:
    if not isinstance(value, dict) or not needed <= value.keys() <= names:
        raise MalformedShieldingData(
            f"{what} has {', '.join(sorted(needed))} and may have {', '.join(sorted(names - needed)) or 'no more'};"
            " no other word is known here."
        )


def _line(value: object, *, what: str) -> str:
    return jose.text(value, what=f"{what} in the recipe", longest=500)


def _optional(said: Mapping[str, Any], name: str) -> str | None:
    return _line(said[name], what=f"What {name} names") if name in said else None


def _tables(value: object, *, what: str) -> list[object]:
    if not isinstance(value, list):
        raise MalformedShieldingData(f"The recipe has [[{what}]] tables, with two brackets.")
    return value


def _template(value: Any) -> WantedTemplate:
    _require_members(value, {"signer", "rule", "catalog", "name", "version"}, {"signer"}, what="A [[template]]")
    if ("catalog" in value) == ("name" in value or "version" in value) or ("name" in value) != ("version" in value):
        raise MalformedShieldingData("A [[template]] has a catalog, or else a name and a version.")
    if value.get("rule", EQUALS) not in RULES:
        raise MalformedShieldingData(f"The rule of a [[template]] is one of {', '.join(RULES)}.")
    named = {name: _optional(value, name) for name in ("catalog", "name", "version")}
    return WantedTemplate(_line(value["signer"], what="A signer"), value.get("rule", EQUALS), **named)


def _file(value: Any) -> WantedFile:
    _require_members(value, {"path", "from", "mode"}, {"path", "from"}, what="A [[file]]")
    mode = value.get("mode", "0600")
    if not isinstance(mode, str) or not 3 <= len(mode) <= 4 or not set(mode) <= set("01234567"):
        raise MalformedShieldingData('The mode of a [[file]] is like "0644".')
    path = _line(value["path"], what="The path of a [[file]] in the guest")
    return WantedFile(path, _line(value["from"], what="The path of a [[file]] here"), int(mode, 8))


def _secrets(value: object) -> dict[str, str | None]:
    """A secret is `{from = "file"}` or `{ask = true}`. A text would be the secret itself, in the open."""
    if not isinstance(value, dict):
        raise MalformedShieldingData("The recipe has a [secrets] table.")
    found: dict[str, str | None] = {}
    for name, where in value.items():
        if isinstance(where, dict) and where.keys() == {"from"}:
            found[name] = _line(where["from"], what="The path of a secret")
        elif where == {"ask": True}:
            found[name] = None
        else:
            raise MalformedShieldingData(f'The secret {name} is {{from = "FILE"}} or {{ask = true}}, never a text.')
    return found
