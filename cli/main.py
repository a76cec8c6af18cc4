"""The `guardhouse` command. Each group is thin: it reads options, calls one verb, prints, and chooses the exit code."""

import logging

import click

from cli.audit import audit
from cli.host import host
from cli.inspect import inspect
from cli.lab import lab
from cli.template import template
from cli.tenant import tenant


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="guardhouse")
@click.option("-v", "--verbose", is_flag=True, help="Show what the agent decides, step by step.")
def main(verbose: bool) -> None:
    """Guardhouse: attestation, key protection and shielded virtual machines for KVM fabrics."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(message)s")


main.add_command(audit)
main.add_command(host)
main.add_command(inspect)
main.add_command(lab)
main.add_command(template)
main.add_command(tenant)
