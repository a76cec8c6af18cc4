"""Answers what PCR 7 proves: the Secure Boot settings, and what programs were accepted by; and, with PCR 14, shim's.

A separator is told by its digest, so that no forged record can move the line between what the firmware measured and
what came later.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Final

from attestation.core.boot import Boot, Fact
from attestation.core.replay import VerifiedEvent
from attestation.core.uefi import (
    GLOBAL_VARIABLE,
    IMAGE_SECURITY,
    SHIM,
    Signature,
    certificate_subject,
    count_signatures,
    parse_authority,
    parse_signature_lists,
    signature_list,
)
from attestation.errors import ParseError

_MEASURED_TEXT: Final = 4096
_ON: Final = b"\1"


def secure_boot_facts(boot: Boot) -> dict[str, Fact | None]:
    return {name: question(boot) for name, question in _QUESTIONS.items()}


def _secure_boot(boot: Boot) -> Fact | None:
    """UEFI, "Globally Defined Variables": SecureBoot is 1 when on; firmware without it measures an empty value."""
    found = boot.setting("SecureBoot", GLOBAL_VARIABLE)
    if found is None or found[0].value not in (b"", b"\0", _ON):
        return None
    return _fact(found[0].value == _ON, found[1])


def _subjects(name: str, guid: object) -> Callable[[Boot], Fact | None]:
    def question(boot: Boot) -> Fact | None:
        found = boot.setting(name, guid)
        try:
            return found and _fact(tuple(map(_signature_words, parse_signature_lists(found[0].value))), found[1])
        except ParseError:
            return None

    return question


def _revocations(boot: Boot) -> Fact | None:
    found = boot.setting("dbx", IMAGE_SECURITY)
    try:
        return found and _fact(count_signatures(found[0].value), found[1])
    except ParseError:
        return None


def _revocations_hash(boot: Boot) -> Fact | None:
    found = boot.setting("dbx", IMAGE_SECURITY)
    return found and _fact(hashlib.sha256(found[0].value).hexdigest(), found[1])


def _firmware_action(text: bytes) -> Callable[[Boot], Fact | None]:
    """Whether this action was measured. Some firmware does so after its separator; the digests of all prove absence."""

    def question(boot: Boot) -> Fact | None:
        if boot.handover is None:
            return None
        marks = {boot.hash(text), boot.hash(text + b"\0")}
        event = next((event for event in boot.measured(7) if event.digest in marks), None)
        return _fact(event is not None, event or boot.handover)

    return question


def _boot_authorities(boot: Boot) -> list[tuple[Signature, VerifiedEvent]]:
    """The entries of db that a program was accepted by, in their order (PFP, EV_EFI_VARIABLE_AUTHORITY)."""
    found = []
    for variable, event in boot.authorities:
        if variable.guid == IMAGE_SECURITY and variable.name == "db":
            try:
                found.append((parse_authority(variable.value), event))
            except ParseError:
                continue
    return found


def _shim_certificate(boot: Boot) -> Fact | None:
    """The certificate that the first program of the boot, shim on most, was accepted by."""
    for signature, event in _boot_authorities(boot)[:1]:
        return _fact(_signature_words(signature), event)
    return None


def _authorities(boot: Boot) -> Fact | None:
    found = _boot_authorities(boot)
    return _fact(tuple(_signature_words(each) for each, _ in found), found[0][1]) if found else None


def _sbat(boot: Boot) -> Fact | None:
    """The revocation level that shim enforces (shim, SBAT.md)."""
    found = boot.authority("SbatLevel", SHIM)
    return found and _fact(found[0].value[:_MEASURED_TEXT].decode("utf-8", "replace").rstrip("\0\n"), found[1])


def _mok_validation_disabled(boot: Boot) -> Fact | None:
    """Whether shim was told to accept any program (shim, mok.c: MokSBState, measured where somebody has set it).

    Every shim that measures its SBAT level has measured MokSBState before; so its absence is proved where every
    authority is.
    """
    found = boot.authority("MokSBState", SHIM)
    if found is not None:
        return _fact(found[0].value != b"\0", found[1])
    level = boot.authority("SbatLevel", SHIM)
    return level and (_fact(False, level[1]) if all(event.data is not None for event in boot.accepted) else None)


def _moklist_trusted(boot: Boot) -> Fact | None:
    """Whether the kernel may trust machine owner keys (shim, mok.c: MokListTrusted).

    Newer versions measure it only into PCR 14, where the digest of a 1 is all there is to see: some switch is on.
    """
    found = boot.authority("MokListTrusted", SHIM)
    if found is not None:
        return _fact(found[0].value == _ON, found[1])
    on = boot.hash(_ON)
    return next((_fact(True, event) for event in boot.measured(14) if event.digest == on), None)


def _mok_entries(boot: Boot) -> Fact | None:
    """How many keys and hashes the machine's owner enrolled, the distribution's own certificate not counted.

    Old versions of shim measure the list itself. Newer ones measure only its hash, first of all into PCR 14; but two
    lists can be told by it: the empty one, and the one with nothing but the certificate that GRUB was accepted by.
    """
    found = boot.authority("MokList", SHIM)
    if found is not None and not found[0].value.startswith(b"\x30"):
        try:
            return _fact(count_signatures(found[0].value), found[1])
        except ParseError:
            pass
    lists = boot.measured(14)
    if not lists:
        return None
    vendors = [variable.value for variable, _ in boot.authorities if variable.name in _VENDORS]
    certificates = [certificate for value in vendors for certificate in (value, value[len(SHIM.bytes) :])]
    none_enrolled = [_NO_KEYS, *(signature_list("x509", SHIM, certificate) for certificate in certificates)]
    return _fact(0, lists[0]) if lists[0].digest in map(boot.hash, none_enrolled) else None


def _signature_words(signature: Signature) -> str:
    if signature.kind != "x509":
        return f"{signature.kind} {signature.data.hex()[:128]}"
    return certificate_subject(signature.data) or f"certificate {hashlib.sha256(signature.data).hexdigest()}"


def _fact(value: bool | int | str | tuple[str, ...], event: VerifiedEvent) -> Fact:
    return Fact(value, event.pcr, event.index)


# What shim writes where the owner enrolled nothing and no vendor's certificate is built in.
_NO_KEYS: Final = signature_list("sha256", SHIM, bytes(32))
# What shim calls the list that it found the certificate of the next program in.
_VENDORS: Final = frozenset({"Shim", "vendor_db", "MokListRT"})

_QUESTIONS: Final[Mapping[str, Callable[[Boot], Fact | None]]] = {
    "secure_boot": _secure_boot,
    "platform_key": _subjects("PK", GLOBAL_VARIABLE),
    "key_exchange_keys": _subjects("KEK", GLOBAL_VARIABLE),
    "db": _subjects("db", IMAGE_SECURITY),
    "dbx_entries": _revocations,
    "dbx_sha256": _revocations_hash,
    "uefi_debug_mode": _firmware_action(b"UEFI Debug Mode"),
    "firmware_dma_protection_disabled": _firmware_action(b"DMA Protection Disabled"),
    "shim_certificate": _shim_certificate,
    "boot_authorities": _authorities,
    "sbat": _sbat,
    "mok_validation_disabled": _mok_validation_disabled,
    "moklist_trusted": _moklist_trusted,
    "mok_entries": _mok_entries,
}
