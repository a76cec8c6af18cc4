"""A lab machine on the wire: what an agent sends to a running portal, request by request, and what it gets."""

import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from secrets import token_bytes
from typing import Any
from uuid import uuid4

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from attestation.core.base64url import to_b64u
from attestation.core.certificate import serial_text
from deploy.localfabric import Portal
from guardedhost.jwe import open_jwe
from kps.core.chain import SHIELDED
from kps.core.guardian import Guardian, GuardianKeys, parse_metadata
from kps.core.jose import Json
from kps.core.protector import create_protector
from kps.core.request import ReleaseRequest, build_request
from tests.machines import Machine, decoded
from tests.tpm_lab import Maker

LOST = (OSError, HTTPException)  # what a client sees of a portal that is gone

# Two persons trust the TPM maker, approve the host and take its newest Evidence as the baseline.
APPROVAL = """
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID
from django.contrib.auth.models import User
from attestation import service

now = datetime.now(UTC)
for file in ("swtpm-localca-rootca-cert.pem", "issuercert.pem"):
    certificate = Path({authority!r}, file).read_bytes()
    service.trust_authority(certificate, provenance="the lab", by="system", now=now)
one, other = (User.objects.get_or_create(username=name, is_superuser=True)[0] for name in ("ada", "ben"))
for attester in map(UUID, {attesters!r}):
    host = service.propose_host(attester, by=one, reason="new", now=now)
    service.decide(host.id, by=other, approve=True, reason="seen", now=now)
newest = service.attestations().filter(attester_id=attester, code="").first()
baseline = service.capture_baseline(newest.id, name="trixie", by=one, reason="first boot", now=now)
service.decide(baseline.id, by=other, approve=True, reason="compared", now=now)
"""


class Line:
    """One connection to a portal; not for two threads at a time."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=30)

    def post(self, path: str, body: object) -> tuple[int, dict[str, Any]]:
        """Send a body, which may be encoded already, and return status and answer. Raises one of `LOST`."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._ask("POST", path, content)

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        return self._ask("GET", path, None)

    def _ask(self, verb: str, path: str, content: bytes | None) -> tuple[int, dict[str, Any]]:
        try:
            self._connection.request(verb, path, body=content, headers={"Content-Type": "application/json"})
            answer = self._connection.getresponse()
            return answer.status, json.loads(answer.read())
        except LOST:
            self._connection.close()
            raise

    def close(self) -> None:
        self._connection.close()


def must(answer: tuple[int, dict[str, Any]], status: int = 200) -> dict[str, Any]:
    assert answer[0] == status, answer
    return answer[1]


def enrol(line: Line, machine: Machine) -> None:
    """Enrol a machine and prove that its keys live in one TPM."""
    told = must(line.post("/attestation/v1/enrolments", machine.enrolment()), 201)
    opened = machine.activate(decoded(told, "credential_blob"), decoded(told, "secret"))
    done = must(line.post(f"/attestation/v1/enrolments/{told['id']}/activation", {"secret": to_b64u(opened)}))
    machine.attester = done["attester"]


def challenge(line: Line, machine: Machine) -> dict[str, Any]:
    wanted = {"attester": machine.attester, "event_log_sha256": machine.log_digest}
    return must(line.post("/attestation/v1/challenges", wanted), 201)


def answer_to(asked: dict[str, Any], machine: Machine) -> bytes:
    """Return the encoded Evidence that answers a challenge; the log travels when it was asked for."""
    return json.dumps(machine.evidence(decoded(asked, "nonce"), with_log=asked["send_event_log"])).encode()


def evidence_path(asked: dict[str, Any]) -> str:
    return f"/attestation/v1/challenges/{asked['id']}/evidence"


def attest(line: Line, machine: Machine) -> dict[str, Any]:
    asked = challenge(line, machine)
    return must(line.post(evidence_path(asked), answer_to(asked, machine)))


def approve(portal: Portal, maker: Maker, *machines: Machine) -> None:
    """Have the machines and the boot of the last one approved."""
    attesters = [machine.attester for machine in machines]
    portal.manage("shell", "-c", APPROVAL.format(authority=str(maker.folder), attesters=attesters))


@dataclass
class Holder:
    """A host that holds a health certificate, a release secret and somebody's VM."""

    certificate: bytes
    secret: bytes = field(repr=False)
    protector: Json = field(repr=False)

    @property
    def serial(self) -> str:
        return serial_text(x509.load_der_x509_certificate(self.certificate).serial_number)

    def request(self, nonce: bytes) -> bytes:
        """Return the encoded body of a release request."""
        request = ReleaseRequest(
            serial=self.serial,
            certificate=self.certificate,
            vm="web-1",
            nonce=nonce,
            at=int(time.time()),
            untrusted_protector=self.protector,
        )
        return json.dumps({"request": build_request(request, self.secret)}).encode()


def holder(line: Line, machine: Machine) -> Holder:
    """Let a machine attest, and hand it a VM that its owner protects for this fabric."""
    outcome = attest(line, machine)
    assert outcome["status"] == "Passed", outcome
    guardian = parse_metadata(must(line.get("/kps/v1/metadata"))["metadata"])
    return Holder(
        certificate=decoded(outcome, "certificate"),
        secret=open_jwe(outcome["release_secret"], machine.unwrap),
        protector=protect(guardian),
    )


def protect(guardian: Guardian) -> Json:
    owner = GuardianKeys("tenant", ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1()))
    return create_protector(
        owner, [guardian], protector_id=uuid4(), level=SHIELDED, key=token_bytes(32), now=datetime.now(UTC)
    )


def portal_in(folder: Path, port: int, settings: dict[str, str], *, live: bool = True, workers: int = 1) -> Portal:
    """Return a portal that has been set up and answers."""
    portal = Portal(folder=folder, port=port, settings=settings, live=live, workers=workers)
    portal.set_up()
    portal.start()
    return portal
