"""Holds what a host's kernel measured while it runs against the files that somebody approved.

Only lines that `attestation.core.ima` has proved are judged. A policy that names nothing accepts nothing. RFC 9334
section 8.5 (Appraisal Policy for Evidence).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from attestation.core.finding import Finding
from attestation.core.ima import ImaReplay
from attestation.core.ima_signature import ImaSigner, parse_signature, signed_by
from attestation.core.ima_templates import (
    BOOT_AGGREGATE,
    DIGEST_SIZES,
    LONGEST_PATH,
    BootAggregate,
    ImaEntry,
    boot_aggregate,
    decode_line,
    path_and_digest,
    usual_line,
)
from attestation.core.runtime_findings import (
    NO_BOOT_AGGREGATE,
    Groups,
    Trouble,
    bad_signature,
    changed_file,
    other_boot_aggregate,
    unknown_file,
    unreadable,
    violation,
)
from attestation.errors import ParseError

_MOST_EXCLUDES: Final = 1000
_MOST_DIGESTS: Final = 256
_MOST_USUAL: Final = 100_000  # paths; their lines take some 20 MB


@dataclass(frozen=True, slots=True)
class RuntimePolicy:
    """Which files may be measured.

    `accepted` maps a path to digests as a template writes them ("sha256:", NUL, digest; see `template_digest`).
    `excludes` are exact paths, or whole folders when they end with "/": no pattern language, so none that hangs.
    `signers` may sign files of any path.
    """

    accepted: Mapping[bytes, tuple[bytes, ...]]
    excludes: tuple[bytes, ...]
    signers: tuple[ImaSigner, ...]
    _usual: list[frozenset[bytes]] = field(default_factory=list, init=False, repr=False, compare=False)

    def usual_lines(self) -> frozenset[bytes]:
        """Return whole lines that are accepted, made once: nearly every line of a host is one of them.

        Of a policy that is too large for that, none: then each line is taken apart.
        """
        if not self._usual:
            few = len(self.accepted) <= _MOST_USUAL
            self._usual.append(frozenset(_usual_lines(self.accepted)) if few else frozenset())
        return self._usual[0]

    def __post_init__(self) -> None:
        if BOOT_AGGREGATE in self.accepted:
            raise ParseError("A runtime policy cannot accept a boot aggregate: it is held against the quoted PCRs.")
        if len(self.excludes) > _MOST_EXCLUDES:
            raise ParseError(f"A runtime policy excludes at most {_MOST_EXCLUDES} paths.")
        for exclude in self.excludes:
            if not exclude.startswith(b"/") or exclude == b"/" or len(exclude) > LONGEST_PATH or b"\0" in exclude:
                raise ParseError(f"{exclude[:64]!r} cannot be excluded: name one path, or one folder that is not “/”.")

    @classmethod
    def from_list(
        cls, lines: Iterable[bytes], *, excludes: tuple[bytes, ...] = (), signers: tuple[ImaSigner, ...] = ()
    ) -> "RuntimePolicy":
        """Accept what a reference host was proved to have measured (`ImaReplay.fresh`), but for its boot aggregate."""
        accepted: dict[bytes, tuple[bytes, ...]] = {}
        for line in lines:
            path, digest = path_and_digest(line)
            digests = accepted.get(path, ())
            if path != BOOT_AGGREGATE and digest not in digests:
                accepted[path] = one_more(digests, digest)
        return cls(accepted, excludes, signers)


def _usual_lines(accepted: Mapping[bytes, tuple[bytes, ...]]) -> Iterator[bytes]:
    for path, digests in accepted.items():
        for digest in digests:
            yield usual_line(path, digest)


def template_digest(text: str) -> bytes:
    """Turn "sha256:<hex>" (or "verity:sha256:<hex>") into a template's form, or raise ParseError."""
    algorithm, _, digits = text.rpartition(":")
    size = DIGEST_SIZES.get(algorithm.removeprefix("verity:"))
    try:
        digest = bytes.fromhex(digits)
    except ValueError:
        digest = b""
    if size is None or len(digest) != size or digest.hex() != digits.lower():
        raise ParseError(f"{text[:160]!r} is not a file digest like “sha256:” and 64 hexadecimal digits.")
    return algorithm.encode("ascii") + b":\0" + digest


def amend(policy: RuntimePolicy, path: bytes, digest: str) -> RuntimePolicy:
    """Return a policy that accepts this digest under this path too; the one given stays as it is."""
    if not path or len(path) > LONGEST_PATH or b"\0" in path or path == BOOT_AGGREGATE:
        raise ParseError(f"{path[:64]!r} is not a path that a runtime policy can accept.")
    form, digests = template_digest(digest), policy.accepted.get(path, ())
    if form in digests:
        return policy
    return replace(policy, accepted={**policy.accepted, path: one_more(digests, form)})


