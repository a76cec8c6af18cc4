"""What the agent tells its operator when it cannot go on: one sentence each, and never a secret."""


class AgentError(Exception):
    """The agent cannot do what was asked; the message is a sentence for the operator of the host."""


class TpmFailure(AgentError):
    """The TPM is absent, answers with an error, or is not in the state that a key is bound to."""


class LibraryMissing(AgentError):
    """What one mode alone needs is not installed on this host; `reason` and `remedy` are a sentence each."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason} {remedy}")
        self.reason = reason
        self.remedy = remedy


class StoreDamaged(AgentError):
    """The state folder lacks something that only a new enrolment can make."""


class VmFailure(AgentError):
    """A virtual machine cannot be started, stopped or read."""


class ImageFailure(AgentError):
    """A disk image cannot be read or made."""


class Unreachable(AgentError):
    """The portal cannot be reached, or is not itself at the moment: try again later."""


class Refused(AgentError):
    """The portal understood and said no. `code` is stable, `detail` is a sentence."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{detail} ({code})")
        self.code = code
        self.detail = detail


class Unproven(AgentError):
    """Whoever answers does not hold the key of the portal's Kerberos service, so what is said there counts nothing."""
