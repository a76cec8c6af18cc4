"""Reads a Windows code integrity policy (WDAC, "SiPolicy"): `.p7b`, `.cip`, `.bin`.

Microsoft documents the XML (cipolicy.xsd) and not the binary form. What is read here is what others found out and
what real files show: a header, a body, and one more block for each version of the format from 3 on, each behind its
number; the number after the last version ends the file. A `.p7b` is that binary itself, unless it is signed: then it
is PKCS#7 SignedData around it. The signature is not checked: it says who may replace the policy, and is not measured.

What Windows measures (SIPAEVENT_SI_POLICY, PCR 13). Certain, from Microsoft: the record holds version, name,
algorithm and digest (wbcl.h), and the signature is not part of what is measured, so that the unsigned copy stands for
both ("Capture TPM-mode information required by HGS"). Certain, from boot logs: the name is the policy's file name, the
version is VersionEx, the algorithm SHA-256. Inferred: the digest is over the whole unsigned binary.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeVar
from uuid import UUID

from attestation.core.ci_binary import Blocks, RawScenario, RawSet, read_blocks
from attestation.core.ci_reader import Indices
from attestation.core.ci_rules import (
    KERNEL,
    LOWEST_VERSION,
    OPTIONS,
    USER,
    FileRule,
    RuleSet,
    Scenario,
    Setting,
    Signer,
    SignerRule,
)
from attestation.core.der import SEQUENCE, read_element, read_elements
from attestation.errors import ParseError, TooLarge

CI_POLICY_LIMIT: Final = 4 << 20

# File names by policy type; SiPolicy.p7b and DriverSiPolicy.p7b are seen in boot logs, the others follow from them.
FILE_NAMES: Final = MappingProxyType(
    {
        UUID("a244370e-44c9-4c06-b551-f6016e563076"): "SiPolicy.p7b",
        UUID("d2bda982-ccf6-4344-ac5b-0b44427b6816"): "DriverSiPolicy.p7b",
        UUID("2a5a0136-f09f-498e-99cc-51099011157c"): "RvkSiPolicy.p7b",
        UUID("976d12c8-cb9f-4730-be52-54600843238e"): "SkuSiPolicy.p7b",
        UUID("5951a96a-e0b5-4d3d-8fb8-3e5b61030784"): "WinSiPolicy.p7b",
        UUID("4e61c68c-97f6-430b-9cd7-9b1004706770"): "ATPSiPolicy.p7b",
    }
)

_OPTION_BITS: Final = 30
_SUPPLEMENTAL: Final = 1 << 30
_DIGESTS: Final = ("sha1", "sha256", "sha384", "sha512")
_SIGNED_DATA: Final = bytes.fromhex("06092a864886f70d010702")
_POLICY_CONTENT: Final = bytes.fromhex("06092b0601040182374f01")
_OCTET_STRING: Final = 0x04
_EXPLICIT: Final = 0xA0

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class CodeIntegrityPolicy:
    """What a policy says. `extras` are the rules of the newest formats, in words; `digests` are those of the binary."""

    format_version: int
    type_id: UUID
    platform_id: UUID
    policy_id: UUID
    base_policy_id: UUID
    version: str
    options: tuple[str, ...]
    ekus: tuple[str, ...]
    file_rules: tuple[FileRule, ...]
    signers: tuple[Signer, ...]
    scenarios: tuple[Scenario, ...]
    update_signers: tuple[Signer, ...]
    ci_signers: tuple[Signer, ...]
    supplemental_signers: tuple[Signer, ...]
    hvci_options: int
    settings: tuple[Setting, ...]
    extras: tuple[str, ...]
    supplemental: bool
    signed: bool
    digests: Mapping[str, str]

    @property
    def name(self) -> str:
        """The name its author gave it, "" for none; the binary form keeps it as a setting."""
        wanted = ("PolicyInfo", "Information", "Name")
        found = (each.value for each in self.settings if (each.provider, each.key, each.name) == wanted)
        value = next(found, "")
        return value if isinstance(value, str) else ""

    @property
    def audits(self) -> bool:
        """True when nothing is blocked: what would be is only written to the event log."""
        return "Enabled:Audit Mode" in self.options

    @property
    def covers_user_mode(self) -> bool:
        return "Enabled:UMCI" in self.options

    @property
    def enforces_user_mode(self) -> bool:
        return self.covers_user_mode and not self.audits

    @property
    def needs_signature(self) -> bool:
        """False when whoever administers the host may replace the policy by another."""
        return "Enabled:Unsigned System Integrity Policy" not in self.options

    @property
    def measured_name(self) -> str | None:
        """The name under which Windows measures it; None for a policy whose file is named after its identifier."""
        return FILE_NAMES.get(self.type_id)

    @property
    def trivial(self) -> tuple[str, ...]:
        """Why this policy allows anything, one sentence for each reason; empty for a policy that leaves something out.

        That a missing scenario leaves its code unchecked is inferred: of one that is there, Microsoft says that it
        denies what no rule in it allows ("Guidance on creating App Control deny policies").
        """
        reasons = []
        for value, code in ((KERNEL, "kernel driver"), (USER, "program")):
            sets = self.rule_sets(value)
            if value == USER and not self.covers_user_mode:
                continue
            if not sets and not self.supplemental:
                reasons.append(f"There is no signing scenario for a {code}, so none is checked.")
            elif any(each.allows_everything for each in sets):
                reasons.append(f"One rule allows every {code} that no other rule denies.")
        return tuple(reasons)

    def rule_sets(self, value: int) -> tuple[RuleSet, ...]:
        """Return the rules in force for one kind of code, those that are inherited included."""
        waiting = [at for at, scenario in enumerate(self.scenarios) if scenario.value == value]
        reached: set[int] = set()
        while waiting:
            at = waiting.pop()
            if at not in reached:
                reached.add(at)
                waiting.extend(self.scenarios[at].inherits)
        return tuple(self.scenarios[at].product for at in sorted(reached))

    def is_measured_as(self, digest: str) -> bool:
        """Say whether a measured digest, in the form "sha256:HEX", is this policy's.

        A SHA-1 digest is nobody's: two policies can be made that share one.
        """
        algorithm, _, value = digest.partition(":")
        return algorithm != "sha1" and self.digests.get(algorithm) == value


def parse_ci_policy(data: bytes) -> CodeIntegrityPolicy:
    """Return what a policy file says, signed or not; a file that is not understood to its last byte is refused."""
    if len(data) > CI_POLICY_LIMIT:
        raise TooLarge(f"The code integrity policy has {len(data)} bytes; {CI_POLICY_LIMIT} is the limit.")
    signed = data.startswith(bytes((SEQUENCE,)))
    binary = _signed_content(data) if signed else data
    digests = {name: hashlib.new(name, binary, usedforsecurity=False).hexdigest() for name in _DIGESTS}
    return _assemble(read_blocks(binary), signed=signed, digests=MappingProxyType(digests))


def _signed_content(data: bytes) -> bytes:
    """Return what PKCS#7 SignedData (RFC 2315, 9.1) is around; only the content type of Windows' policies will do."""
    outer = read_element(data, largest=CI_POLICY_LIMIT)
    if len(outer.raw) != len(data):
        raise ParseError(f"{len(data) - len(outer.raw)} bytes follow the signed code integrity policy.")
    signed_data = _only(_tagged(outer.value, _SIGNED_DATA), SEQUENCE)
    fields = list(read_elements(signed_data, largest=CI_POLICY_LIMIT))
    if len(fields) < 3 or fields[2].tag != SEQUENCE:
        raise ParseError("The signed code integrity policy is no PKCS#7 SignedData.")
    return _only(_tagged(fields[2].value, _POLICY_CONTENT), _OCTET_STRING)


