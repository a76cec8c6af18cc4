"""How commands without a portal end: a refusal is a sentence, everything else is a bug."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import click

from attestation.errors import Refusal
from guardedhost.errors import AgentError

P = ParamSpec("P")
R = TypeVar("R")


def plainly(command: Callable[P, R]) -> Callable[P, R]:
    """Turn a refusal into a sentence on stderr and exit code 1; anything else is a bug and shows itself."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (Refusal, AgentError, OSError) as error:
            raise click.ClickException(str(error)) from error

    return wrapped
