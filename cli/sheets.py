"""Recovery shares between paper and terminal: shown one at a time, asked for one at a time, and nowhere on a disk."""

import re
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Final

import click

from cli.guardians import same_fingerprint
from cli.owner_secret import OwnerSecret
from cli.recovery import WORDS, Share, ShareMalformed, build_share, combine, parse_share, recover
from guardedhost.files import write_new
from kps.core import jose

_OTHER_SCREEN, _BACK = "\x1b[?1049h\x1b[2J\x1b[H", "\x1b[?1049l"
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")
_CLEAR: Final = "\x1b[2J\x1b[H"


def write_sheets(folder: Path, shares: Sequence[Share], *, made: date) -> None:
    """Write one file for each share into a new folder, all for their owner's eyes only."""
    folder.mkdir(mode=0o700)
    for share in shares:
        write_new(folder / f"share-{share.number}.txt", build_share(share, of=len(shares), made=made))


def show_sheets(shares: Sequence[Share], *, made: date) -> None:
    """Show one share after the other until each is on paper, on a screen that no scrolling brings back."""
    require_terminal()
    with _other_screen():
        for share in shares:
            sheet = build_share(share, of=len(shares), made=made).decode()
            while not _copied(share, sheet):
                click.echo("That is not the word on the sheet. Look again.\n")


def require_terminal() -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("Shares are shown on a terminal only. To have them in files, name a folder with --out.")


def _copied(share: Share, sheet: str) -> bool:
    """Show the sheet, take it away, and ask for one of its words."""
    click.echo(f"Write this on paper.\n\n{sheet}")
    click.prompt("Then press Enter", default="", show_default=False, prompt_suffix=" ")
    number = secrets.randbelow(WORDS)
    answer = click.prompt(f"{_CLEAR}Word {number + 1} of share {share.number}, from your paper")
    click.echo(_CLEAR, nl=False)
    return str(answer).strip().lower() == share.words[number]


def gather(paths: Sequence[Path]) -> list[Share]:
    """Return the shares in these files, or, when none is named, those that a person types from paper."""
    if not paths:
        with _other_screen():
            return _asked()
    shares = []
    for path in paths:
        try:
            shares.append(parse_share(path.read_bytes()))
        except ShareMalformed as error:
            raise ShareMalformed(f"{path}: {error}") from error
    return shares


def _asked() -> list[Share]:
    """Ask until there are as many different shares as the first says that its set needs."""
    found: list[Share] = []
    while not found or len({share.words for share in found}) < found[0].needed:
        needed = f" of {found[0].needed}" if found else ""
        typed = click.prompt(f"Share {len(found) + 1}{needed}: its {WORDS} words on one line")
        try:
            found.append(parse_share(typed.encode()))
        except ShareMalformed as error:
            click.echo(f"{error} Once more.", err=True)
    return found


def recovered(shares: Sequence[Share], *, told: str | None, name: str | None) -> OwnerSecret:
    """Return the owner with the fingerprint that was told or is on the shares, or that a person says is right."""
    name = name or next((share.untrusted_owner for share in shares if share.untrusted_owner), None)
    if name is None:
        raise click.UsageError("No name is on these shares. Say with --name what the owner is to be called.")
    jose.text(name, what="The owner's name")
    expected = told or written_on(shares)
    if expected is None:
        expected = OwnerSecret(name, combine(shares)).keys.guardian.fingerprint
        click.confirm(f"Is {expected} the fingerprint on your papers?", abort=True)
    return recover(shares, name=name, fingerprint=expected)


def written_on(shares: Sequence[Share]) -> str | None:
    """Return whose shares these say that they are."""
    return next((share.untrusted_fingerprint for share in shares if share.untrusted_fingerprint), None)


def told_fingerprint(_: click.Context, __: click.Parameter, written: str | None) -> str | None:
    """Read a fingerprint as a person types it."""
    if written is None:
        return None
    fingerprint = same_fingerprint(written)
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise click.BadParameter("a fingerprint is 64 hexadecimal digits")
    return fingerprint


@contextmanager
def _other_screen() -> Iterator[None]:
    """The terminal's other screen, of which nothing stays to scroll back to; no screen where there is no terminal."""
    terminal = sys.stdout.isatty()
    if terminal:
        click.echo(_OTHER_SCREEN, nl=False)
    try:
        yield
    finally:
        if terminal:
            click.echo(_BACK, nl=False)
