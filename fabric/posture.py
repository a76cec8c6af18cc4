"""Weak settings of a group's policy, each with its fix, in sentences."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.utils import timezone

from attestation.service import Mode, PolicyDocument, controllers, directory_silent, mode_in_force
from ledger.custody import is_secure


@dataclass(frozen=True, slots=True)
class Weakness:
    """What is weaker than it could be, and what to do."""

    what: str
    fix: str


def weak_settings(policy: PolicyDocument | None, *, now: datetime) -> tuple[Weakness, ...]:
    """Return what somebody who reviews this policy should know; without a policy a group trusts nothing."""
    found = []
    if not settings.FOUR_EYES:
        found.append(Weakness("One person alone can change the policy.", "Set GUARDHOUSE_FOUR_EYES to 1."))
    if not is_secure():
        found.append(
            Weakness(
                "This service’s own keys lie in a plain file, so whoever reads it needs no host at all.",
                "Move them with “manage.py custody move” into the node’s TPM, or into a token.",
            )
        )
    mode = mode_in_force()
    if mode != Mode.TPM:
        found.append(
            Weakness(
                f"The fabric is in {Mode(mode).label} mode, so hosts do not have to meet this policy.",
                "Switch to TPM mode when its rehearsal shows that hosts are ready.",
            )
        )
    if mode == Mode.KERBEROS:
        found += _of_kerberos(now=now)
    if policy is None:
        return tuple(found)
    wide = [each for each in policy.exceptions if not each.hosts and each.until > now]
    if wide:
        found.append(
            Weakness(
                f"{len(wide)} exception{'s' if len(wide) != 1 else ''} cover the whole group.",
                "Name the hosts that need them, and let the others meet the policy.",
            )
        )
    if not policy.runtime and not policy.code_policies:
        found.append(
            Weakness(
                "What runs after the boot is not compared.",
                "Name a runtime policy, or on Windows hosts a code integrity policy.",
            )
        )
    if "secure_boot" not in policy.required:
        found.append(Weakness("Secure Boot is not required by itself.", "Require it; a baseline may have it off."))
    if not {"kernel_code_integrity", "kernel_lockdown"} & policy.required:
        found.append(
            Weakness(
                "Nothing asks that the kernel protects its own code.",
                "Require “The kernel’s own code is protected”.",
            )
        )
    return tuple(found)


def _of_kerberos(*, now: datetime) -> Iterator[Weakness]:
    """Return what is weak about who counts as a member of a group of the directory."""
    if not controllers():
        yield Weakness(
            "A host that is taken out of its group of the directory passes until its ticket ends, ten hours at most.",
            "Set GUARDHOUSE_DIRECTORY, so that each attestation asks a domain controller too.",
        )
    elif (silent := directory_silent(now=now)) is not None:
        yield Weakness(
            f"At {timezone.localtime(silent):%H:%M} no domain controller answered, so a host was refused.",
            "The log of the node that it came to says why: the network, the service’s key, or the controllers.",
        )
