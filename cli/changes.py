"""What an owner's next statement changes, in sentences: shown before it is signed, what is lost as well."""

from collections.abc import Iterator, Sequence
from typing import Final

from attestation.errors import Refusal
from kps.core.chain import SHIELDED, Statement, VerifiedChain
from kps.core.guardian import Guardian
from kps.core.release_policy import ReleasePolicy, in_words
from kps.errors import NotFound

SHORTEST: Final = 8  # digits of a fingerprint that name a guardian among the few of one VM


class NothingChanges(Refusal):
    """The owner's statement would say again what it says already."""

    code = "nothing_changes"
    status = 409


def difference(before: VerifiedChain, after: Statement) -> list[str]:
    """Return what the statement changes, or raise `NothingChanges`."""
    lines = [
        *_guardians(before.guardians, after.guardians),
        *_level(before.statement.level, after.level),
        *_policy(before.statement.policy, after.policy),
    ]
    if not lines:
        raise NothingChanges(f"Statement {before.statement.serial} of yours says that already.")
    return lines


def _guardians(before: Sequence[Guardian], after: Sequence[Guardian]) -> Iterator[str]:
    kept = {each.fingerprint for each in before} & {each.fingerprint for each in after}
    for guardian in after:
        if guardian.fingerprint not in kept:
            yield f"{guardian.name} may run it. Its fingerprint is {guardian.fingerprint}."
    lost = [guardian for guardian in before if guardian.fingerprint not in kept]
    for guardian in lost:
        yield f"The keys {guardian.fingerprint} of {guardian.name} count no more."
    for name in sorted({each.name for each in lost} - {each.name for each in after}):
        yield (
            f"{name} may run it no more: refused from the moment that it is brought there. What runs goes on until it"
            " stops, and hosts that hold the key keep it until then."
        )
    if lost:
        yield (
            "What they had they have: whoever kept a key and a backup of an earlier start can open that backup."
            " Against that only new secrets help: protect the VM anew."
        )
    if before and not after:
        yield "NO FABRIC may run it then. You alone can open it, with the bundle and the owner's key."


def _level(before: str, after: str) -> Iterator[str]:
    if before == after:
        return
    yield f"It is {after} from its next start on, and was {before}."
    if before == SHIELDED:
        yield "LOST: whoever runs the fabric may look at its console and type there."


def _policy(before: ReleasePolicy, after: ReleasePolicy) -> Iterator[str]:
    """The policy's sentences stand for its members, one for one."""
    if before == after:
        return
    said, says = in_words(before), in_words(after)
    yield from (f"No longer: {sentence}" for sentence in said if sentence not in says)
    yield from (f"From now on: {sentence}" for sentence in says if sentence not in said)


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
