"""`guardhouse inspect`: reads what a host would send, for anyone, without a server and without a TPM.

Exit code 0 when every file could be read, 2 when one is malformed; then the byte and the reason are on standard error.
"""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from attestation.core.comparison import Banks, parse_pcr_values
from attestation.core.inspection import inspect_log
from attestation.errors import Refusal
from cli import inspect_tables
from cli.inspect_ima import read_ima
from cli.inspect_tpm import read_certificate, read_quote
from cli.outcome import MALFORMED

_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_files = click.argument("files", type=_file, nargs=-1, required=True)
_pcrs = click.option("--pcrs", type=_file, help='PCR values to compare with: "0 HEX" lines, or tpm2_pcrread\'s output.')
_as_json = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help='Answer in JSON: one object on each line, with "file" when several are read.',
)

Reading = Mapping[str, Any]


@click.group()
def inspect() -> None:
    """Read event logs, IMA lists, quotes and EK certificates. Needs no server, no TPM and no trust in the file."""


@inspect.command()
@_files
@_pcrs
@_as_json
def eventlog(files: tuple[Path, ...], pcrs: Path | None, as_json: bool) -> None:
    """Replay firmware event logs and say what they prove, and what is wrong with them.

    With --pcrs, only PCRs whose values match prove anything.
    """
    measured = _measured(pcrs)
    if as_json:
        _each(files, lambda data: inspect_tables.log_fields(inspect_log(data, measured=measured)), as_json=True)
    else:
        _each(files, lambda data: inspect_tables.log_table(inspect_log(data, measured=measured)), as_json=False)


@inspect.command()
@_files
@_pcrs
@_as_json
def ima(files: tuple[Path, ...], pcrs: Path | None, as_json: bool) -> None:
    """Replay IMA measurement lists, in every bank that a TPM may have."""
    measured = _measured(pcrs)
    _each(files, lambda data: read_ima(data, measured=measured), as_json=as_json)


@inspect.command()
@_files
@_pcrs
@_as_json
def quote(files: tuple[Path, ...], pcrs: Path | None, as_json: bool) -> None:
    """Show what a TPM signed. Whether it did needs its key: this reads the statement, and checks no signature."""
    measured = _measured(pcrs)
    _each(files, lambda data: read_quote(data, measured=measured), as_json=as_json)


@inspect.command()
@_files
@_pcrs
@_as_json
def ek(files: tuple[Path, ...], pcrs: Path | None, as_json: bool) -> None:
    """Show what endorsement key certificates say (DER or PEM). Whether their maker is to be trusted is not checked.

    --pcrs is read as it is by the other commands, and changes nothing: a certificate says nothing of PCRs.
    """
    _measured(pcrs)
    _each(files, read_certificate, as_json=as_json)


def _measured(pcrs: Path | None) -> Banks | None:
    if pcrs is None:
        return None
    try:
        return parse_pcr_values(pcrs.read_bytes())
    except Refusal as error:
        click.echo(f"{pcrs}: {error}", err=True)
        sys.exit(MALFORMED)


def _each(files: tuple[Path, ...], read: Callable[[bytes], Reading | str], *, as_json: bool) -> None:
    """Read and print every file; a malformed one does not keep the others from being read."""
    code = 0
    for path in files:
        try:
            reading = read(path.read_bytes())
        except Refusal as error:
            click.echo(f"{path}: {error}", err=True)
            code = MALFORMED
            continue
        named = len(files) > 1
        if as_json and not isinstance(reading, str):
            click.echo(json.dumps({"file": str(path), **reading} if named else reading))
        else:
            if named:
                click.echo(f"{path}:")
            click.echo(reading if isinstance(reading, str) else inspect_tables.fields_table(reading))
    sys.exit(code)
