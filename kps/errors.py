"""Why key protection refuses. The codes are part of the wire; `fabric/errors.py` alone turns them into HTTP."""

from attestation.errors import AlreadyDecided, FourEyes, NotAllowed, NotFound, ParseError, Refusal

__all__ = ["AlreadyDecided", "FourEyes", "NotAllowed", "NotFound", "ParseError", "Refusal"]


class MalformedDocument(ParseError):
    """A JSON or JOSE document of ours has not the form it must have. The one exception of every `parse_*` in kps."""

    code = "malformed_document"


class MalformedProtector(MalformedDocument):
    code = "malformed_protector"


class MalformedRequest(MalformedDocument):
    """A release request that cannot even be read."""

    code = "malformed_request"


class GuardianRefused(Refusal):
    """Guardian metadata that its own signing key has not signed, or whose fingerprint is not the expected one."""

    code = "guardian_refused"
    status = 422


class ProtectorRefused(Refusal):
    """A key protector that is not what its owner and guardians have signed; the codes below say in which way."""

    code = "protector_refused"
    status = 422


class ProtectorSignature(ProtectorRefused):
    """Something in the chain was altered, or another key than the named one has signed it."""

    code = "protector_signature"


class ProtectorStranger(ProtectorRefused):
    """Somebody whom the owner's chain does not reach has added a guardian, or a grant names a key twice."""

    code = "protector_stranger"


class ProtectorRecipients(ProtectorRefused):
    """The key is wrapped to others than exactly the owner and the guardians of the chain."""

    code = "protector_recipients"


class ProtectorSeal(ProtectorRefused):
    """Chain and wrapped key do not belong together: no seal by the owner or a guardian covers both."""

    code = "protector_seal"


class ProtectorUnopened(ProtectorRefused):
    """The wrapped key does not open with the key of a recipient it names."""

    code = "protector_unopened"


class GuardianNotNamed(Refusal):
    """The owner has not named this fabric as a guardian."""

    code = "guardian_not_named"


class CannotRotate(Refusal):
    """The guardian keys cannot be changed like this now."""

    code = "cannot_rotate"
    status = 409


class GuardianDisabled(Refusal):
    """The owner has named this fabric by keys that its people have disabled, and by no others."""

    code = "guardian_disabled"


class ProtectorDenied(Refusal):
    """A person of this fabric has denied every release under this protector."""

    code = "protector_denied"


class SecretsRefused(Refusal):
    """A VM's sealed secrets do not open under this key, or belong to another protector or another roll."""

    code = "secrets_refused"
    status = 422


class CatalogRefused(Refusal):
    """A volume signature catalog that its signer has not signed."""

    code = "catalog_refused"
    status = 422


class ReleaseRequestRefused(Refusal):
    """The sender has not proved that it holds the certificate; it is not told more."""

    code = "release_request_refused"
    status = 401


class ReleaseStale(ReleaseRequestRefused):
    """The request was made too long ago, or by a clock that is wrong."""

    code = "release_stale"


class ReleaseReplayed(Refusal):
    """This very request was answered before."""

    code = "release_replayed"
    status = 409
