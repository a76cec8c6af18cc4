"""What an owner's next statement changes, in sentences: shown before it is signed, what is lost as well."""

from collections.abc import Sequence
from typing import Final

from attestation.errors import Refusal
from kps.core.chain import Statement, VerifiedChain
from kps.core.guardian import Guardian
from kps.core.statement_changes import changes
from kps.errors import NotFound

SHORTEST: Final = 8  # digits of a fingerprint that name a guardian among the few of one VM


class NothingChanges(Refusal):
    """The owner's statement would say again what it says already."""

    code = "nothing_changes"
    status = 409


def difference(before: VerifiedChain, after: Statement) -> list[str]:
    """Return what the statement changes of what its owner has signed before, or raise `NothingChanges`.

    Keys that a fabric has put in the place of its own since then are among it: the owner is about to sign these too.
    """
    found = changes(before.statement, after)
    if not found:
        raise NothingChanges(f"Statement {before.statement.serial} of yours says that already.")
    return [str(change) for change in found]


def named(text: str, guardians: Sequence[Guardian]) -> Guardian:
    """Return the one guardian that a person means: by its fingerprint, the beginning of that, or its name."""
    digits = text.replace(":", "").replace(" ", "").lower()
    fits = [each for each in guardians if len(digits) >= SHORTEST and each.fingerprint.startswith(digits)]
    fits = fits or [each for each in guardians if each.name == text]
    if len(fits) == 1:
        return fits[0]
    listed = ", ".join(f"{each.name} ({each.fingerprint[:16]}…)" for each in guardians) or "nobody"
    what = "is more than one guardian" if fits else "is no guardian"
    raise NotFound(f"“{text}” {what} of this VM. Its guardians are: {listed}.")
