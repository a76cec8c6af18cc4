"""`guardhouse host`: the agent on a guarded host."""

import json
import logging
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from attestation.errors import ParseError
from cli import diagnosis
from cli.outcome import MALFORMED, REFUSED, show_findings, state_dir, with_exit_codes
from cli.vm import vm
from guardedhost import agent, daemon
from guardedhost.diagnosis.bundle import DOCUMENT_LIMIT, read_bundle, write_bundle
from guardedhost.diagnosis.checks import diagnose as diagnose_trace
from guardedhost.diagnosis.collect import collect
from guardedhost.diagnosis.trace import Trace
from guardedhost.files import write_new
from guardedhost.process import keep_secrets_in
from guardedhost.store import HOST_KEY, KERBEROS, TPM, LastAttestation, Store
from guardedhost.wire import Verdict

_as_json = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_NEW_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def host() -> None:
    """Prove this host to the portal, and start virtual machines whose keys the portal releases to it."""
    keep_secrets_in()


host.add_command(vm)


@host.command()
@state_dir
@click.option("--server", required=True, help="The portal's URL.")
@click.option(
    "--mode",
    type=click.Choice([TPM, HOST_KEY, KERBEROS]),
    default=TPM,
    help="What the fabric shall know this host by: its TPM, a key of its own, or its machine account; or several.",
)
@click.option("--keytab", help="The machine account's keytab, for Kerberos mode.")
@click.option("--principal", help="The machine account; the keytab's first if left out.")
@click.option("--name", help="The host's name; its host name if left out.")
@click.option("--tcti", help="The TPM: device:/dev/tpmrm0, or swtpm:path=… in a lab.")
@click.option("--event-log", help="The boot log, if not where the kernel puts it.")
@click.option("--ima-log", help="The IMA list, if not where the kernel puts it.")
@click.option(
    "--ca", type=click.Path(exists=True, dir_okay=False, resolve_path=True), help="Authorities of the portal."
)
@click.option("--accel", help="QEMU's accelerator: kvm where it is known to work, otherwise tcg.")
@with_exit_codes
def enrol(folder: Path, mode: str, **options: str | None) -> None:
    """Make this host known to the portal and prove that its keys are its own. `--tcti ""` is for one without a TPM."""
    store = Store(folder)
    config = replace(store.config(), **{key: value for key, value in options.items() if value is not None})
    with agent.opened(store, config) as opened:
        if mode == KERBEROS:
            agent.use_account(opened)
            click.echo("This host attests by its machine account when the fabric is in Kerberos mode.")
            return
        activation = agent.enrol(opened) if mode == TPM else agent.register_host_key(opened)
    click.echo(f"{activation.state}: {activation.detail}".rstrip(": "))


@host.command()
@state_dir
@_as_json
@with_exit_codes
def attest(folder: Path, as_json: bool) -> None:
    """Prove this host's state now. Exit code 1 when the portal does not accept it."""
    with agent.opened(Store(folder)) as opened:
        verdict = agent.attest(opened)
    if as_json:
        click.echo(json.dumps(_verdict_fields(verdict)))
    else:
        click.echo(" ".join((verdict.status, *verdict.substatus)))
        show_findings(verdict.findings)
    if verdict.certificate is None:
        sys.exit(REFUSED)


@host.command()
@state_dir
@_as_json
@with_exit_codes
def rehearse(folder: Path, as_json: bool) -> None:
    """Try every mode that this host is registered for and the fabric is not in. That earns no certificate.

    Exit code 1 when one of them would not accept this host.
    """
    with agent.opened(Store(folder)) as opened:
        verdicts = agent.rehearse(opened)
    if as_json:
        click.echo(json.dumps({mode: _verdict_fields(verdict) for mode, verdict in verdicts.items()}))
    for mode, verdict in verdicts.items():
        if not as_json:
            click.echo(" ".join((f"{mode}:", verdict.status, *verdict.substatus)))
            show_findings(verdict.findings)
    if not verdicts and not as_json:
        click.echo("This host is registered for no other mode.")
    if any(verdict.status != "Passed" for verdict in verdicts.values()):
        sys.exit(REFUSED)


