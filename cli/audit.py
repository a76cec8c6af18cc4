"""`guardhouse audit`: what a fabric says of itself, checked by somebody else, who has to trust nothing of it."""

import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from attestation.core.second_look import Shelf, look_at_all, parse_signers
from attestation.errors import ParseError
from cli.export_file import Export, read_export
from cli.kept import Kept, known_log, write_kept
from cli.plain import plainly
from cli.witness import Forked, RemoteLog, look, new_witness, read_witness, write_witness
from guardedhost.errors import Unreachable
from ledger.core.audit import Found, Known
from ledger.core.checkpoint import verify_receipt
from ledger.core.note import NOTE_LIMIT, UnverifiedNote, parse_note

DIFFERS = 1
KEPT = Path("guardhouse-log.json")


@click.group()
def audit() -> None:
    """Check a fabric's log on your own machine, and witness it for others."""


kept_option = click.option(
    "--kept",
    "kept_file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=KEPT,
    show_default=True,
    help="Where you keep the newest checkpoint that you have seen. It is yours: keep it where the fabric is not.",
)
log_option = click.option(
    "--log", "log_key", help="The log's key, the first time; compare it with its operator by another way."
)


@audit.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@kept_option
@log_option
@click.option("--witness", "witnesses", multiple=True, help="A witness's key, once; what it has cosigned has to fit.")
@click.option(
    "--receipt",
    "receipts",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A receipt that came with a release; its entry has to be there.",
)
@plainly
def verify(
    file: Path, kept_file: Path, log_key: str | None, witnesses: tuple[str, ...], receipts: tuple[Path, ...]
) -> None:
    """Verify an export: signatures, proofs, that the log only grew, and every verdict by its own evidence.

    Exit code 0 when all of it holds, 1 when something does not.
    """
    kept = known_log(kept_file, log_key, witnesses)
    promised = tuple(verify_receipt(_note(each), kept.key) for each in receipts)
    export = read_export(file, Known(kept.key, kept.checkpoint, kept.witnesses, promised))
    judged = _judge(export)
    _tell(export.found)
    click.echo(judged)
    if export.found.problems:
        for problem in export.found.problems:
            click.echo(f"- {problem}", err=True)
        click.echo("The export does not hold. Keep the file, and what you have kept before.", err=True)
        sys.exit(DIFFERS)
    write_kept(kept_file, Kept(kept.key, export.found.note, kept.witnesses))
    click.echo(f"Everything holds. {kept_file} keeps the checkpoint of {export.found.checkpoint.size} entries.")


def _note(path: Path) -> UnverifiedNote:
    if path.stat().st_size > NOTE_LIMIT:
        raise ParseError(f"{path} is no receipt.")
    return parse_note(path.read_text(errors="replace"))


def _judge(export: Export) -> str:
    """Look again at everything that an entry rests on, and say in a sentence what came of it."""
    shelf = Shelf(export.load, export.parts, parse_signers([export.load(each) for each in export.signers]))
    tally = look_at_all(export.found.grounds, shelf)
    for grounds, problem in tally.problems:
        export.found.problem(f"Entry {grounds.index} ({grounds.act}): {problem}")
    sentence = f"{tally.judged} verdicts were come to again by their own evidence and the policy of their day."
    if tally.not_kept:
        sentence += f" {tally.not_kept} on hosts that waited for approval cannot be: their logs were not kept."
    return sentence


def _tell(found: Found) -> None:
    scope = "all of it" if found.owners is None else ", ".join(f"owner {each[:16]}…" for each in found.owners)
    click.echo(f"{found.checkpoint.origin}: {found.checkpoint.size} entries, {found.entries} in this export ({scope}).")
    for name, (size, at) in sorted(found.witnessed.items()):
        moment = datetime.fromtimestamp(at, UTC)
        click.echo(f"{name} has cosigned the first {size} entries at {moment:%Y-%m-%d %H:%M:%S} UTC.")
    for owner in found.uncounted:
        click.echo(f"Nothing in it concerns the owner {owner[:16]}…; that there is nothing, no log can prove.")
    if found.receipts:
        click.echo(f"{found.receipts} receipts have their entries.")
    for act in ("key.released", "key.refused"):
        if found.acts.get(act):
            click.echo(f"{act}: {found.acts[act]}")


@audit.command("witness-key")
@click.argument("name")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@plainly
def witness_key(name: str, file: Path) -> None:
    """Make a witness's key, and print what a fabric and its tenants know it by."""
    made = new_witness(name)
    write_witness(file, made)
    click.echo(str(made.key))


@audit.command()
@click.argument("server")
@click.option("--key", "key_file", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True)
@kept_option
@log_option
@click.option("--ca", default="", help="A file of authorities that the server's certificate has to come from.")
@click.option("--every", type=click.IntRange(min=1), help="Go on, with so many seconds between two looks.")
@plainly
def witness(server: str, key_file: Path, kept_file: Path, log_key: str | None, ca: str, every: int | None) -> None:
    """Cosign a fabric's newest checkpoint, once it is clear that the log only grew since the last one.

    Exit code 0 when it did, 1 when it did not: then the proof lies beside the file of the kept checkpoint.
    """
    known, by, log = known_log(kept_file, log_key), read_witness(key_file), RemoteLog(server, ca)
    while True:
        try:
            head = look(log, known, kept_file, by, at=int(time.time()))
        except Forked as refusal:
            proof = kept_file.with_name(f"{kept_file.name}.fork")
            write_kept(proof, Kept(known.key, refusal.note))
            click.echo(f"{refusal} Nothing was cosigned. {kept_file} and {proof} together prove it.", err=True)
            sys.exit(DIFFERS)
        except Unreachable as error:
            if every is None:
                raise
            click.echo(str(error), err=True)
        else:
            click.echo(f"{by.name} has cosigned {head.size} entries of {head.origin}.")
        if every is None:
            return
        time.sleep(every)
        known = known_log(kept_file, None)
