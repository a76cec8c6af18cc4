"""Reads the blocks of a code integrity policy's binary form as they stand in the file: numbers, names and references.

Whatever refers to something does so by its place in a list; what the references lead to is for `ci_policy` to say.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from attestation.core.ci_reader import Indices, PolicyReader
from attestation.core.ci_rules import Effect, Setting

NEWEST_FORMAT: Final = 11

_HEADER: Final = 0x40
_ALWAYS: Final = 1 << 31
_MOST_SCENARIOS: Final = 255
_EFFECTS: Final[Mapping[int, Effect]] = {0: "deny", 1: "allow", 2: "attribute"}


@dataclass(frozen=True, slots=True)
class RawSigner:
    root: bytes
    well_known: int | None
    ekus: Indices
    issuer: str
    publisher: str
    oem_id: str
    files: Indices


@dataclass(frozen=True, slots=True)
class RawSet:
    allowed: tuple[tuple[int, Indices], ...]
    denied: tuple[tuple[int, Indices], ...]
    files: Indices


@dataclass(frozen=True, slots=True)
class RawScenario:
    value: int
    inherits: Indices
    minimum_hash: int
    product: RawSet
    test: RawSet
    test_signing: RawSet


@dataclass(slots=True)
class Blocks:
    """One policy, block by block. What an older format does not have stays as it is here."""

    format_version: int
    type_id: UUID
    platform_id: UUID
    flags: int
    version: str
    ekus: tuple[str, ...]
    rules: tuple[tuple[Effect, str, str, bytes], ...]
    signers: tuple[RawSigner, ...]
    update_signers: Indices
    ci_signers: Indices
    scenarios: tuple[RawScenario, ...]
    hvci_options: int
    settings: tuple[Setting, ...]
    maxima: tuple[tuple[str, tuple[str, ...]], ...] = ()
    signed_after: Indices = ()
    descriptions: tuple[tuple[str, str, str], ...] = ()
    packages: tuple[tuple[str, str], ...] = ()
    policy_id: UUID | None = None
    base_policy_id: UUID | None = None
    supplemental_signers: Indices = ()
    paths: tuple[str, ...] = ()
    app_settings: tuple[Setting, ...] = ()
    extras: tuple[str, ...] = ()
    except_ekus: tuple[tuple[int, Indices], ...] = ()


def read_blocks(data: bytes) -> Blocks:
    """Return every block of an unsigned policy, or raise ParseError with the offset at which it goes wrong."""
    reader = PolicyReader(data, what="code integrity policy", order="little")
    blocks = _read_body(reader)
    for number, read in _NEWER_BLOCKS.items():
        if number > blocks.format_version:
            break
        _expect(reader, number)
        read(reader, blocks)
    _expect(reader, blocks.format_version + 1)
    reader.finish()
    return blocks


def _read_body(reader: PolicyReader) -> Blocks:
    format_version = reader.u32()
    if not 1 <= format_version <= NEWEST_FORMAT:
        raise reader.error(f"format {format_version} is none of 1 to {NEWEST_FORMAT}")
    type_id, platform_id, flags = reader.guid(), reader.guid(), reader.u32()
    if not flags & _ALWAYS:
        raise reader.error("the highest option is not set, as it is in every policy")
    ekus, rules, signers, scenarios = (reader.u32() for _ in range(4))
    version = reader.version()
    if reader.u32() != _HEADER:
        raise reader.error(f"the header does not end at byte {_HEADER}")
    if scenarios > _MOST_SCENARIOS:
        raise reader.error(f"{scenarios} signing scenarios, {_MOST_SCENARIOS} are the most")
    return Blocks(
        format_version=format_version,
        type_id=type_id,
        platform_id=platform_id,
        flags=flags,
        version=version,
        ekus=tuple(reader.eku() for _ in range(ekus)),
        rules=tuple(_rule(reader) for _ in range(rules)),
        signers=tuple(_signer(reader) for _ in range(signers)),
        update_signers=reader.indices(),
        ci_signers=reader.indices(),
        scenarios=tuple(_scenario(reader) for _ in range(scenarios)),
        hvci_options=reader.u32(),
        settings=tuple(_setting(reader) for _ in range(reader.u32())),
    )


def _read_versions(reader: PolicyReader, blocks: Blocks) -> None:
    blocks.maxima = tuple((reader.version(), reader.texts()) for _ in blocks.rules)
    blocks.signed_after = tuple(reader.u64() for _ in blocks.signers)


def _read_descriptions(reader: PolicyReader, blocks: Blocks) -> None:
    blocks.descriptions = tuple((reader.text(), reader.text(), reader.text()) for _ in blocks.rules)


def _read_packages(reader: PolicyReader, blocks: Blocks) -> None:
    blocks.packages = tuple((reader.text(), reader.version()) for _ in blocks.rules)


def _read_identity(reader: PolicyReader, blocks: Blocks) -> None:
    blocks.policy_id, blocks.base_policy_id = reader.guid(), reader.guid()
    blocks.supplemental_signers = reader.indices()


def _read_paths(reader: PolicyReader, blocks: Blocks) -> None:
    blocks.paths = tuple(reader.text() for _ in blocks.rules)


def _read_app_settings(reader: PolicyReader, blocks: Blocks) -> None:
    settings: list[Setting] = []
    for _ in range(reader.u32()):
        application = reader.text()
        settings.extend(_app_setting(reader, application) for _ in range(reader.u32()))
    blocks.app_settings = tuple(settings)


def _read_hot_patches(reader: PolicyReader, blocks: Blocks) -> None:
    lines = []
    for _ in range(reader.u32()):
        rule, patch, first, last = (reader.u32() for _ in range(4))
        lines.append(f"File rule {rule} needs the hot patch of file rule {patch}, sequence {first} to {last}")
    blocks.extras += tuple(lines)


def _read_artifacts(reader: PolicyReader, blocks: Blocks) -> None:
    lines = [_artifact_rule(reader, at) for at in range(reader.u32())]
    for _ in range(reader.u32()):
        lines.append(f"Signer {reader.u32()} is for artifact rules {_numbers(reader.indices())}")
    for scenario in blocks.scenarios:
        allowed, denied, rules = _signer_rules(reader), _signer_rules(reader), reader.indices()
        if allowed or denied or rules:
            lines.append(
                f"Scenario {scenario.value} allows artifacts of signers {_with_exceptions(allowed)}, "
                f"denies those of signers {_with_exceptions(denied)}, and has artifact rules {_numbers(rules)}"
            )
    blocks.extras += tuple(lines)


def _read_except_ekus(reader: PolicyReader, blocks: Blocks) -> None:
    blocks.except_ekus = _signer_rules(reader)


_NEWER_BLOCKS: Final[Mapping[int, Callable[[PolicyReader, Blocks], None]]] = {
    3: _read_versions,
    4: _read_descriptions,
    5: _read_packages,
    6: _read_identity,
    7: _read_paths,
    8: _read_app_settings,
    9: _read_hot_patches,
    10: _read_artifacts,
    11: _read_except_ekus,
}


def _expect(reader: PolicyReader, number: int) -> None:
    """Each block begins with its format's number, and the file ends with the first number that it has no block for."""
    found = reader.u32()
    if found != number:
        raise reader.error(f"block {number} is expected, block {found} begins")


