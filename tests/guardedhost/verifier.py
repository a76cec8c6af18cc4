"""A portal's Verifier in memory: real cryptography, and the verdict that a test wants."""

import os
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from attestation.core.base64url import from_b64u, to_b64u
from attestation.core.certificate import HealthClaims, Signer, build_health_certificate, build_signer
from attestation.core.credential import make_credential
from attestation.core.handover import wrap_to_transport_key
from attestation.core.quote import BOOT_PCRS, QUOTED_PCRS, verify_quote
from attestation.core.tpm import parse_public
from attestation.core.transport import verify_transport_key

NONCE, SECRET = os.urandom(32), os.urandom(32)
SIGNER = ec.generate_private_key(ec.SECP256R1())


class Verifier:
    """Answers as the portal does; `passing` and `lifetime` are for tests to change."""

    def __init__(self) -> None:
        self.passing, self.lifetime, self.send_event_log = True, timedelta(hours=8), True
        self.nonce, self.trial = NONCE, False
        self.evidence: list[dict[str, Any]] = []
        self.ek = self.ak = b""

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        if path.endswith("/enrolments"):
            return 201, self._credential(body)
        if path.endswith("/activation"):
            return (
                (200, {"attester": "host", "state": "pending", "detail": "Wait."})
                if from_b64u(body["secret"]) == SECRET
                else (403, {})
            )
        if path.endswith("/challenges"):
            self.trial = body["trial"]
            fields = {"id": "c", "nonce": to_b64u(self.nonce), "bank": "sha256", "send_event_log": self.send_event_log}
            return 201, {**fields, "pcrs": QUOTED_PCRS, "boot_pcrs": BOOT_PCRS, "trial": self.trial}
        return 200, self._verdict(body)

    def _credential(self, body: Any) -> dict[str, str]:
        self.ek, self.ak = from_b64u(body["ek_public"]), from_b64u(body["ak_public"])
        name = parse_public(self.ak).name
        blob, seed = make_credential(parse_public(self.ek), name, SECRET, seed=bytes(64), ephemeral=None)
        return {"id": "e", "credential_blob": to_b64u(blob), "secret": to_b64u(seed)}

    def _verdict(self, body: dict[str, Any]) -> dict[str, Any]:
        self.evidence.append(body)
        ak, values = parse_public(self.ak), {int(pcr): from_b64u(value) for pcr, value in body["pcr_values"].items()}
        signed = (from_b64u(body["quote"]), from_b64u(body["signature"]))
        verify_quote(*signed, ak=ak, nonce=self.nonce, selection=("sha256", QUOTED_PCRS), pcr_values=values)
        parts = [from_b64u(body[f"transport_{part}"]) for part in ("public", "certify", "signature")]
        spki = verify_transport_key(*parts, ak=ak, nonce=self.nonce, pcrs=values).spki
        return self.passed(spki)

    def passed(self, spki: bytes) -> dict[str, Any]:
        """Answer a host whose evidence is authentic."""
        now = datetime.now(UTC)
        answer: dict[str, Any] = {"substatus": [], "findings": [], "next_attestation_at": now.isoformat()}
        if not self.passing:
            words = {"what": "The command line has drift=1 added.", "why": "It was not approved.", "remedy": "Reboot."}
            finding = {"code": "pcr_mismatch", "substatus": "CodeIntegrityPolicy", **words, "pcrs": [8]}
            return {**answer, "status": "InsecureHostConfiguration", "findings": [finding]}
        if self.trial:
            return {**answer, "status": "Passed", "certificate": None, "release_secret": None}
        certificate = self._certificate(spki, now)
        secret = wrap_to_transport_key(SECRET, spki)
        return {**answer, "status": "Passed", "certificate": to_b64u(certificate), "release_secret": secret}

    def _certificate(self, spki: bytes, now: datetime) -> bytes:
        start = now - timedelta(hours=1)
        return build_health_certificate(
            claims=HealthClaims("f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "nbg-a01", "tpm"),
            transport_spki=spki,
            serial=0xABC,
            not_before=start,
            not_after=now + self.lifetime,
            signer=Signer(SIGNER, x509.load_der_x509_certificate(signer(now))),
        )


def signer(now: datetime) -> bytes:
    """The certificate of the one who signs health certificates."""
    start = now - timedelta(hours=1)
    return build_signer(SIGNER, number=1, fabric="f", not_before=start, not_after=now + timedelta(days=1))
