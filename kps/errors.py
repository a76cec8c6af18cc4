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


class SuccessionNotAllowed(ProtectorRefused):
    """A guardian has named new keys of its own, and the owner's policy has not allowed that beforehand."""

    code = "succession_not_allowed"


class LinkForged(ProtectorRefused):
    """A link of the chain holds under keys of this fabric, and this fabric did not sign it: somebody has the keys."""

    code = "link_forged"


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


class GuardianRevoked(Refusal):
    """The owner had named this fabric, and has signed a newer chain that does not."""

    code = "guardian_revoked"


class ProtectorNotRewrapped(Refusal):
    """The newest chain names this fabric, and the key was last wrapped when none did."""

    code = "protector_not_rewrapped"


class ChainUnknown(Refusal):
    """An owner's chain for a key protector that this fabric has never seen."""

    code = "chain_unknown"
    status = 404


class ChainNotNewer(Refusal):
    """The owner has signed this chain, or a newer one, before."""

    code = "chain_not_newer"
    status = 409


class ReleasePolicyRefused(Refusal):
    """The owner's release policy does not allow this release; the codes below say why."""

    code = "release_policy_refused"


class HostGroupNotAllowed(ReleasePolicyRefused):
    code = "host_group_not_allowed"


class ModeTooWeak(ReleasePolicyRefused):
    code = "mode_too_weak"


class ReleaseTooEarly(ReleasePolicyRefused):
    code = "release_too_early"


class ReleaseTooLate(ReleasePolicyRefused):
    code = "release_too_late"


class OutsideHours(ReleasePolicyRefused):
    code = "outside_hours"


class TooManyHosts(ReleasePolicyRefused):
    code = "too_many_hosts"


class ApprovalRequired(ReleasePolicyRefused):
    """The owner has to approve this release first; asking has put it on the owner's list."""

    code = "approval_required"


class ProtectorDenied(Refusal):
    """A person of this fabric has denied every release under this protector."""

    code = "protector_denied"


class DeniedByOwner(Refusal):
    """A person of the owner's has denied, in the portal, every release under this protector."""

    code = "protector_denied_by_owner"


class DenialUnchanged(Refusal):
    """This protector is denied already, or not at all."""

    code = "denial_unchanged"
    status = 409


class OwnerMessageRefused(Refusal):
    """A message that claims to be an owner's, and is not signed with its key; or the owner has no such protector."""

    code = "owner_message_refused"
    status = 401


class OwnerMessageStale(OwnerMessageRefused):
    code = "owner_message_stale"


class ApprovalUnknown(Refusal):
    """No release waits for this approval: decided already, lapsed, or never asked for."""

    code = "approval_unknown"
    status = 409


class ApprovalNeedsKey(Refusal):
    """The owner's policy asks for an approval with the owner's key; a click in the portal is none."""

    code = "approval_needs_key"


class SecretsRefused(Refusal):
    """A VM's sealed secrets do not open under this key, or belong to another protector or another roll."""

    code = "secrets_refused"
    status = 422


class MalformedShieldingData(MalformedDocument):
    code = "malformed_shielding_data"


class ShieldingDataRefused(Refusal):
    """A shielding data file that is not as its owner has signed it."""

    code = "shielding_data_refused"
    status = 422


class TemplateNotAllowed(ShieldingDataRefused):
    """The owner of the shielding data has not named this template disk."""

    code = "template_not_allowed"


class SubstitutionRefused(ShieldingDataRefused):
    """A value that shielding data asks for is missing, or is not of its kind."""

    code = "substitution_refused"


class CatalogRefused(Refusal):
    """A volume signature catalog that its signer has not signed."""

    code = "catalog_refused"
    status = 422


class OfflineUnknown(Refusal):
    """A host gives an account of a key that it was not released."""

    code = "offline_unknown"
    status = 404


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