def _rule(reader: PolicyReader) -> tuple[Effect, str, str, bytes]:
    kind = reader.u32()
    if kind not in _EFFECTS:
        raise reader.error(f"a file rule of kind {kind}")
    return _EFFECTS[kind], reader.text(), reader.version(), reader.run()


def _signer(reader: PolicyReader) -> RawSigner:
    kind = reader.u32()
    if kind not in (0, 1):
        raise reader.error(f"a certificate root of kind {kind}")
    root, well_known = (b"", reader.u32()) if kind else (reader.run(), None)
    return RawSigner(
        root=root,
        well_known=well_known,
        ekus=reader.indices(),
        issuer=reader.text(),
        publisher=reader.text(),
        oem_id=reader.text(),
        files=reader.indices(),
    )


def _scenario(reader: PolicyReader) -> RawScenario:
    return RawScenario(
        value=reader.u32(),
        inherits=reader.indices(),
        minimum_hash=reader.u32(),
        product=_rule_set(reader),
        test=_rule_set(reader),
        test_signing=_rule_set(reader),
    )


def _rule_set(reader: PolicyReader) -> RawSet:
    return RawSet(allowed=_signer_rules(reader), denied=_signer_rules(reader), files=reader.indices())


def _signer_rules(reader: PolicyReader) -> tuple[tuple[int, Indices], ...]:
    return tuple((reader.u32(), reader.indices()) for _ in range(reader.u32()))


def _setting(reader: PolicyReader) -> Setting:
    provider, key, name, kind = reader.text(), reader.text(), reader.text(), reader.u32()
    if kind not in _SETTING_VALUES:
        raise reader.error(f"a setting of kind {kind}")
    return Setting(provider, key, name, _SETTING_VALUES[kind](reader))


def _app_setting(reader: PolicyReader, application: str) -> Setting:
    """Values stand behind one byte for their kind; a last number says whether policies that audit are left out."""
    name, kind = reader.text(), reader.u8()
    if kind not in _APP_SETTING_VALUES:
        raise reader.error(f"an application setting of kind {kind}")
    value = _APP_SETTING_VALUES[kind](reader)
    reader.u32()
    return Setting("Application", application, name, value)


def _artifact_rule(reader: PolicyReader, at: int) -> str:
    kind, action, name, description = reader.u32(), reader.u32(), reader.text(), reader.text()
    lowest, highest, digest = reader.version(), reader.version(), reader.run()
    return (
        f"Artifact rule {at}: type {kind}, action {action}, name “{name}”, description “{description}”, "
        f"versions {lowest} to {highest}, hash {digest.hex() or 'none'}"
    )


def _numbers(indices: Indices) -> str:
    return ", ".join(map(str, indices)) or "none"


def _with_exceptions(rules: tuple[tuple[int, Indices], ...]) -> str:
    return "; ".join(f"{at} (except {_numbers(but)})" if but else str(at) for at, but in rules) or "none"


def _truth(reader: PolicyReader) -> bool:
    return bool(reader.u32())


_SETTING_VALUES: Final[Mapping[int, Callable[[PolicyReader], bool | int | bytes | str]]] = {
    0: _truth,
    1: PolicyReader.u32,
    2: PolicyReader.run,
    3: PolicyReader.text,
}
_APP_SETTING_VALUES: Final[Mapping[int, Callable[[PolicyReader], bool | int | bytes | str]]] = {
    0: lambda reader: bool(reader.u8()),
    1: PolicyReader.u8,
    3: PolicyReader.text,
    4: lambda reader: ", ".join(reader.texts()),
}