def _tagged(sequence: bytes, kind: bytes) -> bytes:
    """Return the explicitly tagged content behind a content type that has to be `kind` (RFC 2315, 7)."""
    parts = list(read_elements(sequence, largest=CI_POLICY_LIMIT))
    if len(parts) != 2 or parts[0].raw != kind or parts[1].tag != _EXPLICIT:
        raise ParseError("The signed file does not hold a code integrity policy (1.3.6.1.4.1.311.79.1).")
    return parts[1].value


def _only(content: bytes, tag: int) -> bytes:
    parts = list(read_elements(content, largest=CI_POLICY_LIMIT))
    if len(parts) != 1 or parts[0].tag != tag:
        raise ParseError("The signed code integrity policy is wrapped in another way than Windows wraps one.")
    return parts[0].value


def _assemble(blocks: Blocks, *, signed: bool, digests: Mapping[str, str]) -> CodeIntegrityPolicy:
    rules = _file_rules(blocks)
    signers = _signers(blocks, rules)
    for scenario in blocks.scenarios:
        _pick(blocks.scenarios, scenario.inherits, "scenario")
    return CodeIntegrityPolicy(
        format_version=blocks.format_version,
        type_id=blocks.type_id,
        platform_id=blocks.platform_id,
        policy_id=blocks.policy_id or blocks.type_id,
        base_policy_id=blocks.base_policy_id or blocks.type_id,
        version=blocks.version,
        options=_options(blocks.flags),
        ekus=blocks.ekus,
        file_rules=rules,
        signers=signers,
        scenarios=tuple(_scenario(each, signers, rules) for each in blocks.scenarios),
        update_signers=_pick(signers, blocks.update_signers, "signer"),
        ci_signers=_pick(signers, blocks.ci_signers, "signer"),
        supplemental_signers=_pick(signers, blocks.supplemental_signers, "signer"),
        hvci_options=blocks.hvci_options,
        settings=blocks.settings + blocks.app_settings,
        extras=blocks.extras,
        supplemental=bool(blocks.flags & _SUPPLEMENTAL) or blocks.policy_id != blocks.base_policy_id,
        signed=signed,
        digests=digests,
    )


