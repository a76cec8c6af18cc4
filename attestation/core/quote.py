"""Quotes: what one TPM says its PCRs are, in answer to one challenge."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from attestation.core.signature import verify_signature
from attestation.core.tpm import (
    BANKS,
    HASHES,
    Clock,
    QuoteAttest,
    TpmPublic,
    digest,
    parse_attest,
    require_ak,
)
from attestation.errors import NotFromTpm, WrongNonce, WrongPcrDigest, WrongSelection

BOOT_PCRS: Final = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14)
"""The PCRs that stand still once a host has booted; transport keys are bound to them."""

QUOTED_PCRS: Final = tuple(range(15))
"""The boot PCRs; PCR 10, which IMA extends while the host runs; 11 to 13, which Windows and unified kernels extend."""

Selection = tuple[str, tuple[int, ...]]
"""A bank ("sha256") and the PCRs of it, in ascending order."""


@dataclass(frozen=True, slots=True)
class Quote:
    """PCR values that the TPM has signed for this challenge."""

    pcrs: Mapping[int, bytes]
    bank: str
    clock: Clock
    firmware_version: int


def verify_quote(
    quote: bytes,
    signature: bytes,
    *,
    ak: TpmPublic,
    nonce: bytes,
    selection: Selection,
    pcr_values: Mapping[int, bytes],
) -> Quote:
    """Return the PCR values that `ak` vouches for, exactly those that the challenge asked for.

    A quote over fewer PCRs, or of a bank that nothing extends, is authentic and worthless; so it is refused.
    """
    require_ak(ak)
    verify_signature(ak, quote, signature)
    attest = parse_attest(quote)
    if not isinstance(attest, QuoteAttest):
        raise NotFromTpm("The signed structure is not a quote.")
    if not hmac.compare_digest(attest.extra_data, nonce):
        raise WrongNonce("The quote answers another challenge.")
    bank, pcrs = selection
    if attest.selection != ((BANKS[bank], frozenset(pcrs)),):
        raise WrongSelection(f"The quote does not cover exactly the {bank} PCRs {', '.join(map(str, pcrs))}.")
    _require_values(attest, ak, selection, pcr_values)
    return Quote({pcr: pcr_values[pcr] for pcr in pcrs}, bank, attest.clock, attest.firmware_version)


def _require_values(attest: QuoteAttest, ak: TpmPublic, selection: Selection, pcr_values: Mapping[int, bytes]) -> None:
    """Compare the values with the digest the TPM signed, which it makes with the hash of its signing scheme."""
    bank, pcrs = selection
    width = HASHES[BANKS[bank]].digest_size
    if set(pcr_values) != set(pcrs) or any(len(value) != width for value in pcr_values.values()):
        raise WrongPcrDigest("The PCR values sent are not one for each PCR asked for.")
    signed = digest(ak.scheme_hash, b"".join(pcr_values[pcr] for pcr in sorted(pcrs)))
    if not hmac.compare_digest(signed, attest.pcr_digest):
        raise WrongPcrDigest("The PCR values sent are not the ones that the TPM signed.")
