"""An IMA list travels in parts, on any node, and what it once showed counts until the host starts again."""

import hashlib
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User

from attestation import appraisal, memory, service, stored
from attestation.core.appraise import appraise
from attestation.core.base64url import to_b64u
from attestation.core.document import to_json
from attestation.core.runtime_text import parse_runtime_text, runtime_text
from attestation.models import Attestation, Attester, Blob, ImaProgress, PolicyVersion, RuntimePolicy
from attestation.policy import base_document
from tests.attestation.conftest import Portal
from tests.ima_lists import ng
from tests.machines import Machine, decoded
from tests.measuring import FILES, Running, lines, named

pytestmark = pytest.mark.django_db


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


def test_a_policy_that_changes_meanwhile_judges_what_the_one_before_had_passed_over(
    watched: Portal, running: Running, admin: User, approver: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    named(lines(*FILES), admin, approver)
    running.attest(watched)  # every line is known now
    service.add_group("edge", "Edge", description="", canary_of=None, by=admin, now=datetime.now(UTC))
    strict = RuntimePolicy.objects.get()
    text = lines(b"/init")
    content = Blob.objects.create(pk=hashlib.sha256(text).hexdigest(), content=text, size=len(text))
    other = RuntimePolicy.objects.create(
        name="strict", version=1, content=content, entries=1, origin="a test", created_at=strict.created_at
    )
    document = to_json(base_document("default")[1]) | {"baselines": [], "runtime": str(other.pk)}
    PolicyVersion.objects.create(
        version=99,
        group_id="edge",
        document=document,
        effective_at=strict.created_at,
        created_at=strict.created_at,
        created_by="ada",
        reason="a test",
    )

    def appraise_late(*args: Any, **more: Any) -> Any:
        monkeypatch.setattr(appraisal, "appraise", appraise)
        Attester.objects.filter(pk=running.machine.attester).update(group="edge")
        return appraise(*args, **more)

    monkeypatch.setattr(appraisal, "appraise", appraise_late)
    found = [finding["what"] for finding in running.attest(watched).json()["findings"]]
    assert any("/usr/bin/qemu" in what for what in found)
    assert any("/bin/sh" in what for what in found)


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


def test_no_list_is_asked_of_a_host_that_waits(portal: Portal, running: Running) -> None:
    portal.enrol(running.machine)
    challenge = portal.challenge(running.machine).json()
    assert challenge["send_ima_log"] is False
    body = running.machine.evidence(decoded(challenge, "nonce")) | {"ima_log": "A" * (3 << 20)}
    answer = portal.post(f"challenges/{challenge['id']}/evidence", body)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_a_list_is_asked_of_an_approved_host(watched: Portal, running: Running) -> None:
    assert watched.challenge(running.machine).json()["send_ima_log"] is True
