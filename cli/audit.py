"""`guardhouse audit`: what a fabric says of itself, checked by somebody else, who has to trust nothing of it."""

import sys
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click

from attestation.core.second_look import Shelf, look_at_all, parse_signers
from attestation.errors import ParseError
from cli.export_file import Export, read_export, read_header
from cli.kept import Kept, known_log, write_kept
from cli.plain import plainly
from cli.witness import Forked, RemoteLog, gone_from, look, new_witness, read_witness, write_witness
from guardedhost.errors import Unreachable
from ledger.core.audit import Ended, Found, Known
from ledger.core.beginning import Beginning
from ledger.core.checkpoint import Receipt, verify_receipt
from ledger.core.export import EntryLine
from ledger.core.note import NOTE_LIMIT, parse_note, parse_vkey
from ledger.errors import LogRefused, NoteSignature

DIFFERS = 1
KEPT = Path("guardhouse-log.json")
_MOST_TOLD = 16


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
accept_option = click.option(
    "--accept-new-log",
    is_flag=True,
    help="Follow the log of --log from now on, which took the place of the one that you followed; once, and only when"
    " its operator has told you so by another way.",
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
@accept_option
@plainly
def verify(
    file: Path,
    kept_file: Path,
    log_key: str | None,
    witnesses: tuple[str, ...],
    receipts: tuple[Path, ...],
    accept_new_log: bool,
) -> None:
    """Verify an export: signatures, proofs, that the log only grew, and every verdict by its own evidence.

    Exit code 0 when all of it holds, 1 when something does not.
    """
    kept = known_log(kept_file, log_key, witnesses, accept_new_log=accept_new_log)
    promised = tuple(_receipt(each, kept) for each in receipts)
    _require_followed(file, kept)
    export = read_export(file, Known(kept.key, kept.checkpoint, kept.witnesses, promised, _ended(kept)))
    judged = _judge(export)
    _tell(export.found)
    click.echo(judged)
    if export.found.problems:
        for problem in export.found.problems:
            click.echo(f"- {problem}", err=True)
        click.echo("The export does not hold. Keep the file, and what you have kept before.", err=True)
        sys.exit(DIFFERS)
    write_kept(kept_file, replace(kept, note=export.found.note))
    click.echo(f"Everything holds. {kept_file} keeps the checkpoint of {export.found.checkpoint.size} entries.")


def _ended(kept: Kept) -> tuple[Ended, ...]:
    return tuple(Ended(each.key, each.checkpoint) for each in kept.ended)


def _require_followed(file: Path, kept: Kept) -> None:
    """Refuse an export of another log, with what it says of itself; a person has to hear its key by another way."""
    header = read_header(file)
    claimed = parse_vkey(header.log)
    if claimed == kept.key:
        return
    begun = read_export(file, Known(claimed)).found.begun
    for line, beginning in begun[-_MOST_TOLD:]:
        click.echo(_told(line, beginning), err=True)
    if not any(beginning.before == kept.key for _, beginning in begun):
        raise LogRefused(
            f"This is an export of another log than {kept.key.name}, or somebody else's forgery: nothing in it says"
            f" that {claimed.name} has taken its place."
        )
    raise LogRefused(
        f"This is an export of {claimed.name}, and you follow {kept.key.name}. A fabric begins a new log when entries"
        " of the one before were lost, and says so in it, as above. Anybody could write that: if its operator has told"
        " you the new key by another way than the portal, say it with --log and --accept-new-log."
    )


def _told(line: EntryLine, beginning: Beginning) -> str:
    """Say what an entry says of the end of a log, and what its signatures show."""
    before, left, seen = beginning.before.name, beginning.left, beginning.seen
    at, by = _shown(line.said.get("at")), _shown(line.said.get("actor"))
    said = (
        f"Entry {line.index}: {beginning.key.name} began in the place of {before}, at {at}, by {by}:"
        f" “{beginning.reason}” It begins with {left.size} entries of that log."
    )
    if seen is None:
        return f"{said} Nobody had brought a later checkpoint of it."
    if beginning.lost:
        return f"{said} That log had signed {seen.size}: at least {beginning.lost} entries are gone for good."
    return f"{said} That log had signed another past for {seen.size} entries: both checkpoints are in the entry."


def _shown(value: object) -> str:
    """Return a word of a file for a terminal, which obeys control characters."""
    return "".join(letter for letter in str(value)[:100] if letter.isprintable())


def _receipt(path: Path, kept: Kept) -> Receipt:
    """Return the promise in a file: of the log, or of one before it, whose promises are this one's to keep."""
    if path.stat().st_size > NOTE_LIMIT:
        raise ParseError(f"{path} is no receipt.")
    note = parse_note(path.read_text(errors="replace"))
    for key in (each.key for each in kept.ended):
        with suppress(NoteSignature):
            return verify_receipt(note, key)
    return verify_receipt(note, kept.key)


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
    for line, beginning in found.begun:
        click.echo(_told(line, beginning))
    for ended, beginning in found.lost:
        size = ended.kept.size if ended.kept is not None else 0
        click.echo(
            f"You had kept a checkpoint of {size} entries of {ended.key.name}: at least"
            f" {size - beginning.left.size} of them are not in this log. Your file keeps it: that log’s own word that"
            " they were there."
        )
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
@accept_option
@plainly
def witness(
    server: str,
    key_file: Path,
    kept_file: Path,
    log_key: str | None,
    ca: str,
    every: int | None,
    accept_new_log: bool,
) -> None:
    """Cosign a fabric's newest checkpoint, once it is clear that the log only grew since the last one.

    Exit code 0 when it did, 1 when it did not: then the proof lies beside the file of the kept checkpoint.
    """
    known = known_log(kept_file, log_key, accept_new_log=accept_new_log)
    by, log = read_witness(key_file), RemoteLog(server, ca)
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
            if accept_new_log and not known.note:
                click.echo(gone_from(log, known.ended[-1], head))
        if every is None:
            return
        time.sleep(every)
        known = known_log(kept_file, None)
