"""What opens an owner's keys: a passphrase or a PIN, from a file that is named or asked for on the terminal.

No option takes either itself: command lines are for everybody to read.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from cli.owner_file import SHORTEST_PASSPHRASE, read_card, read_owner, read_place
from cli.token import OwnerToken, TokenRefused, opened
from kps.core.guardian import GuardianKeys
from kps.errors import SecretsRefused

C = TypeVar("C", bound=Callable[..., Any])

_file: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_PIN_FILE: Final = "guardhouse.pin_file"
_MODULE: Final = "guardhouse.pkcs11_module"


def _remembered(name: str) -> Callable[[click.Context, click.Parameter, Path | None], None]:
    def remember(context: click.Context, _: click.Parameter, value: Path | None) -> None:
        context.meta[name] = value

    return remember


_passphrase_file = click.option(
    "--passphrase-file",
    type=_file,
    envvar="GUARDHOUSE_PASSPHRASE_FILE",
    help="Read the passphrase from the first line of this file instead of asking for it.",
)
_pin_file = click.option(
    "--pin-file",
    type=_file,
    envvar="GUARDHOUSE_PIN_FILE",
    expose_value=False,
    callback=_remembered(_PIN_FILE),
    help="Read the PIN of a token from the first line of this file instead of asking for it.",
)
_module = click.option(
    "--pkcs11",
    type=_file,
    envvar="GUARDHOUSE_PKCS11_MODULE",
    expose_value=False,
    callback=_remembered(_MODULE),
    help="The library of a token's maker. A key file never names it: no program is loaded because a file says so.",
)
new_passphrase_file = click.option(
    "--new-passphrase-file",
    type=_file,
    help="Read the new passphrase from the first line of this file instead of asking for it.",
)


def passphrase_file(command: C) -> C:
    """What commands share that use an owner's keys. `opened_owner` opens them, `opened_token` a token."""
    return _passphrase_file(_pin_file(_module(command)))


def passphrase_from(path: Path | None, *, new: bool, what: str = "Passphrase of the owner's keys") -> str:
    passphrase = _first_line(path) if path is not None else _asked(what, twice=new)
    if len(passphrase) < SHORTEST_PASSPHRASE:
        raise click.ClickException(f"A passphrase has at least {SHORTEST_PASSPHRASE} characters.")
    return passphrase


def opened_owner(path: Path, passphrase_file: Path | None, *, ask_pin: bool = False) -> GuardianKeys:
    """Return the owner's keys: out of the file under its passphrase, or in the token that the file names.

    A second owner's token asks for its own PIN: the file with the first one's would only bring it closer to its lock.
    """
    place, card = read_place(path), read_card(path)
    if place is None:
        return read_owner(path, passphrase_from(passphrase_file, new=False))
    keys = opened_token(place.token, ask_pin=ask_pin).keys(card.name, place)
    if keys.guardian.fingerprint != card.fingerprint:
        raise SecretsRefused("The card in the owner's key file is not that of the keys in the token.")
    return keys


def opened_token(label: str, *, ask_pin: bool = False) -> OwnerToken:
    """Log in to a token until the command ends. Its PIN is never the passphrase of something else, tried by chance."""
    context = click.get_current_context()
    module = context.meta.get(_MODULE)
    if module is None:
        raise TokenRefused(
            f"The keys are in the token {label}. Say with --pkcs11 or GUARDHOUSE_PKCS11_MODULE which library speaks"
            " to it: its maker's, or p11-kit-proxy.so, which speaks to all that this machine has set up."
        )
    path = None if ask_pin else context.meta.get(_PIN_FILE)
    pin = _first_line(path) if path is not None else _asked(f"PIN of the token {label}", twice=False)
    return context.with_resource(opened(module.absolute(), label, pin))


def _first_line(path: Path) -> str:
    return path.read_text().split("\n", 1)[0].rstrip("\r")


def _asked(what: str, *, twice: bool) -> str:
    return str(click.prompt(what, hide_input=True, confirmation_prompt=twice))
