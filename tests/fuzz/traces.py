"""Traces of hosts as whoever asks for advice may make them up: any JSON, with evidence that is signed all the same."""

import json
import zlib
from dataclasses import replace
from datetime import timedelta
from functools import cache

from attestation.core.finding import Finding
from attestation.core.quote import QUOTED_PCRS
from attestation.core.replay import replay_values
from attestation.core.tpm import digest
from guardedhost.diagnosis.bundle import read_bundle, write_bundle
from guardedhost.diagnosis.checks import Diagnosis, diagnose
from guardedhost.diagnosis.trace import (
    Answer,
    FolderSeen,
    HeldCertificate,
    LogSeen,
    PortalSeen,
    QuoteSeen,
    StateFile,
    TpmSeen,
    Trace,
)
from guardedhost.store import Config, LastAttestation
from guardedhost.tpm import Condition
from tests.boot_logs import boot, locality, record, spec_id
from tests.fuzz import seeds
from tests.fuzz.forge import BANK, NONCE, ima_values, log_of
from tests.kps.parties import NOW
from tests.tpm_forge import SHA256, quote

GZIP = 31


def packed(document: bytes) -> bytes:
    packer = zlib.compressobj(wbits=GZIP)
    return packer.compress(document) + packer.flush()


def judged(document: bytes) -> Diagnosis:
    """What is read can be judged, whatever it says."""
    return diagnose(read_bundle(packed(document)))


@cache
def documents() -> list[bytes]:
    """One host with everything, one with next to nothing, and one that the portal refused."""
    log, ima = spec_id() + locality(3) + record(0, 8, b"1\0.\0") + record(7, 4, bytes(4)), boot("secureboot-on").ima
    last = LastAttestation(NOW, "Passed", (), (), NOW + timedelta(hours=4), NOW + timedelta(hours=8))
    finding = Finding("pcr_mismatch", "SecureBoot", "what", "why", "remedy", (7,))
    full = Trace(
        at=NOW,
        agent="0.1.0",
        folder=FolderSeen("/var/lib/guardhouse", 0, (StateFile(".", 0o40700, 0),), Config(attester="host", ak="000b")),
        portal=_portal(),
        tpm=_tpm(log, ima),
        boot_log=LogSeen("log", log),
        ima_log=LogSeen("ima", ima),
        held=HeldCertificate(seeds.certificates()[0], 3, True),
        last=last,
        answer=Answer("Passed"),
    )
    refused = replace(full, answer=Answer("InsecureHostConfiguration", ("SecureBoot",), (finding,)))
    nothing = Trace(NOW, "0.1.0", FolderSeen("x", 1), None, TpmSeen("x"), LogSeen("x"), LogSeen(""))
    return [_document(trace) for trace in (full, refused, nothing)]


def _document(trace: Trace) -> bytes:
    return json.dumps(json.loads(zlib.decompress(write_bundle(trace), GZIP))).encode()


def _portal() -> PortalSeen:
    return PortalSeen(
        "portal.example",
        443,
        addresses=("192.0.2.1",),
        connected="192.0.2.1",
        shown=seeds.certificates()[0],
        tls_code=62,
        date=NOW,
        asked_at=NOW,
        signers=(seeds.HEALTH_SIGNER,),
        errors={"tls": "Its certificate does not hold"},
    )


def _tpm(log: bytes, ima: bytes) -> TpmSeen:
    values = replay_values(log_of(log), BANK) | ima_values(ima)
    pcrs = {pcr: values.get(pcr, bytes(32)) for pcr in QUOTED_PCRS}
    signed = quote(NONCE, digest(SHA256, b"".join(pcrs.values())), QUOTED_PCRS)
    return TpmSeen(
        tcti="device:/dev/tpmrm0",
        condition=Condition("IFX", "0007005500000000", False, 0, 32, 600),
        ek_public=seeds.AK.public,
        ek_certificate=seeds.certificates()[0],
        ak_public=seeds.AK.public,
        quote=QuoteSeen(NONCE, signed, seeds.AK.sign(signed), pcrs),
        reset_count=3,
    )
