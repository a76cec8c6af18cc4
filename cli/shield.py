"""`guardhouse tenant shield`: what new machines get at their birth, prepared once, away from the fabric."""

import hashlib
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import click

from cli.guardians import read_guardian
from cli.owner import show_guardian
from cli.passphrase import opened_owner, passphrase_file
from cli.plain import plainly
from cli.shield_file import beginning_of, opened, shielding_data_in, write_shielding_data
from cli.shield_recipe import Recipe, WantedTemplate, content_of, parse_recipe
from cli.template import catalog_in
from kps.core.chain import new_statement
from kps.core.release_policy import in_words
from kps.core.shielding_content import Content
from kps.core.shielding_data import (
    Label,
    ShieldingData,
    VolumeQualifier,
    qualifier,
    reasons_against,
)
from kps.core.substitution import kind_in_words
from kps.core.wrapped import KEY_SIZE
from kps.errors import CatalogRefused, MalformedShieldingData, ShieldingDataRefused

_path = click.Path(exists=True, dir_okay=False, path_type=Path)
_file = click.argument("path", metavar="FILE", type=_path)


@click.group()
def shield() -> None:
    """Shielding data: what a fabric's hosts put into your new machines, and its people cannot read."""


@shield.command()
@click.argument("recipe_path", metavar="RECIPE", type=_path)
@click.option("--owner", "owner_path", type=_path, required=True, help="The owner's key file.")
@click.option("--guardian", "guardians", type=_path, required=True, multiple=True, help="A file that import kept.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The shielding data file to write.")
@passphrase_file
@plainly
def new(
    recipe_path: Path, owner_path: Path, guardians: tuple[Path, ...], out: Path, passphrase_file: Path | None
) -> None:
    """Seal what RECIPE (a TOML file) says for the owner and the guardians, and sign it.

    Secrets come from files that the recipe names, or are asked for; none is given on the command line.
    """
    recipe = parse_recipe(beginning_of(recipe_path))
    label = Label(recipe.name, recipe.description, _volumes(recipe, recipe_path.parent), frozenset())
    content = content_of(recipe, recipe_path.parent, _ask)
    trusted = [read_guardian(path.read_bytes())[0] for path in guardians]
    keys = opened_owner(owner_path, passphrase_file)
    now = datetime.now(UTC)
    statement = new_statement(
        keys.guardian, trusted, protector_id=uuid4(), level=recipe.level, policy=recipe.policy, now=now
    )
    write_shielding_data(out, keys, statement, content, label=label, key=secrets.token_bytes(KEY_SIZE), now=now)
    click.echo(f"Wrote {out}. Only you and healthy hosts of these fabrics open it:")
    _show(shielding_data_in(out))


@shield.command()
@_file
@click.option("--owner", "owner_path", type=_path, help="The owner's key file: show what only its owner can read.")
@click.option("--secrets", "with_secrets", is_flag=True, help="With --owner: show the secrets themselves too.")
@passphrase_file
@plainly
def inspect(path: Path, owner_path: Path | None, with_secrets: bool, passphrase_file: Path | None) -> None:
    """Verify FILE and show what it says in the open; with the owner's key, all of it."""
    if with_secrets and owner_path is None:
        raise click.UsageError("Only the owner's key opens the secrets: give --owner.")
    data = shielding_data_in(path)
    click.echo(f"Shielding data {data.id}. Every signature holds.")
    _show(data)
    if owner_path is not None:
        keys = opened_owner(owner_path, passphrase_file)
        if keys.guardian.fingerprint != data.owner.fingerprint:
            raise ShieldingDataRefused(f"This file belongs to another owner: {data.owner.name}.")
        _show_content(opened(path, keys), with_secrets=with_secrets)


@shield.command()
@_file
@click.argument("catalogs", metavar="CATALOG...", type=_path, nargs=-1, required=True)
@plainly
def test(path: Path, catalogs: tuple[Path, ...]) -> None:
    """Say whether machines can be made of templates, by their CATALOGs, with FILE; and why not."""
    data = shielding_data_in(path)
    refused = 0
    for each in catalogs:
        catalog = catalog_in(each)
        against = reasons_against(data, catalog)
        click.echo(f"{catalog.name} {catalog.version}: {'does not apply' if against else 'applies'}")
        for why in against:
            click.echo(f"  {why}")
        refused += bool(against)
    if refused:
        raise click.ClickException(
            "Choose another template, or make shielding data that names this one: `guardhouse tenant shield new`."
        )


def _volumes(recipe: Recipe, folder: Path) -> tuple[VolumeQualifier, ...]:
    return tuple(_volume(each, folder) for each in recipe.templates)


def _volume(wanted: WantedTemplate, folder: Path) -> VolumeQualifier:
    """Return what the file will accept. The signer is what the tenant has written down, never what a catalog says."""
    name, version = wanted.name, wanted.version
    if wanted.catalog is not None:
        catalog = catalog_in(folder / wanted.catalog)
        if catalog.thumbprint != wanted.signer:
            raise CatalogRefused(
                f"{wanted.catalog} was signed by {catalog.thumbprint} ({catalog.signer_name}), and the recipe trusts"
                f" {wanted.signer}. Compare with what the signer has told you by another way."
            )
        name, version = catalog.name, str(catalog.version)
    if name is None or version is None:
        raise MalformedShieldingData("A [[template]] has a catalog, or else a name and a version.")
    return qualifier(wanted.signer, name, wanted.rule, version)


def _ask(name: str) -> str:
    return str(click.prompt(f"Secret {name}", hide_input=True, confirmation_prompt=True))


def _show(data: ShieldingData) -> None:
    for line in _lines(data):
        click.echo(f"  {line}")
    click.echo("Owner")
    show_guardian(data.owner)
    click.echo("May make machines from it")
    for found in data.protector.guardians:
        show_guardian(found)


def _lines(data: ShieldingData) -> Iterator[str]:
    yield f"{data.label.name}, {data.level}, made on {data.made_at:%Y-%m-%d %H:%M} UTC"
    if data.label.description:
        yield data.label.description
    yield f"SHA-256 {data.digest} (over the first line, which names the rest)"
    statement = data.protector.chain.statement
    signed = datetime.fromtimestamp(statement.made_at, UTC)
    yield f"statement {statement.serial}, signed {signed:%Y-%m-%d %H:%M} UTC; where a newer one was brought, that binds"
    for volume in data.label.volumes:
        yield f"template {volume}, signed by {volume.signer}"
    for name in sorted(data.label.asks_for):
        yield f"asks for @{name}@: {kind_in_words(name)}"
    yield from in_words(statement.policy)


def _show_content(content: Content, *, with_secrets: bool) -> None:
    click.echo("User data")
    click.echo(_indented(content.user_data))
    if content.network_config:
        click.echo("Network configuration")
        click.echo(_indented(content.network_config))
    for each in content.files:
        digest = hashlib.sha256(each.content).hexdigest()
        click.echo(f"File {each.path}, mode {each.mode:04o}, {len(each.content)} bytes, SHA-256 {digest}")
    for name, value in content.secrets.items():
        click.echo(f"Secret {name}: {value if with_secrets else 'shown with --secrets'}")


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
