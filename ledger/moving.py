"""Keys change their custody: made, moved, backed up, brought back. Acts of whoever runs the node, at its console.

The rows are re-sealed in one transaction with the leaf that says so. The root that they need by then is durable
before it begins, and waits beside the one in use (`ledger.custody.places`): whenever the power goes, one of the two
opens everything, and the next command finds out which.
"""

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

from django.conf import settings
from django.db import transaction

from ledger import log_key
from ledger.custody import Custody, HeldKey, custody
from ledger.custody.choice import forget as forget_custody
from ledger.custody.errors import CannotMove, CustodyExists, CustodyUnavailable, MalformedCustody, NotSealedHere
from ledger.custody.file import write_once
from ledger.custody.hsm import TokenCustody
from ledger.custody.places import one_at_a_time, place, put_in_place, sealed_place, sweep, token, waiting
from ledger.custody.recovery import lock, unlock
from ledger.custody.root import KEY_SIZE, RootCustody, extracted
from ledger.recording import record

TOKEN_NAME: Final = "pkcs11"  # noqa: S105  # the name of a custody
Held = Callable[[], Sequence[HeldKey]]  # the keys of this service, in the caller's transaction locked


@dataclass(frozen=True, slots=True)
class Who:
    """Whose act it is, and why; both go into the leaf."""

    actor: str
    reason: str
    now: datetime


@dataclass(frozen=True, slots=True)
class Done:
    """What became of it. The share is shown to people once and kept nowhere."""

    custody: str
    share: str = ""
    moved: tuple[str, ...] = ()
    left: tuple[str, ...] = ()  # keys that stay in the token they were made in
    kept: Path | None = None  # where the root of before is now


@one_at_a_time()
def create(name: str, *, held: Held, who: Who) -> Done:
    """Make the first root of a fabric that has no keys yet."""
    _require_no_keys(held)
    if name == TOKEN_NAME:
        if token().has_root():
            raise CustodyExists("The token has a root key of Guardhouse already.")
        token().make_root(None)
        share = ""
    else:
        here = place(name)
        if here.path.exists():
            raise CustodyExists(f"{here.path} is there already, and is not overwritten.")
        share = here.write(here.path, secrets.token_bytes(KEY_SIZE))
    _forget()
    with transaction.atomic():
        _record(who, "created", {"custody": name})
    return Done(name, share)


@one_at_a_time()
def move(to: str, *, new_root: bool, held: Held, who: Who) -> Done:
    """Re-seal every key for another custody, or for the same one under a new root.

    Under the same root, processes of before go on opening everything, and so do hosts with their certificates. Under
    a new one neither does: stop the service first, and hosts attest again. Leaving a token always means a new root.
    """
    _settle(held)
    before, root = custody(), _root_for(to, new_root)
    target = _Target.of(to, root)
    with transaction.atomic():
        keys = held()
        staying = [key for key in keys if key.in_token]
        moving = [key for key in keys if not key.in_token]
        for key in moving:
            key.keep(target.custody.admit(before.open(key.sealed, key.purpose), key.purpose))
        log_key.reseal(before, target.custody)
        moved = tuple(key.name for key in moving)
        left = () if to == TOKEN_NAME else tuple(key.name for key in staying)
        detail = {"from": settings.CUSTODY, "custody": to, "moved": [*moved], "left": [*left]}
        _record(who, "moved", {**detail, "root": "a new" if _is_new(to, new_root) else "the same"})
    kept = put_in_place(target.path) if target.path else None
    _forget()
    return Done(to, target.share, moved, left, kept or _left_behind(to))


@dataclass(frozen=True, slots=True)
class _Target:
    """The custody that keys move to. Its root is durable; a file of it waits for its place."""

    custody: Custody
    path: Path | None = None
    share: str = ""

    @classmethod
    def of(cls, name: str, root: bytes | None) -> "_Target":
        return cls.token(root) if name == TOKEN_NAME or root is None else cls.file(name, root)

    @classmethod
    def file(cls, name: str, root: bytes) -> "_Target":
        here = place(name)
        if name != settings.CUSTODY and here.path.exists() and here.read(here.path) != root:
            raise CustodyExists(f"{here.path} holds another root key. Move it away if nothing needs it any more.")
        return cls(RootCustody(root), here.path, here.write(waiting(here.path), root))

    @classmethod
    def token(cls, root: bytes | None) -> "_Target":
        """Have the root in the token; one that a move was killed after is used."""
        it = token()
        found = TokenCustody(it.address)
        if not it.has_root():
            it.make_root(None if root is None else extracted(root))
        elif root is not None and found.derive("same root", b"") != RootCustody(root).derive("same root", b""):
            raise CustodyExists("The token has another root key of Guardhouse. Remove it if nothing needs it any more.")
        return cls(found)


def _left_behind(to: str) -> Path | None:
    """Return where the root of before still lies, when it was moved to another place."""
    return None if settings.CUSTODY in (to, TOKEN_NAME) else place(settings.CUSTODY).path


def _is_new(to: str, new_root: bool) -> bool:
    return new_root or (settings.CUSTODY == TOKEN_NAME != to)


