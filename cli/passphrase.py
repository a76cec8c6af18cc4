"""The passphrase of a key file: from a file that is named, or asked for on the terminal."""

from pathlib import Path

import click

from cli.owner_file import SHORTEST_PASSPHRASE

passphrase_file = click.option(
    "--passphrase-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="GUARDHOUSE_PASSPHRASE_FILE",
    help="Read the passphrase from the first line of this file instead of asking for it.",
)
new_passphrase_file = click.option(
    "--new-passphrase-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Read the new passphrase from the first line of this file instead of asking for it.",
)


def passphrase_from(path: Path | None, *, new: bool, what: str = "Passphrase of the owner's keys") -> str:
    if path is not None:
        passphrase = path.read_text().split("\n", 1)[0].rstrip("\r")
    else:
        passphrase = click.prompt(what, hide_input=True, confirmation_prompt=new)
    if len(passphrase) < SHORTEST_PASSPHRASE:
        raise click.ClickException(f"A passphrase has at least {SHORTEST_PASSPHRASE} characters.")
    return passphrase
