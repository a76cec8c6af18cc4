"""`guardhouse audit`: what a fabric says of itself, checked by somebody else, who has to trust nothing of it."""

import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from attestation.core.second_look import SecondLook, Shelf, parse_signers
from attestation.errors import ParseError
from cli.export_file import Export, read_export
from cli.kept import Kept, read_kept, write_kept
from cli.plain import plainly
from ledger.core.audit import Found, Known
from ledger.core.note import VerifierKey, parse_vkey

DIFFERS = 1
KEPT = Path("guardhouse-log.json")


@click.group()
def audit() -> None:
    """Check a fabric's log on your own machine, and witness it for others."""


@audit.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--kept",
    "kept_file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=KEPT,
    show_default=True,
    help="Where you keep the newest checkpoint that you have seen. It is yours: keep it where the fabric is not.",
)
@click.option("--log", "log_key", help="The log's key, the first time; compare it with its operator by another way.")
@click.option("--witness", "witnesses", multiple=True, help="A witness's key, once; what it has cosigned has to fit.")
@plainly
def verify(file: Path, kept_file: Path, log_key: str | None, witnesses: tuple[str, ...]) -> None:
    """Verify an export: signatures, proofs, that the log only grew, and every verdict by its own evidence.

    Exit code 0 when all of it holds, 1 when something does not.
    """
    kept = _kept(kept_file, log_key, witnesses)
    export = read_export(file, Known(kept.key, kept.checkpoint, kept.witnesses))
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


def _kept(path: Path, log_key: str | None, witnesses: tuple[str, ...]) -> Kept:
    """Return what the person knows; the log's key is never taken from what is to be checked by it."""
    kept, said = read_kept(path), tuple(parse_vkey(each) for each in witnesses)
    if kept is None and log_key is None:
        raise ParseError(
            f"{path} is not there, so this is the first look at this log. Say its key with --log, as the fabric's"
            " operator has told you by another way than the portal."
        )
    known = kept or Kept(parse_vkey(log_key or ""))
    if log_key is not None and parse_vkey(log_key) != known.key:
        raise ParseError(f"{path} is about another log, {known.key.name}.")
    return Kept(known.key, known.note, _together(known.witnesses, said))


def _together(before: tuple[VerifierKey, ...], said: tuple[VerifierKey, ...]) -> tuple[VerifierKey, ...]:
    return tuple({str(each): each for each in (*before, *said)}.values())


def _judge(export: Export) -> str:
    """Look again at everything that an entry rests on, and say in a sentence what came of it."""
    found = export.found
    shelf = Shelf(export.load, export.parts, parse_signers([export.load(each) for each in export.signers]))
    look, judged, unkept = SecondLook(shelf), set[str](), set[str]()
    for grounds in sorted(found.grounds, key=lambda each: (each.evidence, each.index)):
        seen = look.at(grounds)
        for problem in seen.problems:
            found.problem(f"Entry {grounds.index} ({grounds.act}): {problem}")
        if not seen.not_kept:
            judged.add(grounds.evidence)
        elif seen.dossier is not None and not seen.dossier.approved:
            unkept.add(grounds.evidence)  # nobody got anything by it
        else:
            found.problem(f"Entry {grounds.index} ({grounds.act}) cannot be judged again: {seen.not_kept}")
    sentence = f"{len(judged)} verdicts were come to again by their own evidence and the policy of their day."
    if unkept:
        sentence += f" {len(unkept)} on hosts that waited for approval cannot be: their logs were not kept."
    return sentence


def _tell(found: Found) -> None:
    scope = "all of it" if found.owners is None else ", ".join(f"owner {each[:16]}…" for each in found.owners)
    click.echo(f"{found.checkpoint.origin}: {found.checkpoint.size} entries, {found.entries} in this export ({scope}).")
    for name, (size, at) in sorted(found.witnessed.items()):
        moment = datetime.fromtimestamp(at, UTC)
        click.echo(f"{name} has cosigned the first {size} entries at {moment:%Y-%m-%d %H:%M:%S} UTC.")
    for owner in found.uncounted:
        click.echo(f"Nothing in it concerns the owner {owner[:16]}…; that there is nothing, no log can prove.")
    for act in ("key.released", "key.refused"):
        if found.acts.get(act):
            click.echo(f"{act}: {found.acts[act]}")
