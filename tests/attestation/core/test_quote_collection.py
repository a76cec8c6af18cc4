"""Other people's quotes: what real TPMs signed verifies with its PCRs, and with nothing else."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from attestation.core.eventlog import parse_event_log
from attestation.core.facts import read_facts
from attestation.core.quote import BOOT_PCRS, Quote, verify_quote
from attestation.core.replay import replay
from attestation.core.tpm import ALG_RSASSA, TpmPublic
from attestation.errors import BadSignature, ParseError, WrongNonce, WrongPcrDigest, WrongSelection
from tests.boot_logs import COLLECTION
from tests.tpm_forge import AK_ATTRIBUTES, SHA256, flipped

SPOILT = "confidential-containers_trustee/az-snp-vtpm_tpm-quote.msg"  # its signature is not of this key
GOOGLE = "google_go-tpm-tools/gce-cos-85-nonce9009.pb"


def _entries() -> list[dict[str, Any]]:
    index = COLLECTION / "index.json"
    entries = json.loads(index.read_text()) if index.exists() else []
    return [entry for entry in entries if entry["kind"] == "quote" and entry.get("expected_pcrs")]


ENTRIES = _entries()
GOOD = [
    entry
    for entry in ENTRIES
    if entry["sig_alg"] == "RSASSA/sha256" and entry["pcr_selection"][0][0] != "sha1" and entry["file"] != SPOILT
]
pytestmark = pytest.mark.skipif(not ENTRIES, reason="the collection of other people's quotes is not on this machine")


def _file(entry: dict[str, Any]) -> str:
    return str(entry["file"])


def _named(name: str) -> dict[str, Any]:
    (entry,) = (entry for entry in ENTRIES if entry["file"] == name)
    return entry


def ak_of(entry: dict[str, Any]) -> TpmPublic:
    """The key of the quote, as the attestation key that it was."""
    key = load_pem_public_key(entry["ak_public_pem"].encode())
    assert isinstance(key, rsa.RSAPublicKey)
    return TpmPublic(b"", b"", SHA256, AK_ATTRIBUTES, b"", None, ALG_RSASSA, SHA256, key)


def verified(entry: dict[str, Any], **changed: Any) -> Quote:
    ((bank, pcrs),) = entry["pcr_selection"]
    values = {int(pcr): bytes.fromhex(value) for pcr, value in entry["expected_pcrs"][bank].items()}
    good = {
        "signature": bytes.fromhex(entry["signature_hex"]),
        "nonce": bytes.fromhex(entry.get("nonce_hex") or ""),
        "selection": (bank, tuple(pcrs)),
        "pcr_values": values,
    }
    sent = good | changed
    return verify_quote(bytes.fromhex(entry["quote_hex"]), sent.pop("signature"), ak=ak_of(entry), **sent)


@pytest.mark.parametrize("entry", GOOD, ids=_file)
def test_a_real_quote_vouches_for_its_pcrs_and_no_others(entry: dict[str, Any]) -> None:
    quote = verified(entry)
    assert quote.pcrs
    spoilt = dict(quote.pcrs) | {7: flipped(quote.pcrs[7], 0)}
    with pytest.raises(WrongPcrDigest):
        verified(entry, pcr_values=spoilt)
    with pytest.raises(WrongNonce):
        verified(entry, nonce=b"another")
    with pytest.raises(WrongSelection):
        verified(entry, selection=(quote.bank, BOOT_PCRS))
    with pytest.raises(BadSignature):
        verified(entry, signature=flipped(bytes.fromhex(entry["signature_hex"]), 100))


def test_a_quote_that_another_key_signed_is_refused() -> None:
    with pytest.raises(BadSignature):
        verified(_named(SPOILT))


def test_a_quote_that_is_signed_over_sha1_is_refused() -> None:
    with pytest.raises(ParseError, match="is not SHA-256"):
        verified(_named("google_go-attestation/windows_gcp_shielded_vm.quote.json"))


@pytest.mark.parametrize(("number", "bank"), [(1, "sha256"), (2, "sha384")])
def test_a_real_quote_and_the_log_of_its_boot_prove_what_was_started(number: int, bank: str) -> None:
    quote = verified(_named(f"{GOOGLE}.quote{number}.bin"))
    log = parse_event_log((COLLECTION / f"{GOOGLE}.eventlog.bin").read_bytes())
    facts = read_facts(replay(log, quoted=quote.pcrs, bank=bank), bank=bank)
    found = {name: fact and fact.value for name, fact in facts.items()}
    assert (found["platform"], found["secure_boot"]) == ("linux", True)
    assert found["firmware_version"] == "GCE Virtual Firmware v1"
    assert "module.sig_enforce=1" in str(found["kernel_command_line"])