def _root_for(to: str, new_root: bool) -> bytes | None:
    """Return the root to be put there; None for one that a token makes inside itself."""
    if to == settings.CUSTODY and (to == TOKEN_NAME or not new_root):
        raise CannotMove(f"The keys rest in {to} already.")
    if _is_new(to, new_root):
        return None if to == TOKEN_NAME else secrets.token_bytes(KEY_SIZE)
    here = place(settings.CUSTODY)
    return here.read(here.path)


@one_at_a_time()
def settle(*, held: Held) -> str:
    """Finish what was killed, or undo it, and say what was done, if anything."""
    return _settle(held)


def _settle(held: Held) -> str:
    """Finish, or undo, a move that was killed.

    A root that waits belongs in its place if it opens the keys, because then they were re-sealed for it.
    """
    done = ""
    for name in ("insecure-file", "tpm"):
        path = place(name).path
        sweep(path)
        if not waiting(path).exists():
            continue
        if _opens(partial(_waiting_root, name), held):
            put_in_place(path)
            done = f"A move to {name} was interrupted after the keys were re-sealed; it is finished now."
        elif _opens(custody, held):
            waiting(path).unlink()
            done = f"A move to {name} was interrupted before the keys were re-sealed; nothing had changed."
        else:
            raise CannotMove(
                f"Neither {waiting(path)} nor the custody in use opens this service's keys. Nothing was changed;"
                " `manage.py custody restore` brings a root back from a backup."
            )
    _forget()
    return done


def _waiting_root(name: str) -> Custody:
    here = place(name)
    return RootCustody(here.read(waiting(here.path)))


def require_opened(by: Custody, held: Held) -> None:
    """Raise `NotSealedHere`, or why a token does not answer, when this custody does not open every key it should."""
    with transaction.atomic():
        for key in held():
            if not key.in_token or by.rests(key.sealed):
                by.open(key.sealed, key.purpose)
    log_key.require_opened(by)


def _opens(by: Callable[[], Custody], held: Held) -> bool:
    try:
        require_opened(by(), held)
    except (CustodyUnavailable, MalformedCustody):
        return False
    return True


# --- backup and recovery -----------------------------------------------------------------------------------------


def backup(path: Path, passphrase: str, *, who: Who) -> None:
    """Write the root to a file, under a passphrase. With it and a copy of the database, everything comes back."""
    here = place(settings.CUSTODY)
    content = {"version": 1, "fabric": settings.FABRIC_NAME, "root": here.read(here.path).hex()}
    locked = lock(json.dumps(content).encode(), passphrase)
    with transaction.atomic():
        _record(who, "backed-up", {"custody": settings.CUSTODY})
        if not write_once(path, locked):
            raise CustodyExists(f"{path} is there already, and is not overwritten.")


@one_at_a_time()
def restore(content: bytes, passphrase: str, *, held: Held, who: Who) -> Done:
    """Put the root of a backup into the custody that the settings name, if it opens the keys in the database."""
    root = _read_backup(unlock(content, passphrase))
    _require_ours(root, held, "This backup")
    name = settings.CUSTODY
    target = _Target.of(name, root)
    with transaction.atomic():
        _record(who, "restored", {"custody": name})
    done = Done(name, target.share, kept=put_in_place(target.path) if target.path else None)
    _forget()
    return done


@one_at_a_time()
def recover(share: str, *, held: Held, who: Who) -> tuple[int, ...]:
    """Seal the root anew to this node's TPM and what its PCRs are now, by the recovery share."""
    here = sealed_place()
    root = here.recover(share)
    _require_ours(root, held, f"What the share opens in {here.path}")
    pcrs = here.seal_again(root)
    with transaction.atomic():
        _record(who, "recovered", {"pcrs": [*pcrs]})
    _forget()
    return pcrs


@one_at_a_time()
def renew_share(*, who: Who) -> str:
    """Make another recovery share; the one before opens this node's file no more."""
    here = sealed_place()
    share = here.share_again()
    with transaction.atomic():
        _record(who, "share-renewed", {})
    return share


def _read_backup(content: bytes) -> bytes:
    try:
        fields = json.loads(content)
        root = bytes.fromhex(fields["root"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise MalformedCustody("What the passphrase opens is no backup of custody's.") from error
    if fields.get("version") != 1 or len(root) != KEY_SIZE:
        raise MalformedCustody("This backup is of a version that is not known here.")
    return root


def _require_ours(root: bytes, held: Held, what: str) -> None:
    try:
        require_opened(RootCustody(root), held)
    except NotSealedHere as error:
        raise CannotMove(
            f"{what} does not open the keys in this database: it is of another fabric, or of before a move to a new"
            " root. Nothing was changed."
        ) from error


def _require_no_keys(held: Held) -> None:
    with transaction.atomic():
        if held() or log_key.log_verifier() is not None:
            raise CustodyExists(
                "This fabric has keys already. `manage.py custody move` moves them; `manage.py custody restore` brings"
                " back what opens them."
            )


def _forget() -> None:
    forget_custody()
    log_key.forget()


def _record(who: Who, what: str, detail: dict[str, object]) -> None:
    record(
        actor=who.actor,
        act=f"custody.{what}",
        subject="custody",
        detail={**detail, "reason": who.reason},
        now=who.now,
    )
