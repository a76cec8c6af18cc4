"""Says in words for people what a code integrity policy does.

Sentences are few and short whatever the policy holds; names in it are cut where they are long.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from attestation.core.ci_policy import CodeIntegrityPolicy
from attestation.core.ci_rules import (
    HIGHEST_VERSION,
    KERNEL,
    LOWEST_VERSION,
    USER,
    WELL_KNOWN_ROOTS,
    FileRule,
    RuleSet,
    Signer,
    SignerRule,
    distinct,
)

_CODE: Final = {KERNEL: "kernel drivers", USER: "programs"}
_PURPOSES: Final = {
    "1.3.6.1.4.1.311.10.3.5": "Windows hardware drivers (WHQL)",
    "1.3.6.1.4.1.311.10.3.6": "Windows system components",
    "1.3.6.1.4.1.311.10.3.21": "Windows RT components",
    "1.3.6.1.4.1.311.10.3.42": "enclaves",
    "1.3.6.1.4.1.311.61.4.1": "early launch antimalware drivers",
    "1.3.6.1.4.1.311.61.5.1": "hardware abstraction layer extensions",
    "1.3.6.1.4.1.311.76.3.1": "the Windows store",
    "1.3.6.1.4.1.311.76.5.1": "dynamic code generation",
    "1.3.6.1.4.1.311.76.11.1": "antimalware services",
    "1.3.6.1.5.5.7.3.3": "code signing",
}
_OPTION_SENTENCES: Final = {
    "Enabled:Unsigned System Integrity Policy": "It need not be signed: who administers the host may replace it.",
    "Enabled:Allow Supplemental Policies": "Supplemental policies may allow more.",
    "Enabled:Boot Audit On Failure": "When a blocked driver stops the boot, the host goes on and only audits.",
    "Enabled:Managed Installer": "Programs that a managed installer put there are allowed as well.",
    "Enabled:Intelligent Security Graph Authorization": "Programs of good repute with Microsoft are allowed as well.",
    "Enabled:Dynamic Code Security": ".NET code made at run time is checked as well.",
    "Enabled:Revoked Expired As Unsigned": "Files whose certificate is revoked or has expired count as unsigned.",
    "Required:WHQL": "Drivers also need Microsoft’s hardware certification (WHQL).",
    "Required:EV Signers": "Drivers also need the signature of a maker with an extended validation certificate.",
    "Disabled:Script Enforcement": "Scripts are not checked.",
    "Disabled:Runtime FilePath Rule Protection": "Path rules count also where users may write.",
    "Disabled:Flight Signing": "Windows previews are not trusted.",
}
_HVCI: Final = {1: "enabled", 2: "enabled, strictly", 4: "in debug mode", 8: "enabled, may be disabled"}
_SIGNERS_TOLD: Final = 24
_FILES_TOLD: Final = 3
_PURPOSES_TOLD: Final = 12
_LONGEST: Final = 120
_FILE_TIME_START: Final = datetime(1601, 1, 1, tzinfo=UTC)


def describe_ci_policy(policy: CodeIntegrityPolicy) -> tuple[str, ...]:
    """Return what the policy does, the weightiest first; at most about a hundred sentences."""
    return tuple(_sentences(policy))


def code_words(value: int) -> str:
    """Name the code that a signing scenario is for."""
    return _CODE.get(value, f"code of signing scenario {value}")


def signer_words(signer: Signer) -> str:
    """Return whose signatures count, and under which conditions."""
    parts = [f"signed under {_root_words(signer)}"]
    if signer.ekus:
        parts.append(f"for {_purposes(signer.ekus)}")
    if signer.except_ekus:
        parts.append(f"not for {_purposes(signer.except_ekus)}")
    if signer.issuer:
        parts.append(f"issued by “{_clip(signer.issuer)}”")
    if signer.publisher:
        parts.append(f"published by “{_clip(signer.publisher)}”")
    if signer.oem_id:
        parts.append(f"of the OEM “{_clip(signer.oem_id)}”")
    if signer.signed_after:
        parts.append(f"signed after {_day(signer.signed_after)}")
    if signer.files:
        parts.append(f"only {file_list(signer.files)}")
    return ", ".join(parts)


def file_words(rule: FileRule) -> str:
    """Return which files a rule matches."""
    if rule.hash:
        return f"the file with hash {_hex(rule.hash)}"
    named = (
        ("file name", rule.file_name),
        ("internal name", rule.internal_name),
        ("description", rule.description),
        ("product", rule.product),
        ("package", rule.package),
        ("path", rule.path),
    )
    parts = [f"{what} “{_clip(name)}”" for what, name in named if name]
    if rule.package_version != LOWEST_VERSION:
        parts.append(f"package version {rule.package_version}")
    parts.extend(_versions(rule))
    if rule.app_ids:
        parts.append(f"loaded by “{_clip(''.join(map(_clip, rule.app_ids[:_FILES_TOLD])))}”")
    return ", ".join(parts) or "a file of which nothing is said"


def file_list(rules: Sequence[FileRule]) -> str:
    """Return the first few of the rules in words, and how many more there are."""
    told = [file_words(rule) for rule in rules[:_FILES_TOLD]]
    more = len(rules) - _FILES_TOLD
    return "; ".join([*told, f"{more} more"] if more > 0 else told)


def _sentences(policy: CodeIntegrityPolicy) -> Iterator[str]:
    if policy.audits:
        yield "Audits only: nothing is blocked, what would be is written to the event log."
    else:
        yield "Enforces: what no rule allows is blocked."
    if policy.supplemental:
        yield f"It adds to the policy {policy.base_policy_id} and does nothing without it."
    yield from policy.trivial
    for value, code in _CODE.items():
        if value == USER and not policy.covers_user_mode:
            yield "Programs in user mode are not covered."
        else:
            yield from _code_sentences(policy.rule_sets(value), code)
    yield from (sentence for option, sentence in _OPTION_SENTENCES.items() if option in policy.options)
    if policy.needs_signature:
        count = len(policy.update_signers)
        who = "its one signer" if count == 1 else f"one of {count} signers"
        yield f"Only a policy that {who} has signed may replace it."
    if policy.hvci_options:
        yield f"Hypervisor-enforced code integrity: {_HVCI.get(policy.hvci_options, hex(policy.hvci_options))}."
    if policy.signed:
        yield "The file is signed; the signature is not checked here, and hosts do not measure it."
    if policy.extras:
        yield f"It has {len(policy.extras)} rules of newer kinds, which are listed and not judged."


def _code_sentences(sets: Sequence[RuleSet], code: str) -> Iterator[str]:
    allowed = [rule for each in sets for rule in each.allowed]
    denied = [rule for each in sets for rule in each.denied]
    files = [rule for each in sets for rule in each.files]
    if sets and not allowed and not any(rule.effect == "allow" for rule in files):
        yield f"Allows no {code}."
    yield from _signer_sentences(f"Allows {code}", allowed)
    yield from _count_sentence(f"Allows {code}", [rule for rule in files if rule.effect == "allow"])
    yield from _signer_sentences(f"Denies {code}", denied)
    yield from _count_sentence(f"Denies {code}", [rule for rule in files if rule.effect == "deny"])


def _signer_sentences(start: str, rules: Sequence[SignerRule]) -> Iterator[str]:
    """One sentence for each signer; those that differ in the purpose of the certificate only share one."""
    purposes: dict[str, list[str]] = {}
    for rule in rules[: 2 * _SIGNERS_TOLD]:
        words, purpose = _apart(rule)
        purposes.setdefault(words, []).append(purpose)
    for words, named in list(purposes.items())[:_SIGNERS_TOLD]:
        distinct = list(dict.fromkeys(named))
        yield f"{start} {words}, for {_or(distinct)}." if all(distinct) else f"{start} {words}."
    told = sum(len(named) for named in list(purposes.values())[:_SIGNERS_TOLD])
    if len(rules) > told:
        yield f"{start} of {len(rules) - told} signers more."


def _apart(rule: SignerRule) -> tuple[str, str]:
    """Return the words for a signer in use without its purpose, and the purpose."""
    signer = rule.signer
    if rule.exceptions:
        return f"{signer_words(signer)}, except {file_list(rule.exceptions)}", ""
    plain = Signer(root=signer.root, well_known=signer.well_known)
    if signer == Signer(root=signer.root, well_known=signer.well_known, ekus=signer.ekus):
        return signer_words(plain), _purposes(signer.ekus)
    return signer_words(signer), ""


def _count_sentence(start: str, rules: Sequence[FileRule]) -> Iterator[str]:
    uses = Counter(map(id, rules))
    ways: Counter[str] = Counter()
    for rule in distinct(rules):
        ways[_way(rule)] += uses[id(rule)]
    if ways:
        yield f"{start} by file rules: {', '.join(f'{count} by {way}' for way, count in sorted(ways.items()))}."


def _way(rule: FileRule) -> str:
    if rule.hash:
        return "hash"
    if rule.matches_everything:
        return "wildcard"
    return "path" if rule.path else "package" if rule.package else "what the file says of itself"


def _versions(rule: FileRule) -> Iterator[str]:
    """A deny rule without a highest version denies what is below its lowest: Microsoft's own deny lists use it so."""
    if rule.effect == "deny" and rule.maximum_version == LOWEST_VERSION:
        if rule.minimum_version not in (LOWEST_VERSION, HIGHEST_VERSION):
            yield f"below version {rule.minimum_version}"
        return
    if rule.minimum_version != LOWEST_VERSION:
        yield f"from version {rule.minimum_version}"
    if rule.maximum_version not in (LOWEST_VERSION, HIGHEST_VERSION):
        yield f"up to version {rule.maximum_version}"


def _root_words(signer: Signer) -> str:
    if signer.well_known is not None:
        return WELL_KNOWN_ROOTS.get(signer.well_known, f"well-known root {signer.well_known}")
    return f"the certificate whose signed part has the hash {_hex(signer.root)}"


def _purposes(ekus: Sequence[str]) -> str:
    told = [_PURPOSES.get(eku, _clip(eku)) for eku in ekus[:_PURPOSES_TOLD]]
    more = len(ekus) - _PURPOSES_TOLD
    return " and ".join([*told, f"{more} more"] if more > 0 else told)


def _or(words: Sequence[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def _day(file_time: int) -> str:
    try:
        return f"{_FILE_TIME_START + timedelta(microseconds=file_time // 10):%Y-%m-%d}"
    except OverflowError:
        return f"file time {file_time}"


def _hex(data: bytes) -> str:
    return _clip(data[:_LONGEST].hex())


def _clip(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
