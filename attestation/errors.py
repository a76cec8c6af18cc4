"""Why attestation refuses. Every refusal has a stable code; `fabric/errors.py` alone turns it into HTTP."""

from ledger.errors import NotFound, ParseError, Refusal

__all__ = ["NotFound", "ParseError", "Refusal"]


class TooLarge(ParseError):
    """A structure is larger than its bound."""

    code = "too_large"
    status = 413


class VerificationError(Refusal):
    """Evidence is not authentic; the codes of the classes below say in which way."""

    code = "evidence_refused"
    status = 422


class BadSignature(VerificationError):
    code = "bad_signature"


class WrongNonce(VerificationError):
    code = "wrong_nonce"


class NotFromTpm(VerificationError):
    """TPMS_ATTEST does not carry TPM_GENERATED_VALUE or is of another type than asked for."""

    code = "not_from_tpm"


class WrongSelection(VerificationError):
    """The quote covers other PCRs, or another bank, than the challenge named."""

    code = "wrong_pcr_selection"


class WrongPcrDigest(VerificationError):
    """The PCR values that were sent are not the ones the TPM signed."""

    code = "wrong_pcr_digest"


class ReplayMismatch(VerificationError):
    """The event log does not replay to the quoted PCR values."""

    code = "log_replay_mismatch"


class ImaMismatch(VerificationError):
    """No prefix of the IMA list replays to the quoted PCR 10."""

    code = "ima_replay_mismatch"


class UnacceptableKey(VerificationError):
    """A TPM key lacks the attributes, scheme or strength that its role needs."""

    code = "unacceptable_key"


class AkNotRestricted(UnacceptableKey):
    code = "ak_not_restricted"


class TransportKeyNotCertified(VerificationError):
    code = "transport_key_not_certified"


class TransportKeyNotBound(VerificationError):
    """The transport key's policy is not PolicyPCR over the quoted boot PCRs."""

    code = "transport_key_not_bound"


class EndorsementRefused(VerificationError):
    """The EK certificate does not hold: `code` stays, the sentence says which check failed."""

    code = "ek_certificate_refused"


class EndorsementMismatch(EndorsementRefused):
    """The EK certificate belongs to another TPM."""

    code = "ek_certificate_mismatch"


class EndorsementUntrusted(EndorsementRefused):
    """No chain leads to a maker that this fabric trusts: the host may enrol, and waits until somebody decides."""

    code = "ek_issuer_untrusted"


class EndorsementNotTolerated(EndorsementUntrusted):
    """A certificate of the chain is malformed in a way that nobody has allowed its maker; somebody still may."""

    code = "ek_malformation_not_tolerated"


class EventLogNeeded(VerificationError):
    """The challenge asked for the event log and none came, or the stored one is not the one announced."""

    code = "event_log_needed"


class ImaListNeeded(VerificationError):
    """The part of the IMA list that was asked for does not go on from what is known any more: start a new challenge."""

    code = "ima_list_needed"


class WrongMode(VerificationError):
    """Evidence of another mode than the one that the host is known by."""

    code = "wrong_mode"


class ChallengeSpent(Refusal):
    """Unknown, expired or used: the caller is not told which."""

    code = "challenge_spent"
    status = 409


class IdentityKnown(Refusal):
    """This TPM is enrolled already, under another name."""

    code = "identity_known"
    status = 409


class UnknownAttester(Refusal):
    code = "unauthorized_host"
    status = 403


class ActivationRefused(Refusal):
    code = "activation_refused"
    status = 403


class NotAllowed(Refusal):
    """A person may not do this: wrong role, or four eyes are needed."""

    code = "not_allowed"
    status = 403


class FourEyes(NotAllowed):
    code = "four_eyes"


class AlreadyDecided(Refusal):
    code = "already_decided"
    status = 409


class DraftMoved(Refusal):
    """A draft, or the policy that it starts from, was changed meanwhile."""

    code = "draft_moved"
    status = 409


class ChangeGone(Refusal):
    """What was to be accepted is not what hosts show any more."""

    code = "change_gone"
    status = 410


class CannotSwitch(Refusal):
    """The attestation mode cannot be switched like this now."""

    code = "cannot_switch"
    status = 409


class CannotApprove(Refusal):
    """The thing cannot be approved as it stands; the sentence says what is missing."""

    code = "cannot_approve"
    status = 409


class CertificateRefused(Refusal):
    """A health certificate does not entitle its holder to a key."""

    code = "certificate_refused"


class CertificateUnknown(CertificateRefused):
    code = "certificate_unknown"


class CertificateExpired(CertificateRefused):
    code = "certificate_expired"


class CertificateRevoked(CertificateRefused):
    code = "certificate_revoked"


class HostNotApproved(CertificateRefused):
    code = "host_not_approved"


class HostFailing(CertificateRefused):
    """The host's newest attestation failed, so an older certificate of it counts no more."""

    code = "host_failing"


class DeniedBefore(CertificateRefused):
    """The fabric denies every certificate that was issued before a moment, and this one was."""

    code = "certificate_denied_before"


class ReleasesStopped(CertificateRefused):
    """People have stopped releases to this host, to its group, or to all; attesting again does not help."""

    code = "releases_stopped"


class CannotStop(Refusal):
    """This cannot be stopped, or lifted, as things stand."""

    code = "cannot_stop"
    status = 409


class PolicyChanged(CertificateRefused):
    """What the host had proved is no longer enough under the policy now in force."""

    code = "policy_changed"


class ModeChanged(CertificateRefused):
    code = "mode_changed"


class GroupWithdrawn(CertificateRefused):
    """The group of the directory that the host had passed by is not accepted any more."""

    code = "group_withdrawn"


class TicketRefused(Refusal):
    """No Kerberos ticket came, or none that can be accepted: spent, expired, for another service, from another time."""

    code = "ticket_refused"
    status = 401
    scheme = "Negotiate"


class TicketNotBound(TicketRefused):
    """The ticket is good, but nothing says that it was sent with this request."""

    code = "ticket_not_bound"


class ForeignRealm(Refusal):
    code = "foreign_realm"


class GroupsNotProven(Refusal):
    """The ticket has no PAC, or none whose checksum holds, so no group of its account is known."""

    code = "groups_not_proven"


class NotAMachine(Refusal):
    """The ticket is good and its groups are proved, but it is a person's, or a service's."""

    code = "not_a_machine"


class TicketDelegated(Refusal):
    """The ticket names a host, but a service sent it that the domain lets act for others."""

    code = "ticket_delegated"


class KerberosNotSetUp(Refusal):
    """This node has no keytab, or none with a key for its service."""

    code = "kerberos_not_set_up"
    status = 503


class DirectoryUnavailable(Refusal):
    """No domain controller has said whether the account is still in its group, so nothing is decided."""

    code = "directory_unavailable"
    status = 503


class NotKept(Refusal):
    """What a verdict rested on is not there any more, or never was kept, so nobody can come to it again."""

    code = "not_kept"
    status = 404
