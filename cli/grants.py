"""`guardhouse tenant grant|revoke|level|policy|bring`: the owner's next word about a VM, or about shielding data."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import click

from cli.chains import Fabric, bring, newest, read_chain, write_chain
from cli.changes import difference, named
from cli.guardians import read_metadata
from cli.outcome import REFUSED
from cli.passphrase import opened_owner, passphrase_file
from cli.plain import plainly
from cli.policy_file import changed, read_policy, seconds
from cli.rewrap import rewrap
from cli.shield_file import ShieldFile, found_in, restate
from guardedhost.client import Client
from kps.core.chain import LEVELS, MOST_GUARDIANS, Statement, VerifiedChain, next_statement, sign_statement
from kps.core.guardian import Guardian, GuardianKeys, Metadata
from kps.core.release_policy import APPROVALS, MODES, NO_POLICY
from kps.errors import MalformedDocument

MEMBERS: Final = (
    *("host_groups", "minimum_mode", "not_before", "not_after", "hours"),
    *("simultaneous_hosts", "approval", "offline", "successors"),
)
_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_vm = click.Path(exists=True, path_type=Path)
_moment = click.DateTime(["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%MZ", "%Y-%m-%d"])

# When those who are new find the key, where what it lies in is not at hand: of a VM, and of shielding data.
_LATER: Final = {
    False: "Whoever is new can start the VM after its next start on a fabric that has its key. To let them at once,"
    " give this command the bundle.",
    True: "Whoever is new makes no machine until it gets a copy of the file whose key is wrapped for it: give this"
    " command the file.",
}

Command = Callable[..., None]
Next = Callable[[VerifiedChain], Statement]


@dataclass(frozen=True, slots=True)
class Request:
    """Whose VM is meant, where its newest statement is looked for, and where the next one goes."""

    owner_path: Path
    passphrase_file: Path | None
    vm: Path | None
    protector: UUID | None
    fabrics: tuple[Fabric, ...]
    out: Path | None
    yes: bool

    @property
    def bundle(self) -> Path | None:
        return self.vm if self.vm is not None and self.vm.is_dir() else None


def fabric_options(command: Command) -> Command:
    """Give a command the fabrics that it speaks to."""
    ca = click.option("--ca", default="", help="A file of the authorities to trust for them, instead of the usual.")
    fabric = click.option("--fabric", "urls", multiple=True, metavar="URL", help="A fabric's portal. May be repeated.")

    @wraps(command)
    def with_fabrics(*, urls: tuple[str, ...], ca: str, **more: Any) -> None:
        command(fabrics=tuple(Fabric(url, Client(url, ca)) for url in urls), **more)

    return fabric(ca(with_fabrics))


def owner_option(command: Command) -> Command:
    return click.option("--owner", "owner_path", type=_file, required=True, help="The owner's key file.")(command)


def vm_options(command: Command) -> Command:
    """Give a command the VM that it is about: by what is at hand of it, or by its id where only a fabric has it."""
    vm = click.argument("vm", metavar="[VM]", type=_vm, required=False)
    protector = click.option("--id", "protector", type=click.UUID, help="Its key protector, when no file is at hand.")
    return vm(protector(command))


def _change(command: Command) -> Command:
    """Give a command what every change needs, as one `Request`."""

    @wraps(command)
    def collected(
        *,
        owner_path: Path,
        passphrase_file: Path | None,
        vm: Path | None,
        protector: UUID | None,
        fabrics: tuple[Fabric, ...],
        out: Path | None,
        yes: bool,
        **more: Any,
    ) -> None:
        command(Request(owner_path, passphrase_file, vm, protector, fabrics, out, yes), **more)

    out = click.option("--out", type=click.Path(path_type=Path), help="Write the new statement into this file too.")
    yes = click.option("--yes", is_flag=True, help="Do not ask before signing.")
    return vm_options(owner_option(fabric_options(out(yes(passphrase_file(plainly(collected)))))))


@click.command()
@_change
@click.option("--guardian", "paths", type=_file, multiple=True, required=True, help="A file that import kept.")
def grant(request: Request, paths: tuple[Path, ...]) -> None:
    """Let another fabric run a VM, or make machines from shielding data.

    VM is its bundle, a state file, a file with its chain, or a shielding data file. With the bundle or the shielding
    data the key is wrapped again at once; else a VM's next start on a fabric that has the key does it. A fabric that
    you granted before and that has new keys by now gets these in the place of the old ones.
    """
    wanted = [read_metadata(path.read_bytes())[0] for path in paths]
    _sign(request, lambda chain: next_statement(chain, guardians=_granted(chain, wanted), now=_now()))


def _granted(chain: VerifiedChain, wanted: Sequence[Metadata]) -> list[Guardian]:
    guardians = list(chain.guardians)
    for metadata in wanted:
        before = metadata.follows({each.fingerprint for each in guardians})
        if any(each.fingerprint == metadata.guardian.fingerprint for each in guardians):
            continue
        if before is None:
            guardians.append(metadata.guardian)
            continue
        place = next(n for n, each in enumerate(guardians) if each.fingerprint == before.fingerprint)
        # As the owner has known this fabric, whatever it calls itself by now.
        guardians[place] = replace(metadata.guardian, name=guardians[place].name)
    if len(guardians) > MOST_GUARDIANS:
        raise MalformedDocument(f"An owner names at most {MOST_GUARDIANS} guardians. Revoke one first.")
    return guardians


@click.command()
@_change
@click.option("--guardian", "texts", multiple=True, required=True, help="Its fingerprint, the first of it, or name.")
def revoke(request: Request, texts: tuple[str, ...]) -> None:
    """Take a VM, or shielding data, from a fabric: at once wherever the new statement is brought."""

    def revoked(chain: VerifiedChain) -> Statement:
        gone = [named(text, chain.guardians) for text in texts]
        return next_statement(chain, guardians=[each for each in chain.guardians if each not in gone], now=_now())

    _sign(request, revoked)


@click.command()
@_change
@click.option("--level", "wanted", type=click.Choice(LEVELS), required=True)
def level(request: Request, wanted: str) -> None:
    """Change how far a VM, or what is made from shielding data, is closed to the fabric's people."""
    _sign(request, lambda chain: next_statement(chain, level=wanted, now=_now()))


