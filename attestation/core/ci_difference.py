"""Sets two code integrity policies side by side, line by line: what a person looks at before approving a new one."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from attestation.core.ci_policy import CodeIntegrityPolicy
from attestation.core.ci_rules import FileRule, RuleSet, Signer, SignerRule
from attestation.core.ci_words import code_words, file_list, file_words, signer_words

_UNSEEN: Final = "The files differ in their order, or in rules that nothing uses."


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """One line of a policy. Lines that read alike have the same `key` only when they are alike: words may be cut."""

    where: str
    words: str
    key: str


@dataclass(frozen=True, slots=True)
class PolicyChange:
    kind: Literal["added", "removed", "changed"]
    where: str
    words: str


def policy_rows(policy: CodeIntegrityPolicy) -> Iterator[PolicyRow]:
    """Yield the whole policy: each option, every rule where it is used, every setting, and who may replace it."""
    teller = _Teller()
    for line in _head(policy):
        yield _row("Policy", line)
    for option in policy.options:
        yield _row("Options", option)
    for scenario in policy.scenarios:
        code = code_words(scenario.value).capitalize()
        yield _row(code, f"Weakest hash {scenario.minimum_hash:#06x}, inherits {scenario.inherits or 'nothing'}")
        yield from _rule_rows(code, scenario.product, teller)
        yield from _rule_rows(f"{code}, test code", scenario.test, teller)
        yield from _rule_rows(f"{code}, test signing", scenario.test_signing, teller)
    for where, signers in _roles(policy):
        yield from (PolicyRow(where, teller.signer_words(signer), teller.signer_key(signer)) for signer in signers)
    for setting in policy.settings:
        value = setting.value.hex() if isinstance(setting.value, bytes) else setting.value
        yield _row("Settings", f"{setting.provider}/{setting.key}/{setting.name}: {value}")
    yield from (_row("Rules of newer kinds", extra) for extra in policy.extras)


def ci_difference(before: CodeIntegrityPolicy, after: CodeIntegrityPolicy) -> tuple[PolicyChange, ...]:
    """Return the lines removed and the lines added; two files that differ never have an empty difference."""
    old, new = tuple(policy_rows(before)), tuple(policy_rows(after))
    changes = (*_only_in(old, new, "removed"), *_only_in(new, old, "added"))
    if not changes and before.digests["sha256"] != after.digests["sha256"]:
        return (PolicyChange("changed", "Policy", _UNSEEN),)
    return changes


def _head(policy: CodeIntegrityPolicy) -> Iterator[str]:
    yield f"Name: {policy.name or 'none'}"
    yield f"Version: {policy.version}"
    yield f"Identifier: {policy.policy_id}, base {policy.base_policy_id}, type {policy.type_id}"
    yield f"Platform: {policy.platform_id}"
    yield f"Hypervisor-enforced code integrity: {policy.hvci_options:#x}"
    if policy.supplemental:
        yield "Supplemental policy"


def _roles(policy: CodeIntegrityPolicy) -> tuple[tuple[str, tuple[Signer, ...]], ...]:
    return (
        ("May sign a newer policy", policy.update_signers),
        ("May sign a supplemental policy", policy.supplemental_signers),
        ("Code integrity signers", policy.ci_signers),
    )


def _rule_rows(where: str, rules: RuleSet, teller: "_Teller") -> Iterator[PolicyRow]:
    for verb, used in (("Allow", rules.allowed), ("Deny", rules.denied)):
        for rule in used:
            yield PolicyRow(where, f"{verb} {teller.use_words(rule)}", _digest(verb, teller.use_key(rule)))
    for file in rules.files:
        yield PolicyRow(where, f"{file.effect.capitalize()} {file_words(file)}", teller.rule_key(file))


def _only_in(
    rows: Sequence[PolicyRow], others: Iterable[PolicyRow], kind: Literal["added", "removed"]
) -> Iterator[PolicyChange]:
    spare = Counter((row.where, row.key) for row in others)
    for row in rows:
        if spare[row.where, row.key]:
            spare[row.where, row.key] -= 1
        else:
            yield PolicyChange(kind, row.where, row.words)


@dataclass(slots=True)
class _Teller:
    """Words and keys of one policy's rules, each made once: a thousand signers may refer to one long rule."""

    keys: dict[int, str] = field(default_factory=dict)
    words: dict[int, str] = field(default_factory=dict)

    def rule_key(self, rule: FileRule) -> str:
        if id(rule) not in self.keys:
            self.keys[id(rule)] = _digest(repr(rule))
        return self.keys[id(rule)]

    def signer_key(self, signer: Signer) -> str:
        if id(signer) not in self.keys:
            certificate = (signer.root, signer.well_known, signer.ekus, signer.except_ekus, signer.signed_after)
            names = (signer.issuer, signer.publisher, signer.oem_id)
            self.keys[id(signer)] = _digest(repr((certificate, names)), *map(self.rule_key, signer.files))
        return self.keys[id(signer)]

    def use_key(self, rule: SignerRule) -> str:
        return _digest(self.signer_key(rule.signer), *map(self.rule_key, rule.exceptions))

    def signer_words(self, signer: Signer) -> str:
        if id(signer) not in self.words:
            self.words[id(signer)] = signer_words(signer)
        return self.words[id(signer)]

    def use_words(self, rule: SignerRule) -> str:
        words = self.signer_words(rule.signer)
        return f"{words}, except {file_list(rule.exceptions)}" if rule.exceptions else words


def _row(where: str, words: str) -> PolicyRow:
    return PolicyRow(where, words, _digest(words))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
