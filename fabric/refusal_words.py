"""What a refused release means for the VM's owner, and what can be done: by its code, beside the reason in the row."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class RefusalWords:
    """What is the case, and what its owner does about it; `theirs` when that is for the fabric's people to do."""

    what: str
    remedy: str
    theirs: bool = False


_HOST: Final = RefusalWords(
    "The host had not proved enough",
    "Nothing is to be done here. The fabric’s people see why; the VM starts on any host that passes.",
    theirs=True,
)
_CERTIFICATE: Final = RefusalWords(
    "The host’s certificate does not count any more",
    "Nothing is to be done here. The host attests again and gets a new one.",
    theirs=True,
)
_FORGED: Final = RefusalWords(
    "The key protector is not what you and your guardians have signed",
    "Compare it with your own copy. Whoever has the VM’s files has changed them, or one is damaged.",
)
_POLICY: Final = RefusalWords(
    "Your release policy does not allow it",
    "Start it where and when the policy allows, or sign another one: “guardhouse tenant policy”.",
)
_STALE: Final = RefusalWords(
    "The host’s clock, or its request, is of another time",
    "Nothing is to be done here. The host sets its clock and asks anew.",
    theirs=True,
)

_WORDS: Final[Mapping[str, RefusalWords]] = {
    "guardian_not_named": RefusalWords(
        "You have not named this fabric",
        "If it shall run there, sign a statement that names it: “guardhouse tenant grant”.",
    ),
    "guardian_revoked": RefusalWords(
        "You have taken this VM from this fabric",
        "Find out who still tries to start it there. To allow it again: “guardhouse tenant grant”.",
    ),
    "link_forged": RefusalWords(
        "Somebody else has signed with this fabric’s keys",
        "Tell the fabric’s people: the keys named beside may be stolen. Start the VM from your own copy meanwhile, or"
        " grant the fabric anew by the keys in use: “guardhouse tenant grant”.",
    ),
    "guardian_disabled": RefusalWords(
        "You have named this fabric by keys that it has disabled",
        "Name the keys in use: “guardhouse tenant grant”.",
    ),
    "protector_not_rewrapped": RefusalWords(
        "You have named this fabric, and the key is not wrapped for it yet",
        "Start the VM once where it ran before, or wrap the key again: “guardhouse tenant grant”.",
    ),
    "protector_denied": RefusalWords(
        "The fabric’s people have denied this key",
        "Ask them; the VM’s page says who, and why.",
    ),
    "protector_denied_by_owner": RefusalWords(
        "Your own people have denied this key",
        "Find out who still tries to start the VM. An owner can allow it again on the VM’s page.",
    ),
    "approval_required": RefusalWords(
        "It waits for your yes", "Approve or decline it; a host that gives up is off the list after a day."
    ),
    "too_many_hosts": RefusalWords(
        "Another host still holds the key",
        "Stop the VM there, or wait until that host’s certificate lapses.",
    ),
    **dict.fromkeys(
        (
            *("host_group_not_allowed", "mode_too_weak", "release_too_early", "release_too_late", "outside_hours"),
            "release_policy_refused",
        ),
        _POLICY,
    ),
    **dict.fromkeys(("host_not_approved", "host_failing", "policy_changed", "mode_changed", "group_withdrawn"), _HOST),
    **dict.fromkeys(
        (
            *("certificate_refused", "certificate_unknown", "certificate_expired", "certificate_revoked"),
            "certificate_denied_before",
        ),
        _CERTIFICATE,
    ),
    **dict.fromkeys(
        (
            *("malformed_protector", "protector_refused", "protector_signature", "protector_stranger"),
            *("protector_recipients", "protector_seal", "protector_unopened", "succession_not_allowed"),
        ),
        _FORGED,
    ),
    **dict.fromkeys(("release_stale", "release_request_refused"), _STALE),
}
_OTHER: Final = RefusalWords("It was refused", "The reason beside it says what is the case.")


def words_for(code: str) -> RefusalWords:
    return _WORDS.get(code, _OTHER)
