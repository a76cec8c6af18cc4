"""An IMA list travels in parts, on any node, and what it once showed counts until the host starts again."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User

from attestation import memory, service, stored
from attestation.core.base64url import to_b64u
from attestation.core.document import to_json
from attestation.core.ima import ima_measurements
from attestation.core.runtime_text import parse_runtime_text, runtime_text
from attestation.models import Attestation, Blob, ImaProgress, RuntimePolicy
from attestation.policy import base_document
from tests.attestation.conftest import Portal, approve_host
from tests.ima_lists import fields, ng, record
from tests.machines import Machine, booted, decoded
from tests.tpm_lab import Maker

pytestmark = pytest.mark.django_db

FILES = {b"/init": b"init", b"/bin/sh": b"sh", b"/usr/bin/qemu": b"qemu"}


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

    def attest(self, portal: Portal, *, boot: int | None = None, sent: bytes | None = None) -> Any:
        """Attest with what the challenge asks for of the list; `boot` is what the agent says of its TPM."""
        challenge = portal.challenge(self.machine, **({} if boot is None else {"boot": boot})).json()
        self.asked_from = challenge["ima_from"]
        body = self.machine.evidence(decoded(challenge, "nonce"))
        body["ima_log"] = to_b64u(self.list[self.asked_from :] if sent is None else sent)
        return portal.post(f"challenges/{challenge['id']}/evidence", body)


@pytest.fixture
def running(maker: Maker, tmp_path: Path) -> Iterator[Running]:
    with booted(maker, tmp_path, name="nbg-i01", capture="secureboot-on") as machine:
        yield Running(machine)


@pytest.fixture
def watched(fabric: Portal, running: Running, admin: User, approver: User) -> Portal:
    """A fabric that has approved the running host; its baseline is that of the healthy host, which booted the same."""
    approve_host(fabric, running.machine, admin, approver)
    running.measure(*(ng(path, content) for path, content in FILES.items()))
    return fabric


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


def lines(*paths: bytes) -> bytes:
    return b"".join(
        b"sha256:%s  %s\n" % (hashlib.sha256(FILES[path]).hexdigest().encode(), path) for path in sorted(paths)
    )


def resets(machine: Machine) -> int:
    count = Attestation.objects.filter(attester_id=machine.attester, code="").values_list("reset_count", flat=True)[0]
    assert count is not None
    return count


def test_only_what_is_new_travels_the_second_time(watched: Portal, running: Running) -> None:
    assert running.attest(watched).json()["status"] == "Passed"
    before = len(running.list)
    running.measure(ng(b"/usr/bin/ssh", b"ssh"))
    assert running.attest(watched, boot=resets(running.machine)).json()["status"] == "Passed"
    assert running.asked_from == before
    progress = ImaProgress.objects.get(pk=UUID(running.machine.attester))
    assert (progress.offset, progress.entries) == (len(running.list), 5)


def test_the_parts_make_the_whole_list_again(watched: Portal, running: Running) -> None:
    running.attest(watched)
    for name in (b"/a", b"/b"):
        running.measure(ng(name, name))
        running.attest(watched, boot=resets(running.machine))
    newest = Attestation.objects.filter(attester_id=running.machine.attester).first()
    assert newest is not None
    claims = stored.claims_of(newest, with_ima=True)
    assert claims is not None
    assert claims.ima is not None
    assert claims.ima.position.offset == len(running.list)


def test_a_host_that_started_again_sends_its_whole_list(watched: Portal, running: Running) -> None:
    running.attest(watched)
    assert running.attest(watched, boot=resets(running.machine) + 1).json()["status"] == "Passed"
    assert running.asked_from == 0


def test_a_rest_that_does_not_go_on_from_what_is_known_is_refused(watched: Portal, running: Running) -> None:
    running.attest(watched)
    running.measure(ng(b"/a", b"a"), ng(b"/b", b"b"))
    boot, known = resets(running.machine), ImaProgress.objects.get(pk=UUID(running.machine.attester)).offset
    for sent in (running.list, b"", running.list[known + len(ng(b"/a", b"a")) :]):
        answer = running.attest(watched, boot=boot, sent=sent)
        assert (answer.status_code, answer.json()["code"]) == (422, "ima_replay_mismatch")
    assert running.attest(watched, boot=boot).json()["status"] == "Passed"


def test_a_list_that_another_attestation_went_on_with_is_asked_for_anew(watched: Portal, running: Running) -> None:
    running.attest(watched)
    boot = resets(running.machine)
    running.measure(ng(b"/a", b"a"))
    early = watched.challenge(running.machine, boot=boot).json()
    running.attest(watched, boot=boot)
    body = running.machine.evidence(decoded(early, "nonce")) | {"ima_log": to_b64u(running.list[early["ima_from"] :])}
    answer = watched.post(f"challenges/{early['id']}/evidence", body)
    assert (answer.status_code, answer.json()["code"]) == (422, "ima_list_needed")
    assert running.attest(watched, boot=boot).json()["status"] == "Passed"


def test_a_waiting_hosts_list_is_not_kept(portal: Portal, running: Running) -> None:
    portal.enrol(running.machine)
    assert running.attest(portal).json()["status"] == "UnauthorizedHost"
    assert not ImaProgress.objects.exists()
    assert not Attestation.objects.exclude(ima_log=None).exists()


def test_a_host_runs_what_the_policy_names(watched: Portal, running: Running, admin: User, approver: User) -> None:
    running.attest(watched)
    named(lines(*FILES), admin, approver)
    assert running.attest(watched).json()["status"] == "Passed"


def test_a_file_that_nobody_approved_is_named(watched: Portal, running: Running, admin: User, approver: User) -> None:
    running.attest(watched)
    named(lines(b"/init", b"/bin/sh"), admin, approver)
    verdict = running.attest(watched).json()
    assert (verdict["status"], verdict["certificate"]) == ("InsecureHostConfiguration", None)
    assert ["/usr/bin/qemu" in finding["what"] for finding in verdict["findings"]] == [True]


def test_what_was_found_counts_until_the_host_starts_again(
    watched: Portal, running: Running, admin: User, approver: User
) -> None:
    named(lines(b"/init", b"/bin/sh"), admin, approver)
    assert running.attest(watched).json()["status"] == "InsecureHostConfiguration"
    verdict = running.attest(watched, boot=resets(running.machine)).json()
    assert running.asked_from == len(running.list)
    assert verdict["status"] == "InsecureHostConfiguration"
    assert any("/usr/bin/qemu" in finding["what"] for finding in verdict["findings"])


def test_a_new_runtime_policy_judges_what_is_known_already(
    watched: Portal, running: Running, admin: User, approver: User
) -> None:
    named(lines(*FILES), admin, approver)
    assert running.attest(watched).json()["status"] == "Passed"
    named(lines(b"/init"), admin, approver)
    verdict = running.attest(watched, boot=resets(running.machine)).json()
    assert running.asked_from == len(running.list)
    assert verdict["status"] == "InsecureHostConfiguration"
    named(lines(*FILES), admin, approver)
    assert running.attest(watched, boot=resets(running.machine)).json()["status"] == "Passed"


def test_leaving_the_list_out_once_hides_nothing_from_a_new_policy(
    watched: Portal, running: Running, admin: User, approver: User
) -> None:
    running.attest(watched)
    watched.attest(running.machine)
    named(lines(b"/init", b"/bin/sh"), admin, approver)
    verdict = running.attest(watched, boot=resets(running.machine)).json()
    assert running.asked_from == len(running.list)
    assert any("/usr/bin/qemu" in finding["what"] for finding in verdict["findings"])


def test_a_part_that_is_not_kept_any_more_is_asked_for_again(
    watched: Portal, running: Running, admin: User, approver: User
) -> None:
    running.attest(watched)
    ImaProgress.objects.filter(pk=UUID(running.machine.attester)).update(offset=len(running.list) - 1)
    named(lines(*FILES), admin, approver)
    boot = resets(running.machine)
    answer = running.attest(watched, boot=boot, sent=b"")
    assert (answer.status_code, answer.json()["code"]) == (422, "ima_list_needed")
    assert running.attest(watched, boot=boot).json()["status"] == "Passed"
    assert running.asked_from == 0


def test_a_host_that_stops_sending_its_list_does_not_pass(
    watched: Portal, running: Running, admin: User, approver: User
) -> None:
    named(lines(*FILES), admin, approver)
    assert running.attest(watched).json()["status"] == "Passed"
    verdict = watched.attest(running.machine).json()
    assert [finding["code"] for finding in verdict["findings"]] == ["code_integrity_policy_unproven"]


def test_another_node_goes_on_without_this_ones_memory(
    watched: Portal, running: Running, admin: User, approver: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    named(lines(*FILES), admin, approver)
    running.attest(watched)
    monkeypatch.setattr(memory, "_boots", memory.Recent(memory.MOST_BOOTS))
    monkeypatch.setattr(memory, "_known", memory.Recent(memory.MOST_POLICIES))
    running.measure(ng(b"/bin/sh", b"sh"))
    assert running.attest(watched, boot=resets(running.machine)).json()["status"] == "Passed"


def test_a_text_of_a_policy_reads_back_as_the_same_policy() -> None:
    text = b"".join(sorted(lines(*FILES).splitlines(keepends=True)))
    assert runtime_text(parse_runtime_text(text)) == text