@click.command()
@_change
@click.option("--file", "path", type=_file, help="The whole policy, as TOML or JSON. The options below change it.")
@click.option("--without", multiple=True, type=click.Choice(MEMBERS), help="Ask for this no longer.")
@click.option("--none", "nothing", is_flag=True, help="Begin with no policy at all.")
@click.option("--host-group", "host_groups", multiple=True, help="Only hosts of these groups.")
@click.option("--minimum-mode", type=click.Choice(MODES))
@click.option("--not-before", type=_moment, help="In UTC, like 2027-01-01T00:00Z.")
@click.option("--not-after", type=_moment)
@click.option("--hours", help="A daily window of starts in UTC, like 22:00-04:30.")
@click.option("--simultaneous-hosts", type=click.IntRange(1))
@click.option("--approval", type=click.Choice(APPROVALS))
@click.option("--offline", metavar="STARTS/HOURS", help="What a host may do without its fabric, like 3/48.")
@click.option("--successors", is_flag=True, help="A fabric may replace its own keys by new ones.")
def policy(request: Request, path: Path | None, without: tuple[str, ...], nothing: bool, **members: Any) -> None:
    """Change when a fabric may release a VM's key, or make machines from shielding data.

    Without --file or --none the policy in force is what the options change.
    """
    if path is not None and nothing:
        raise click.UsageError("Give either --file or --none.")
    begin = NO_POLICY if nothing else None if path is None else read_policy(path)
    given = {name: _member(value) for name, value in members.items() if value}
    if "offline" in given:
        given["offline"] = _offline(members["offline"])
    if begin is None and not given and not without:
        raise click.UsageError("Say what is to be another: --file, --none, --without or one of the options.")
    _sign(
        request,
        lambda chain: next_statement(
            chain, policy=changed(begin or chain.statement.policy, given, without), now=_now()
        ),
    )


