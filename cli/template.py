"""`guardhouse template`: sign what is on a template disk, and check a disk against what was signed."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from cli.owner_file import read_card, write_owner
from cli.owner_secret import new_secret
from cli.passphrase import opened_owner, passphrase_file, passphrase_from
from cli.plain import plainly
from guardedhost.files import write_new
from guardedhost.image import Image, opened
from kps.core import jose
from kps.core.catalog import CATALOG_LIMIT, Catalog, build_catalog, parse_catalog, parse_version
from kps.core.partitions import TABLE_SIZE, Partition
from kps.core.volume import Region, Volume, differing

_SHOWN_REGIONS: Final = 20

_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_new = click.Path(path_type=Path)
_disk = click.argument("disk", type=_file)
_catalog = click.argument("catalog_path", metavar="CATALOG", type=_file)


@click.group()
def template() -> None:
    """Template disks: what tenants' new machines are made of. DISK is a raw or qcow2 image that nothing is running."""


@template.group()
def signer() -> None:
    """The key that vouches for template disks. Tenants name it by its thumbprint."""


@signer.command("new")
@click.option("--name", required=True)
@click.option("--out", type=_new, required=True)
@passphrase_file
@plainly
def signer_new(name: str, out: Path, passphrase_file: Path | None) -> None:
    """Make a signer's key and keep it in a file under a passphrase."""
    jose.text(name, what="The signer's name")
    made = new_secret(name)
    write_owner(out, made, passphrase_from(passphrase_file, new=True))
    click.echo(f"Wrote {out}. Tenants compare this thumbprint with what you tell them by another way:")
    click.echo(f"  {name}\n  thumbprint {jose.thumbprint(made.keys.signing.public_key())}")


@signer.command("show")
@click.argument("path", metavar="FILE", type=_file)
@plainly
def signer_show(path: Path) -> None:
    """Show the name and the thumbprint in a signer's key file."""
    card = read_card(path)
    click.echo(f"  {card.name}\n  thumbprint {jose.thumbprint(card.signing)}")


@template.command()
@_disk
@click.option("--signer", "signer_path", type=_file, required=True, help="The signer's key file.")
@click.option("--name", required=True, help="The template's name, the same for all its versions.")
@click.option("--version", "version_text", required=True, help="One to four numbers with dots between them.")
@click.option("--out", type=_new, required=True, help="The catalog to write.")
@passphrase_file
@plainly
def sign(disk: Path, signer_path: Path, name: str, version_text: str, out: Path, passphrase_file: Path | None) -> None:
    """Hash everything that a guest sees of DISK, and sign it with name and version."""
    jose.text(name, what="The template's name")
    version = parse_version(version_text)
    keys = opened_owner(signer_path, passphrase_file)
    with opened(disk) as image:
        volume, partitions = _hashed(image, disk), image.partitions()
    token = build_catalog(keys, volume, name=name, version=version, now=datetime.now(UTC))
    write_new(out, token.encode() + b"\n")
    click.echo(f"Wrote {out}. It covers every byte that a guest sees of the disk:")
    _show(parse_catalog(token), partitions)
    click.echo("A disk that has been started or changed since is another one. Sign that as a new version.")


@template.command()
@_disk
@_catalog
@click.option("--signer", "expected", help="The thumbprint that the signer has told you by another way.")
@plainly
def verify(disk: Path, catalog_path: Path, expected: str | None) -> None:
    """Say whether DISK is what CATALOG describes, and if not, where it differs."""
    found = catalog_in(catalog_path)
    if expected is not None and expected != found.thumbprint:
        raise click.ClickException(f"The catalog was signed by {found.thumbprint}, not by the expected signer.")
    with opened(disk) as image:
        if image.size != found.volume.size:
            raise click.ClickException(
                f"{disk} is another disk: it has {image.size} bytes, and the catalog describes {found.volume.size}."
            )
        volume, partitions = _hashed(image, disk), image.partitions()
    if regions := differing(found.volume, volume):
        for line in _places(regions, partitions):
            click.echo(line, err=True)
        raise click.ClickException(f"{disk} is not what the catalog of {found.name} {found.version} describes.")
    click.echo(f"{disk} is what this catalog describes, byte for byte:")
    _show(found, partitions)


@template.command()
@_catalog
@plainly
def catalog(catalog_path: Path) -> None:
    """Verify CATALOG's signature and show what it says."""
    _show(catalog_in(catalog_path), ())


def catalog_in(path: Path) -> Catalog:
    """Return the catalog in a file, its signature verified."""
    with path.open("rb") as file:
        content = file.read(CATALOG_LIMIT + 1)
    return parse_catalog(content.decode(errors="replace").strip())


def _hashed(image: Image, disk: Path) -> Volume:
    with _progress(image.size, f"Reading {disk.name}") as bar:
        return image.volume(bar.update)


@contextmanager
def _progress(size: int, label: str) -> Iterator["click._termui_impl.ProgressBar[int]"]:
    """Show on stderr how far long work has come; what a program reads on stdout stays clean."""
    with click.progressbar(length=size, label=label, file=sys.stderr, update_min_steps=1 << 26) as bar:
        yield bar


def _show(found: Catalog, partitions: Sequence[Partition]) -> None:
    click.echo(f"  {found.name} {found.version}, {found.volume.size} bytes")
    click.echo(f"  root {found.volume.root.hex()}")
    click.echo(f"  signed by {found.signer_name} on {found.signed_at:%Y-%m-%d %H:%M} UTC")
    click.echo(f"  thumbprint {found.thumbprint}")
    for partition in partitions:
        click.echo(
            f"  partition {partition.number}: {_bytes(partition.first, partition.end)} {partition.name}".rstrip()
        )


def _places(regions: Sequence[Region], partitions: Sequence[Partition]) -> Iterator[str]:
    """Say where a disk differs, with the partitions there; their names come from the disk itself."""
    for region in regions[:_SHOWN_REGIONS]:
        there = [each for each in partitions if each.first < region.end and region.first < each.end]
        names = [f"partition {each.number} {each.name}".rstrip() for each in there]
        if partitions and region.first < TABLE_SIZE:
            names.insert(0, "the partition table")
        yield ", ".join([f"Differs: {_bytes(region.first, region.end)}", *names])
    if more := regions[_SHOWN_REGIONS:]:
        yield f"and in {len(more)} further places."


def _bytes(first: int, end: int) -> str:
    return f"bytes {first} to {end - 1}"
