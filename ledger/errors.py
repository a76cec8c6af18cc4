"""Why something is refused. Every refusal has a stable code; `fabric/errors.py` alone turns it into HTTP."""

from typing import ClassVar


class Refusal(Exception):
    """A request is refused for a reason that its sender may know.

    `code` is stable and part of the wire; `status` is the HTTP status it maps to; the message is a sentence for people.
    """

    code: ClassVar[str] = "refused"
    status: ClassVar[int] = 403
    scheme: ClassVar[str] = ""  # of a 401: how to authenticate (RFC 9110, section 11.6.1)


class ParseError(Refusal):
    """Bytes do not have the form their specification asks for. The one exception that every `parse_*` raises."""

    code = "malformed"
    status = 400


class NotFound(Refusal):
    """There is no such thing, or it is not for this caller to know."""

    code = "not_found"
    status = 404


class LogRefused(Refusal):
    """The log does not show what it has to; the codes below say in which way."""

    code = "log_refused"
    status = 422


class NoteSignature(LogRefused):
    """A note does not carry a signature of the key that it has to be signed by, or one that does not hold."""

    code = "note_signature"


class NotIncluded(LogRefused):
    """A leaf is not where a proof says that it is."""

    code = "not_included"


class Inconsistent(LogRefused):
    """A later tree does not contain an earlier one: the log was changed, or shows different people different logs."""

    code = "log_inconsistent"


class LogBusy(LogRefused):
    """Another node has just written to the log; the same may be done again at once."""

    code = "log_busy"
    status = 409


class LogDamaged(Refusal):
    """Hashes that the log has signed are not in its database any more."""

    code = "log_damaged"
    status = 503


class UnknownWitness(Refusal):
    """A cosignature of somebody whom this fabric has not let witness its log."""

    code = "unknown_witness"


class TooMuch(Refusal):
    """More was asked for at once than one answer holds."""

    code = "too_much"
    status = 413