def _member(value: object) -> object:
    """Return a member as the policy's JSON has it."""
    if isinstance(value, datetime):
        return seconds(value.replace(tzinfo=UTC))
    return list(value) if isinstance(value, tuple) else value


def _offline(text: str) -> dict[str, int]:
    starts, slash, hours = text.partition("/")
    if not (slash and all(part.isascii() and part.isdigit() and len(part) < 5 for part in (starts, hours))):
        raise click.UsageError("Offline starts are like 3/48: how many, and within how many hours.")
    return {"starts": int(starts), "hours": int(hours)}


@click.command("bring")
@click.argument("vm", metavar="VM", type=_vm)
@fabric_options
@plainly
def bring_chain(vm: Path, fabrics: tuple[Fabric, ...]) -> None:
    """Bring a statement that is signed already to fabrics: no key is needed.

    VM is a bundle, a chain's file or a shielding data file, which itself stays here.
    """
    if not fabrics:
        raise click.UsageError("Say to which fabrics: --fabric URL.")
    if not bring(read_chain(vm), fabrics):
        sys.exit(REFUSED)


def _sign(request: Request, following: Next) -> None:
    """Show what the owner is about to say, sign it, keep it, and bring it to the fabrics that were named."""
    shield = found_in(request.vm)
    if request.bundle is None and shield is None and request.out is None:
        raise click.UsageError("Without a bundle or shielding data the new statement needs a file: --out.")
    if request.out is not None and request.out.exists():
        raise click.UsageError(f"{request.out} exists already.")
    owner = opened_owner(request.owner_path, request.passphrase_file)
    before = newest(owner, request.fabrics, vm=request.vm, protector=request.protector, now=_now())
    owner = replace(owner, name=before.statement.owner.name)  # which is in no key; hosts compare it with the one before
    after = following(before)
    _show(before, after, request, shield)
    if not request.yes:
        click.confirm("Sign this?", abort=True)
    chain = sign_statement(after, owner)
    _keep(chain, request, shield, owner)
    if not bring(chain, request.fabrics):
        kept = request.out or request.vm
        click.echo(f"Try those again: `guardhouse tenant bring {kept} --fabric URL`.", err=True)
        sys.exit(REFUSED)


def _keep(chain: VerifiedChain, request: Request, shield: ShieldFile | None, owner: GuardianKeys) -> None:
    """Write the statement where its owner wants it, and wrap anew the key of what is at hand of what it is about."""
    if request.out is not None:
        write_chain(request.out, chain)
        click.echo(f"Wrote {request.out}.")
    if request.bundle is not None:
        made = rewrap(request.bundle, chain, owner)
        click.echo(f"Wrote {made.path}: the key is wrapped for these parties now, and no older state is beside it.")
    if shield is not None:
        restate(shield, chain, owner)
        click.echo(f"Wrote {shield.path}: the same shielding data, its key wrapped for these parties now.")


def _show(before: VerifiedChain, after: Statement, request: Request, shield: ShieldFile | None) -> None:
    click.echo(f"Key protector {after.id}, statement {after.serial} of {after.owner.name}:")
    for line in difference(before, after):
        click.echo(f"- {line}")
    for old, new in before.successions:
        if new in after.guardians:
            click.echo(
                f"You take over the keys {new.fingerprint} of {new.name}, which its keys {old.fingerprint} have put in"
                " their place. Compare that fingerprint with the fabric's by another way."
            )
    if not request.fabrics:
        click.echo("It is brought to no fabric now. Until one has it, that one goes by the statement before.")
    if request.bundle is None and shield is None and any(each not in before.guardians for each in after.guardians):
        click.echo(_LATER[after.makes_machines])


def _now() -> datetime:
    return datetime.now(UTC)