def one_more(digests: tuple[bytes, ...], digest: bytes) -> tuple[bytes, ...]:
    """Return the digests of one path with another one, within the bound that keeps looking them up cheap."""
    if len(digests) >= _MOST_DIGESTS:
        raise ParseError(f"A runtime policy accepts at most {_MOST_DIGESTS} digests for one path.")
    return (*digests, digest)


@dataclass(slots=True)
class KnownLines:
    """Lines that one policy has accepted, with what a kernel extends for them in one bank.

    For a fleet whose hosts measure the same files: what was judged once is neither hashed nor judged again. `digests`
    is what `replay_list` takes as `known`. Another policy needs another one of these.
    """

    policy: RuntimePolicy
    bank: str
    limit: int
    digests: dict[bytes, bytes] = field(default_factory=dict)

    def learn(self, replayed: ImaReplay, *, refused: set[bytes]) -> None:
        for line, digest in zip(replayed.fresh, replayed.digests, strict=True):
            if len(self.digests) >= self.limit:
                return
            if line not in refused:
                self.digests[line] = digest


def appraise_runtime(
    replayed: ImaReplay, policy: RuntimePolicy, *, pcrs: Mapping[int, bytes], known: KnownLines | None = None
) -> tuple[Finding, ...]:
    """Report every kind of trouble in what was newly proved: the first files of each kind, and how many more.

    `pcrs` are the quoted values of the bank that was replayed; the boot aggregate is held against them. `known` learns
    the lines that this policy accepted; it must be of the same policy and bank.
    """
    if known is not None and (known.policy is not policy or known.bank != replayed.bank):
        raise ValueError("what another policy or bank accepted says nothing here")
    groups, refused, tied = Groups(), set(), not replayed.from_start or not replayed.entries
    for line in _suspects(replayed.fresh, policy):
        trouble: Trouble | None
        try:
            entry = decode_line(line)
        except ParseError as error:
            trouble = ("ima_unreadable_entry", partial(unreadable, str(error)))
        else:
            if entry.path == BOOT_AGGREGATE:  # good for one boot of one host, so never learned
                tied = True
                refused.add(line)
                trouble = _boot_trouble(entry, pcrs=pcrs, bank=replayed.bank)
            else:
                trouble = _file_trouble(entry, policy)
        if trouble is not None:
            refused.add(line)
            groups.add(trouble)
    if not tied:
        groups.add(("ima_boot_aggregate", lambda: NO_BOOT_AGGREGATE))
    for line in replayed.untrusted_violations:
        groups.add(("ima_violation", partial(violation, line)))
    if known is not None:
        known.learn(replayed, refused=refused)
    return groups.findings()


def _suspects(lines: Iterable[bytes], policy: RuntimePolicy) -> Iterator[bytes]:
    """Give the lines that the policy's digests and excludes do not settle, and pass over the others quickly."""
    digests_of = policy.accepted.get
    paths = frozenset(policy.excludes)
    folders = tuple(exclude for exclude in policy.excludes if exclude.endswith(b"/"))
    usual = policy.usual_lines()
    for line in lines:
        if line in usual:
            continue
        try:
            path, digest = path_and_digest(line)
        except ParseError:
            yield line
        else:
            if digest not in digests_of(path, ()) and path not in paths and not path.startswith(folders):
                yield line


def _boot_trouble(entry: ImaEntry, *, pcrs: Mapping[int, bytes], bank: str) -> Trouble | None:
    if boot_aggregate(entry, pcrs=pcrs, bank=bank) is BootAggregate.DIFFERS:
        return "ima_boot_aggregate", partial(other_boot_aggregate, entry)
    return None


def _file_trouble(entry: ImaEntry, policy: RuntimePolicy) -> Trouble | None:
    """A signature counts where no digest does; one that names a trusted key and does not hold is trouble of its own."""
    if entry.signature and policy.signers:
        try:
            signature = parse_signature(entry.signature)
        except ParseError as error:
            return "ima_bad_signature", partial(bad_signature, entry, str(error))
        named = [signer for signer in policy.signers if signature.key_id in signer.key_ids]
        if any(signed_by(signature, each, algorithm=entry.algorithm, digest=entry.digest) for each in named):
            return None
        if named:
            reason = f"It names the key of {named[0].subject}, which did not make it."
            return "ima_bad_signature", partial(bad_signature, entry, reason)
    approved = policy.accepted.get(entry.path)
    if approved is None:
        return "ima_unknown_file", partial(unknown_file, entry)
    return "ima_changed_file", partial(changed_file, entry, approved)