@host.command()
@state_dir
def run(folder: Path) -> None:
    """Keep this host attested, until SIGTERM."""
    logging.basicConfig(force=True, format="%(levelname)s %(message)s")
    logging.getLogger("guardedhost").setLevel(logging.INFO)
    daemon.run(Store(folder), daemon.stop_on_signals())


@host.command()
@state_dir
@_as_json
@with_exit_codes
def status(folder: Path, as_json: bool) -> None:
    """Show the last attestation and the certificate in hand, without asking the portal."""
    store = Store(folder)
    config, last, credential = store.enrolled(), store.last_attestation(), store.credential()
    if as_json:
        fields: dict[str, Any] = {"name": config.name, "server": config.server, "attester": config.attester}
        fields["last"] = _last_fields(last) if last else None
        fields["certificate"] = credential and credential.serial
        fields["mode"] = credential and credential.mode
        fields["registered"] = list(agent.modes_of(config))
        click.echo(json.dumps(fields))
        return
    click.echo(f"{config.name} ({config.attester}) at {config.server}")
    if last is None:
        click.echo("Not attested yet.")
        return
    click.echo(f"{' '.join((last.status, *last.substatus))}, {last.at:%Y-%m-%d %H:%M:%S} UTC")
    if credential:
        word = "valid until" if credential.not_after > datetime.now(UTC) else "lapsed at"
        click.echo(f"Certificate {credential.serial} {word} {credential.not_after:%Y-%m-%d %H:%M:%S} UTC")
    show_findings(last.findings)


@host.command()
@state_dir
@_as_json
@click.option("--bundle", type=_FILE, help="Judge what --save wrote, here, without the host.")
@click.option("--save", type=_NEW_FILE, help="Write what was found to a new file, for --bundle.")
@with_exit_codes
def diagnose(folder: Path, as_json: bool, bundle: Path | None, save: Path | None) -> None:
    """Check all that attesting needs, from the portal's name to its verdict, and say what to do about what fails.

    Nothing is changed: the portal tells an enrolled host its verdict as a trial. Exit code 0 when nothing fails, 1 when
    something does, 2 for a damaged bundle.
    """
    if bundle is not None and save is not None:
        raise click.UsageError("--bundle judges what --save once wrote; use one of them.")
    trace = _saved(bundle) if bundle is not None else collect(Store(folder))
    found = diagnose_trace(trace)
    click.echo(json.dumps(diagnosis.fields(trace, found)) if as_json else diagnosis.table(trace, found))
    if save is not None:
        _save(save, trace)
    if found.failures:
        sys.exit(REFUSED)


def _saved(bundle: Path) -> Trace:
    try:
        with bundle.open("rb") as file:
            return read_bundle(file.read(DOCUMENT_LIMIT + 1))
    except ParseError as error:
        reason = str(error)
    except OSError as error:
        reason = f"{error.strerror}."
    click.echo(f"{bundle}: {reason}", err=True)
    sys.exit(MALFORMED)


def _save(path: Path, trace: Trace) -> None:
    try:
        write_new(path, write_bundle(trace))
    except OSError as error:
        click.echo(f"{path} cannot be written: {error.strerror}.", err=True)
        sys.exit(MALFORMED)


def _verdict_fields(verdict: Verdict) -> dict[str, Any]:
    fields = {key: value for key, value in asdict(verdict).items() if key not in ("certificate", "release_secret")}
    fields["next_attestation_at"] = verdict.next_attestation_at.isoformat()
    return {**fields, "certificate": verdict.certificate is not None}


def _last_fields(last: LastAttestation) -> dict[str, Any]:
    moments = {key: value.isoformat() for key, value in asdict(last).items() if isinstance(value, datetime)}
    return {**asdict(last), **moments}