def _options(flags: int) -> tuple[str, ...]:
    """Name the rule options; one that has no name here is told by its bit, not left out."""
    bits = [1 << at for at in range(_OPTION_BITS) if flags >> at & 1]
    return tuple(OPTIONS.get(bit, f"Unknown option {bit:#x}") for bit in bits)


def _file_rules(blocks: Blocks) -> tuple[FileRule, ...]:
    """Join what the blocks say of each rule; formats before a block know nothing of it."""
    count = len(blocks.rules)
    columns = zip(
        blocks.rules,
        blocks.maxima or ((LOWEST_VERSION, ()),) * count,
        blocks.descriptions or (("", "", ""),) * count,
        blocks.packages or (("", LOWEST_VERSION),) * count,
        blocks.paths or ("",) * count,
        strict=True,
    )
    return tuple(
        FileRule(effect, name, minimum, maximum, digest, app_ids, *description, *package, path)
        for (effect, name, minimum, digest), (maximum, app_ids), description, package, path in columns
    )


def _signers(blocks: Blocks, rules: tuple[FileRule, ...]) -> tuple[Signer, ...]:
    excepted: defaultdict[int, list[str]] = defaultdict(list)
    for at, indices in blocks.except_ekus:
        _pick(blocks.signers, (at,), "signer")
        excepted[at].extend(_pick(blocks.ekus, indices, "EKU"))
    times = blocks.signed_after or (0,) * len(blocks.signers)
    return tuple(
        Signer(
            root=raw.root,
            well_known=raw.well_known,
            ekus=_pick(blocks.ekus, raw.ekus, "EKU"),
            except_ekus=tuple(excepted[at]),
            issuer=raw.issuer,
            publisher=raw.publisher,
            oem_id=raw.oem_id,
            files=_pick(rules, raw.files, "file rule"),
            signed_after=signed_after,
        )
        for at, (raw, signed_after) in enumerate(zip(blocks.signers, times, strict=True))
    )


def _scenario(raw: RawScenario, signers: tuple[Signer, ...], rules: tuple[FileRule, ...]) -> Scenario:
    product, test, test_signing = (
        _rule_set(each, signers, rules) for each in (raw.product, raw.test, raw.test_signing)
    )
    return Scenario(raw.value, product, test, test_signing, raw.inherits, raw.minimum_hash)


def _rule_set(raw: RawSet, signers: tuple[Signer, ...], rules: tuple[FileRule, ...]) -> RuleSet:
    def used(references: tuple[tuple[int, Indices], ...]) -> tuple[SignerRule, ...]:
        named = _pick(signers, tuple(at for at, _ in references), "signer")
        exceptions = (_pick(rules, but, "file rule") for _, but in references)
        return tuple(map(SignerRule, named, exceptions))

    return RuleSet(used(raw.allowed), used(raw.denied), _pick(rules, raw.files, "file rule"))


def _pick(items: Sequence[_Item], indices: Indices, what: str) -> tuple[_Item, ...]:
    if indices and max(indices) >= len(items):
        raise ParseError(f"The code integrity policy refers to {what} {max(indices)} of {len(items)}.")
    return tuple(items[at] for at in indices)
