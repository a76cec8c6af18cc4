"""What commands share, and how they end: 0 done, 1 refused, 2 wrong usage, 3 the portal cannot be reached."""

import functools
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ParamSpec, TypeVar

import click

from attestation.core.finding import Finding
from guardedhost.agent import NotAttested
from guardedhost.errors import AgentError, Unreachable
from guardedhost.store import DEFAULT_FOLDER

REFUSED, MALFORMED, UNREACHABLE = 1, 2, 3

state_dir = click.option(
    "--state-dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_FOLDER,
    show_default=True,
    help="Where the agent keeps its state.",
)

P = ParamSpec("P")
R = TypeVar("R")


def with_exit_codes(command: Callable[P, R]) -> Callable[P, R]:
    """Turn the agent's errors into a sentence on stderr and an exit code; anything else is a bug and shows itself."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except Unreachable as error:
            click.echo(str(error), err=True)
            sys.exit(UNREACHABLE)
        except NotAttested as error:
            click.echo(str(error), err=True)
            show_findings(error.verdict.findings)
            sys.exit(REFUSED)
        except AgentError as error:
            click.echo(str(error), err=True)
            sys.exit(REFUSED)

    return wrapped


def show_findings(findings: Iterable[Finding]) -> None:
    """What is wrong, why it matters and what to do about it, on stderr."""
    for finding in findings:
        label = f"{finding.code}, {finding.substatus}" if finding.substatus else finding.code
        click.echo(f"- {finding.what} ({label})", err=True)
        for text in filter(None, (finding.why, finding.remedy)):
            click.echo(f"  {text}", err=True)
