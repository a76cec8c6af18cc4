"""A machine whose kernel measures files, and two persons who say which files may run."""

import hashlib
from datetime import UTC, datetime
from typing import Any, Protocol

from django.contrib.auth.models import User

from attestation import service
from attestation.core.base64url import to_b64u
from attestation.core.document import to_json
from attestation.core.ima import ima_measurements
from attestation.models import Blob, RuntimePolicy
from attestation.policy import base_document
from tests.ima_lists import fields, record
from tests.machines import Machine, decoded

FILES = {b"/init": b"init", b"/bin/sh": b"sh", b"/usr/bin/qemu": b"qemu"}


class Api(Protocol):
    """The machine API, as far as a machine needs it here."""

    def post(self, path: str, body: object) -> Any: ...
    def challenge(self, machine: Machine, **extra: object) -> Any: ...


class Running:
    """A machine whose kernel measures files."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.list = b""
        pcrs = machine.tpm.pcrs(tuple(range(10)))
        aggregate = hashlib.sha256(b"".join(pcrs[pcr] for pcr in range(10))).digest()
        self.measure(record(fields(b"sha256:\0" + aggregate, b"boot_aggregate\0")))

    def measure(self, *entries: bytes) -> None:
        for entry in entries:
            for pcr, digest in ima_measurements(entry, bank="sha256"):
                self.machine.tpm.extend(pcr, digest)
            self.list += entry

    def attest(self, api: Api, *, boot: int | None = None, sent: bytes | None = None, trial: bool = False) -> Any:
        """Attest with what the challenge asks for of the list; `boot` is what the agent says of its TPM."""
        challenge = api.challenge(self.machine, trial=trial, **({} if boot is None else {"boot": boot})).json()
        self.asked_from = challenge["ima_from"]
        body = self.machine.evidence(decoded(challenge, "nonce"))
        body["ima_log"] = to_b64u(self.list[self.asked_from :] if sent is None else sent)
        return api.post(f"challenges/{challenge['id']}/evidence", body)


def lines(*paths: bytes) -> bytes:
    """The text of a runtime policy that accepts these of `FILES`."""
    found = [b"sha256:%s  %s\n" % (hashlib.sha256(FILES[path]).hexdigest().encode(), path) for path in paths]
    return b"".join(sorted(found))


def named(text: bytes, admin: User, approver: User, name: str = "files") -> RuntimePolicy:
    """Have a runtime policy named by the group's policy, as two persons do it."""
    now = datetime.now(UTC)
    content, _ = Blob.objects.get_or_create(
        pk=hashlib.sha256(text).hexdigest(), defaults={"content": text, "size": len(text)}
    )
    version = RuntimePolicy.objects.filter(name=name).count() + 1
    row = RuntimePolicy.objects.create(
        name=name, version=version, content=content, entries=1, origin="a test", created_at=now, created_by="ada"
    )
    draft = service.start_draft("default", title="Files", by=admin, now=now)
    document = to_json(base_document("default")[1]) | {"runtime": str(row.id)}
    draft = service.change_draft(draft.id, document, revision=draft.revision, by=admin, now=now)
    run = service.start_dry_run(draft.id, by=admin, now=now)
    while service.go_on_dry_run(run.id, now=now).finished_at is None:
        pass
    proposal = service.propose_draft(draft.id, by=admin, reason="only known files", now=now)
    service.decide(proposal.id, by=approver, approve=True, reason="looked at them", now=now)
    return row
