"""The restore drill: what it opens with the owner's recovered keys, and that it is remembered however it ends."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

from attestation.errors import Refusal
from cli import care
from cli.backup import disk_of, open_state, states_of
from cli.owner_file import read_card
from cli.passphrase import opened_owner
from cli.recovery import RecoveryRefused, Share
from cli.sheets import recovered, written_on
from guardedhost.errors import AgentError
from guardedhost.luks import require_opens
from kps.core.guardian import GuardianKeys

_MIB = 1024 * 1024


@dataclass(slots=True)
class Attempt:
    """A drill as far as it has come. Whose it is may be known from the start, or be found on the shares."""

    fingerprint: str | None
    set_name: str | None = None
    shares: tuple[int, ...] = ()
    opened: int = 0
    disks: int = 0

    def recover(self, shares: Sequence[Share]) -> GuardianKeys:
        told, self.fingerprint = self.fingerprint, self.fingerprint or written_on(shares)
        self.set_name = shares[0].set_name
        self.shares = tuple(sorted({share.number for share in shares}))
        keys = recovered(shares, told=told, name="drill").keys
        self.fingerprint = keys.guardian.fingerprint
        return keys

    def open_copy(self, path: Path, passphrase_file: Path | None) -> GuardianKeys:
        """Open the key file, or the token that it names, that is to be there when the first one is lost."""
        told, self.fingerprint = self.fingerprint, self.fingerprint or read_card(path).fingerprint
        keys = opened_owner(path, passphrase_file)
        if told not in (None, keys.guardian.fingerprint):
            raise RecoveryRefused(f"The keys of {path} are those of another owner: {keys.guardian.fingerprint}.")
        return keys

    def open(self, vm: Path, owner: GuardianKeys, *, disk: Path | None) -> str:
        """Open a key protector, a state file or the newest one of a bundle, and its disk; return what was done.

        The newest state is the one that counts: that an older one still opens would be no comfort.
        """
        found = open_state(states_of(vm)[0] if vm.is_dir() else vm, owner)
        disk = disk or (disk_of(vm) if vm.is_dir() else None)
        said = f"Opened {vm}, key protector {found.protector.id}"
        if disk is not None and found.secrets is None:
            raise RecoveryRefused(f"{vm} is a bare key protector: what opens a disk lies beside it in a state file.")
        if disk is None or found.secrets is None:
            self.opened += 1
            return f"{said}. No disk was there to be tried with what it holds."
        size = require_opens(disk, found.secrets.disk_passphrase.encode())
        self.opened, self.disks = self.opened + 1, self.disks + 1
        return f"{said}, and with what it holds its disk {disk}, {size // _MIB} MiB."


@contextmanager
def on_record(attempt: Attempt, folder: Path) -> Iterator[None]:
    """Remember the attempt when it has ended, well or badly; one that its person breaks off is none."""
    try:
        yield
    except (Refusal, AgentError, OSError) as error:
        _remember_failure(attempt, folder, error)
        raise
    _remember(attempt, folder, failure=None)


def _remember_failure(attempt: Attempt, folder: Path, error: Exception) -> None:
    try:
        _remember(attempt, folder, failure=_one_line(str(error)))
    except (Refusal, OSError) as damaged:  # why the drill failed is what has to be said last
        click.echo(f"That this drill failed is not on record. {damaged}", err=True)


def _remember(attempt: Attempt, folder: Path, *, failure: str | None) -> None:
    if attempt.fingerprint is None:
        click.echo("Nothing says whose drill this was, so it is not on record. Name the owner with --owner.", err=True)
        return
    now = int(datetime.now(UTC).timestamp())
    act = care.Drill(now, attempt.set_name, attempt.shares, attempt.opened, attempt.disks, failure)
    care.add(folder, attempt.fingerprint, act)


def _one_line(sentence: str) -> str:
    line = "".join(letter if letter.isprintable() else " " for letter in sentence).strip()
    return line[: care.LONGEST_FAILURE] or "It did not say why."
