"""Why custody refuses. Every sentence says what is wrong and what to do; none says anything of a key."""

from cryptography.exceptions import InvalidTag

from ledger.errors import ParseError, Refusal


class CustodyUnavailable(Refusal):
    """What holds this service's keys does not answer, or does not open; the codes below say in which way."""

    code = "custody_unavailable"
    status = 503


class CustodyMissing(CustodyUnavailable):
    """Nobody has made this custody yet, or its file is gone."""

    code = "custody_missing"


class WrongBootState(CustodyUnavailable):
    """The node's firmware or boot settings are not those that the root key was sealed to."""

    code = "custody_boot_state"


class OtherTpm(CustodyUnavailable):
    """The root key was sealed to another TPM, or to this one before it was cleared."""

    code = "custody_other_tpm"


class NotSealedHere(CustodyUnavailable, InvalidTag):
    """A key was sealed under another root, or for another purpose, or was changed since."""

    code = "custody_not_sealed_here"


class TokenGone(CustodyUnavailable):
    """The token, or a key that was in it, is not there."""

    code = "custody_token_gone"


class WrongPin(CustodyUnavailable):
    """The token refuses the PIN. Nobody tries again by himself: a few wrong ones lock the token."""

    code = "custody_wrong_pin"


class CustodyExists(Refusal):
    """What was to be made is there already, and is not overwritten."""

    code = "custody_exists"
    status = 409


class CannotMove(Refusal):
    """Keys cannot go this way; the sentence says why, and what to do instead."""

    code = "custody_cannot_move"
    status = 409


class ShareRefused(Refusal):
    """A recovery share, or the passphrase of a backup, does not open what it should."""

    code = "custody_share_refused"
    status = 422


class MalformedCustody(ParseError):
    """A file of custody's is not what custody has written."""

    code = "custody_malformed"
