"""The parts a code integrity policy is made of: file rules, signers, and the scenarios that put them to use.

Names are those of Microsoft's schema (cipolicy.xsd, urn:schemas-microsoft-com:sipolicy). The binary form keeps neither
the identifiers nor the friendly names of the XML it was made from, so a rule is known by what it matches.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, TypeVar

KERNEL: Final = 131
"""The signing scenario of kernel drivers."""
USER: Final = 12
"""The signing scenario of programs in user mode."""

LOWEST_VERSION: Final = "0.0.0.0"  # noqa: S104 - a file version, not an address
HIGHEST_VERSION: Final = "65535.65535.65535.65535"

OPTIONS: Final = MappingProxyType(
    {
        1 << 2: "Enabled:UMCI",
        1 << 3: "Enabled:Boot Menu Protection",
        1 << 4: "Enabled:Intelligent Security Graph Authorization",
        1 << 5: "Enabled:Invalidate EAs on Reboot",
        1 << 6: "Enabled:Windows Lockdown Trial Mode",
        1 << 7: "Required:WHQL",
        1 << 8: "Enabled:Developer Mode Dynamic Code Trust",
        1 << 10: "Enabled:Allow Supplemental Policies",
        1 << 11: "Disabled:Runtime FilePath Rule Protection",
        1 << 13: "Enabled:Revoked Expired As Unsigned",
        1 << 16: "Enabled:Audit Mode",
        1 << 17: "Disabled:Flight Signing",
        1 << 18: "Enabled:Inherit Default Policy",
        1 << 19: "Enabled:Unsigned System Integrity Policy",
        1 << 20: "Enabled:Dynamic Code Security",
        1 << 21: "Required:EV Signers",
        1 << 22: "Enabled:Boot Audit On Failure",
        1 << 23: "Enabled:Advanced Boot Options Menu",
        1 << 24: "Disabled:Script Enforcement",
        1 << 25: "Required:Enforce Store Applications",
        1 << 26: "Enabled:Secure Setting Policy",
        1 << 27: "Enabled:Managed Installer",
        1 << 28: "Enabled:Update Policy No Reboot",
        1 << 29: "Enabled:Conditional Windows Lockdown Policy",
    }
)

WELL_KNOWN_ROOTS: Final = MappingProxyType(
    {
        0: "no root",
        1: "any unknown root",
        2: "any self-signed certificate",
        3: "Microsoft Authenticode Root Authority",
        4: "Microsoft Root Authority 1997",
        5: "Microsoft Root Certificate Authority 2001",
        6: "Microsoft Root Certificate Authority 2010",
        7: "Microsoft Root Certificate Authority 2011",
        8: "Microsoft Code Verification Root",
        9: "Microsoft Test Root Authority 1999",
        10: "Microsoft Testing Root Certificate Authority 2010",
        11: "Microsoft Protected Media Test Root",
        12: "Microsoft Digital Media Authority 2005",
        13: "Microsoft Digital Media Authority 2005 for preview releases",
        14: "Microsoft Development Root Certificate Authority 2014",
        15: "Microsoft Third Party Marketplace Root",
        16: "Microsoft ECC Testing Root Certificate Authority 2017",
        17: "Microsoft ECC Development Root Certificate Authority 2018",
        18: "Microsoft ECC Product Root Certificate Authority 2018",
        19: "Microsoft ECC Devices Root Certificate Authority 2017",
        20: "any root of Microsoft’s public root programme",
        21: "Microsoft OEM Root Certificate Authority 2017",
        22: "Microsoft Identity Verification Root Certificate Authority 2020",
    }
)
ROOTS_OF_ANYBODY: Final = frozenset({0, 1, 2})
"""Roots under which anybody can make a certificate. Their meaning is what others found out, not documented."""

Effect = Literal["allow", "deny", "attribute"]

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class FileRule:
    """What a file must be to match. All that is given must hold; an `attribute` only narrows a signer.

    Everything but `hash` and `path` is what a file says of itself in its version resource.
    """

    effect: Effect
    file_name: str = ""
    minimum_version: str = LOWEST_VERSION
    maximum_version: str = LOWEST_VERSION
    hash: bytes = b""
    app_ids: tuple[str, ...] = ()
    internal_name: str = ""
    description: str = ""
    product: str = ""
    package: str = ""
    package_version: str = LOWEST_VERSION
    path: str = ""

    @property
    def matches_everything(self) -> bool:
        """True when no file is left out: every name is a wildcard, and there is neither hash nor application.

        A range of versions does not count: a file chooses the version that it states.
        """
        names = (self.file_name, self.internal_name, self.description, self.product, self.package, self.path)
        given = [name for name in names if name]
        return bool(given) and not self.hash and not self.app_ids and all(_is_wildcard(name) for name in given)


@dataclass(frozen=True, slots=True)
class Signer:
    """Whose signatures count: a certificate by the hash of its signed part, or a root by its number, and conditions."""

    root: bytes = b""
    well_known: int | None = None
    ekus: tuple[str, ...] = ()
    except_ekus: tuple[str, ...] = ()
    issuer: str = ""
    publisher: str = ""
    oem_id: str = ""
    files: tuple[FileRule, ...] = ()
    signed_after: int = 0
    """Windows' file time (100 ns since 1601), 0 for no condition."""

    @property
    def matches_everything(self) -> bool:
        """True when anybody may make a certificate that this rule takes, for any file."""
        conditions = (self.ekus, self.except_ekus, self.issuer, self.publisher, self.oem_id)
        return (
            self.well_known in ROOTS_OF_ANYBODY
            and not any(conditions)
            and (not self.files or any(rule.matches_everything for rule in distinct(self.files)))
        )


@dataclass(frozen=True, slots=True)
class SignerRule:
    """A signer in use; for the files in `exceptions` the opposite holds."""

    signer: Signer
    exceptions: tuple[FileRule, ...] = ()


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Signers that are allowed, signers that are denied, and file rules, each of which says itself what it does."""

    allowed: tuple[SignerRule, ...] = ()
    denied: tuple[SignerRule, ...] = ()
    files: tuple[FileRule, ...] = ()

    @property
    def allows_everything(self) -> bool:
        by_file = any(rule.effect == "allow" and rule.matches_everything for rule in distinct(self.files))
        signers = distinct(rule.signer for rule in self.allowed)
        return by_file or any(signer.matches_everything for signer in signers)


@dataclass(frozen=True, slots=True)
class Scenario:
    """The rules for one kind of code. The two test sets hold only while the host boots with test signing on.

    `inherits` are places in the policy's list of scenarios; `minimum_hash` is a CryptoAPI number (0x800C: SHA-256).
    """

    value: int
    product: RuleSet
    test: RuleSet
    test_signing: RuleSet
    inherits: tuple[int, ...] = ()
    minimum_hash: int = 0x800C


@dataclass(frozen=True, slots=True)
class Setting:
    """A value that Windows hands to another of its parts, or to an application, while the policy is in force."""

    provider: str
    key: str
    name: str
    value: bool | int | str | bytes


def distinct(items: Iterable[_Item]) -> Iterable[_Item]:
    """Return each object once, in its order: a policy may refer to one long rule as often as it likes."""
    return {id(item): item for item in items}.values()


def _is_wildcard(name: str) -> bool:
    """A `*` stands for any text and a `?` for any letter; drive and separators alone leave nothing out."""
    return "*" in name and not name.strip("*?.:\\")
