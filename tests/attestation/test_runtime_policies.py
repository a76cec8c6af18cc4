"""Runtime policies are made from a host's list, a text, or findings; each is a new version that never changes."""

import hashlib
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from django.contrib.auth.models import User
from django.db import DatabaseError, transaction
from django.db.models.signals import pre_save

from attestation import runtime_policies, service
from attestation.core.document import to_json
from attestation.errors import AlreadyDecided, CannotApprove, NotAllowed, NotFound, ParseError, Refusal, TooLarge
from attestation.models import Attestation, Blob, PolicyDraft, RuntimePolicy
from attestation.policy import base_document, runtime_rules
from ledger import service as ledger
from tests.attestation.conftest import Portal, person
from tests.ima_lists import ng, sig
from tests.ima_signing import certificate, ima_signature
from tests.measuring import FILES, Running, lines, named

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
KEY = ec.generate_private_key(ec.SECP256R1())
WEAK_KEY = rsa.generate_private_key(65537, 1024)  # noqa: S505  (to see it refused)
SSH = "sha256:" + hashlib.sha256(b"ssh").hexdigest() + "  /usr/bin/ssh"
AGGREGATE = SSH.replace("/usr/bin/ssh", "boot_aggregate")
SIGNER = certificate(KEY)


def pem(der: bytes = SIGNER) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def newest(running: Running) -> int:
    return Attestation.objects.filter(attester_id=running.machine.attester).latest("id").pk


def from_host(attestation_id: int, by: User, **changes: Any) -> RuntimePolicy:
    wanted = {"name": "hosts", "excludes": (), "signers": b""} | changes
    return service.runtime_policy_from_host(attestation_id, by=by, now=NOW, **wanted)


def from_text(text: bytes, by: User, **changes: Any) -> RuntimePolicy:
    wanted = {"name": "hosts", "excludes": (), "signers": b"", "origin": "files.txt"} | changes
    return service.runtime_policy_from_text(text, by=by, now=NOW, **wanted)


def nothing_was_made() -> bool:
    return not RuntimePolicy.objects.exists() and not ledger.leaves(act_prefix="runtime.").exists()


# --- from a host -------------------------------------------------------------------------------------------------


def test_what_a_host_was_proved_to_have_measured_becomes_a_policy(
    watched: Portal, running: Running, admin: User, approver: User
) -> None:
    running.attest(watched)
    row = from_host(newest(running), admin)
    assert service.runtime_policy_text(row) == lines(*FILES)
    assert (str(row), row.entries, row.created_by) == ("hosts v1", len(FILES), "ada")
    assert "nbg-i01" in row.origin
    leaf = ledger.leaves(act_prefix="runtime.added").get()
    assert (leaf.subject, leaf.actor, leaf.detail["entries"]) == (row.subject, "user:ada", len(FILES))
    named(service.runtime_policy_text(row), admin, approver)
    assert running.attest(watched).json()["status"] == "Passed"


def test_a_list_that_came_in_parts_is_taken_whole(watched: Portal, running: Running, admin: User) -> None:
    running.attest(watched)
    boot = Attestation.objects.get(pk=newest(running)).reset_count
    running.measure(ng(b"/usr/bin/ssh", b"ssh"))
    running.attest(watched, boot=boot)
    assert running.asked_from > 0
    assert SSH.encode() in service.runtime_policy_text(from_host(newest(running), admin)).splitlines()


def test_a_policy_of_the_same_name_is_its_next_version(watched: Portal, running: Running, admin: User) -> None:
    running.attest(watched)
    first = from_text(lines(b"/init"), admin)
    second = from_host(newest(running), admin)
    assert [str(each) for each in service.runtime_policies()] == ["hosts v2", "hosts v1"]
    change = service.runtime_difference(first, second)
    assert [line.rpartition(" ")[2] for line in change.added] == ["/usr/bin/qemu", "/bin/sh"]
    assert change.removed == ()


def test_an_attestation_without_a_kept_list_makes_no_policy(watched: Portal, running: Running, admin: User) -> None:
    watched.attest(running.machine)
    for attestation_id in (newest(running), 0):
        with pytest.raises(NotFound, match="No proved IMA list"):
            from_host(attestation_id, admin)
    assert nothing_was_made()


def test_a_refused_list_makes_no_policy(watched: Portal, running: Running, admin: User) -> None:
    assert running.attest(watched, sent=running.list[:-1]).status_code != 200
    with pytest.raises(NotFound):
        from_host(newest(running), admin)
    assert nothing_was_made()


def test_a_host_that_was_turned_away_is_no_model_for_others(
    watched: Portal, running: Running, admin: User, approver: User
) -> None:
    running.attest(watched)
    service.revoke_host(Attestation.objects.get(pk=newest(running)).attester_id, by=admin, reason="stolen", now=NOW)
    with pytest.raises(CannotApprove, match="revoked"):
        from_host(newest(running), admin)
    assert nothing_was_made()


# --- from a text and signing certificates ------------------------------------------------------------------------


def test_a_list_its_excludes_and_its_signers_are_kept_as_given(db: None, admin: User) -> None:
    row = from_text(lines(*FILES), admin, excludes=["/scratch/"], signers=pem() + pem())
    assert (row.excludes, row.signers, row.origin) == (["/scratch/"], [SIGNER.hex()], "files.txt")
    rules = runtime_rules(str(row.pk))
    assert rules.excludes == (b"/scratch/",)
    assert [each.subject for each in rules.signers] == ["CN=IMA signer"]


def test_a_signers_files_may_run_whatever_they_are_called(
    watched: Portal, running: Running, admin: User, approver: User
) -> None:
    digest = hashlib.sha256(b"signed").digest()
    running.measure(sig(b"/opt/signed", b"signed", signature=ima_signature(KEY, digest)))
    row = from_text(lines(*FILES), admin, signers=pem())
    put_in_force(row, admin, approver)
    assert running.attest(watched).json()["status"] == "Passed"


def put_in_force(row: RuntimePolicy, admin: User, approver: User) -> None:
    now = datetime.now(UTC)
    draft = service.start_draft("default", title="Files", by=admin, now=now)
    document = to_json(base_document("default")[1]) | {"runtime": str(row.pk)}
    decide(service.change_draft(draft.pk, document, revision=draft.revision, by=admin, now=now), admin, approver)


def decide(draft: PolicyDraft, admin: User, approver: User) -> None:
    now = datetime.now(UTC)
    run = service.start_dry_run(draft.pk, by=admin, now=now)
    while service.go_on_dry_run(run.pk, now=now).finished_at is None:
        pass
    proposal = service.propose_draft(draft.pk, by=admin, reason="seen them all", now=now)
    service.decide(proposal.pk, by=approver, approve=True, reason="looked at them", now=now)


def test_signers_alone_are_enough(db: None, admin: User) -> None:
    row = from_text(b"", admin, signers=pem())
    assert (row.entries, service.runtime_policy_text(row)) == (0, b"")


BAD_UPLOADS: dict[str, tuple[dict[str, Any], type[Refusal], str]] = {
    "no digest": ({"text": b"/bin/sh\n"}, ParseError, "Line 1 of the list"),
    "a wrong digest": ({"text": lines(b"/init") + b"sha256:zz  /x\n"}, ParseError, "Line 2 of the list"),
    "a digest of another length": ({"text": b"sha256:abcd  /x\n"}, ParseError, "Line 1 of the list"),
    "one blank": ({"text": lines(b"/init").replace(b"  ", b" ")}, ParseError, "two blanks"),
    "a boot aggregate": (
        {"text": SSH.replace("/usr/bin/ssh", "boot_aggregate").encode()},
        ParseError,
        "boot aggregate",
    ),
    "nothing": ({"text": b"# nothing\n\n"}, ParseError, "nothing could run"),
    "everything excluded": ({"excludes": ["/"]}, ParseError, "cannot be excluded"),
    "an exclude that is no path": ({"excludes": ["*.log"]}, ParseError, "cannot be excluded"),
    "too many excludes": ({"excludes": [f"/{n}" for n in range(1001)]}, ParseError, "at most 1000"),
    "no certificate": ({"signers": b"hello"}, ParseError, "no readable PEM certificate"),
    "half a certificate": ({"signers": pem()[:-60]}, ParseError, "no readable PEM certificate"),
    "a certificate of a weak key": ({"signers": pem(certificate(WEAK_KEY))}, ParseError, "2048 bits"),
    "too large a file of certificates": ({"signers": b"-" * (256 * 1024 + 1)}, TooLarge, "262145 bytes"),
}


@pytest.mark.parametrize(("changes", "refusal", "said"), BAD_UPLOADS.values(), ids=BAD_UPLOADS)
def test_what_cannot_be_read_makes_no_policy(
    db: None, admin: User, changes: dict[str, Any], refusal: type[Refusal], said: str
) -> None:
    wanted = {"text": lines(*FILES)} | changes
    with pytest.raises(refusal, match=said):
        from_text(wanted.pop("text"), admin, **wanted)
    assert nothing_was_made()


def test_too_large_a_list_is_refused_unread(db: None, admin: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_policies, "UPLOAD_LIMIT", 10)
    with pytest.raises(TooLarge, match="10 is the limit"):
        from_text(lines(*FILES), admin)
    assert nothing_was_made()


# --- from findings -----------------------------------------------------------------------------------------------


@pytest.fixture
def found(watched: Portal, running: Running, admin: User, approver: User) -> int:
    """An attestation whose findings are three files: one changed, two that nobody approved."""
    named(lines(*FILES), admin, approver)
    running.measure(ng(b"/bin/sh", b"other"), ng(b"/usr/bin/ssh", b"ssh"), ng(b"/scratch/a\nb\\c", b"odd"))
    assert running.attest(watched).json()["status"] == "InsecureHostConfiguration"
    return newest(running)


def number_of(found: int, path: str) -> int:
    findings = Attestation.objects.get(pk=found).findings
    return next(at for at, each in enumerate(findings) if path in each["what"])


def test_an_accepted_finding_is_a_draft_that_names_the_next_version(found: int, admin: User) -> None:
    before = base_document("default")[1]
    draft = service.accept_finding(found, number_of(found, "ssh"), by=admin, now=NOW)
    row = RuntimePolicy.objects.get(version=2)
    assert (draft.state, draft.group_id, draft.title) == ("draft", "default", "Accept /usr/bin/ssh")
    assert draft.content().runtime == str(row.pk)
    assert (draft.content().baselines, draft.content().required) == (before.baselines, before.required)
    change = service.runtime_difference(RuntimePolicy.objects.get(version=1), row)
    assert (change.added, change.removed) == ((SSH,), ())
    assert "1 file accepted from findings" in row.origin
    assert base_document("default")[1] == before


def test_what_was_accepted_passes_once_another_person_decided(
    found: int, watched: Portal, running: Running, admin: User, approver: User
) -> None:
    numbers = range(len(Attestation.objects.get(pk=found).findings))
    draft = service.accept_finding(found, numbers[0], also=numbers[1:], by=admin, now=datetime.now(UTC))
    assert draft.title.endswith("and 2 more")
    assert running.attest(watched).json()["status"] == "InsecureHostConfiguration"
    decide(draft, admin, approver)
    assert running.attest(watched).json()["status"] == "Passed"


def test_a_changed_file_keeps_what_was_accepted_before(found: int, admin: User) -> None:
    service.accept_finding(found, number_of(found, "/bin/sh"), by=admin, now=NOW)
    text = service.runtime_policy_text(RuntimePolicy.objects.get(version=2))
    assert sum(line.endswith(b"  /bin/sh") for line in text.splitlines()) == 2


def test_a_path_that_is_no_plain_text_is_accepted_as_it_was_found(found: int, admin: User) -> None:
    draft = service.accept_finding(found, number_of(found, "/scratch/a"), by=admin, now=NOW)
    assert b"/scratch/a\nb\\c" in runtime_rules(draft.content().runtime).accepted


@pytest.mark.parametrize("number", [-1, 99])
def test_a_finding_that_is_not_there_is_not_accepted(found: int, admin: User, number: int) -> None:
    for numbers in ((number, ()), (0, (number,))):
        with pytest.raises(NotFound):
            service.accept_finding(found, numbers[0], also=numbers[1], by=admin, now=NOW)
    with pytest.raises(NotFound):
        service.accept_finding(0, 0, by=admin, now=NOW)
    assert not PolicyDraft.objects.filter(state="draft").exists()


def test_a_finding_about_no_file_is_not_accepted(
    watched: Portal, running: Running, admin: User, approver: User
) -> None:
    named(lines(*FILES), admin, approver)
    assert watched.attest(running.machine).json()["findings"]
    with pytest.raises(CannotApprove, match="about no file"):
        service.accept_finding(newest(running), 0, by=admin, now=NOW)


def test_a_file_that_is_accepted_by_now_is_not_accepted_again(found: int, admin: User, approver: User) -> None:
    decide(service.accept_finding(found, 0, by=admin, now=datetime.now(UTC)), admin, approver)
    with pytest.raises(CannotApprove, match="accepts all of these already"):
        service.accept_finding(found, 0, by=admin, now=NOW)
    assert not PolicyDraft.objects.filter(state="draft").exists()


def test_a_group_whose_policy_names_no_files_any_more_has_none_to_accept(
    found: int, admin: User, approver: User
) -> None:
    now = datetime.now(UTC)
    draft = service.start_draft("default", title="No files", by=admin, now=now)
    document = to_json(base_document("default")[1]) | {"runtime": ""}
    decide(service.change_draft(draft.pk, document, revision=draft.revision, by=admin, now=now), admin, approver)
    with pytest.raises(CannotApprove, match="no runtime policy any more"):
        service.accept_finding(found, 0, by=admin, now=NOW)
    assert (RuntimePolicy.objects.count(), PolicyDraft.objects.filter(state="draft").count()) == (1, 0)


def test_a_revoked_hosts_files_are_not_accepted(found: int, running: Running, admin: User, approver: User) -> None:
    service.revoke_host(Attestation.objects.get(pk=found).attester_id, by=admin, reason="stolen", now=NOW)
    with pytest.raises(CannotApprove, match="revoked"):
        service.accept_finding(found, 0, by=admin, now=NOW)


@pytest.mark.parametrize("line", ["sha256:00  /x", "/x", "sha256:" + "0" * 64 + "  ", AGGREGATE])
def test_a_line_that_accepts_no_file_is_refused(db: None, admin: User, line: str) -> None:
    row = from_text(lines(*FILES), admin)
    with pytest.raises(ParseError):
        service.accept_files(row.pk, [line], by=admin, now=NOW)
    assert RuntimePolicy.objects.count() == 1


# --- what pages show ---------------------------------------------------------------------------------------------


def test_lines_are_searched_and_taken_in_slices(db: None, admin: User) -> None:
    digest = "sha256:" + "00" * 32
    paths = ["/a b", "/bin/sh", "/usr/bin/ssh", r"/x\x5cy", r"/\xc3\xa9t\xc3\xa9"]
    row = from_text("".join(f"{digest}  {path}\n" for path in paths).encode(), admin)
    everything = service.runtime_lines(row)
    assert (len(everything), [each.path for each in everything[0:2]]) == (5, [r"/\xc3\xa9t\xc3\xa9", "/a b"])
    assert everything[0] == everything[0:1][0]
    assert {each.digest for each in everything} == {digest}
    searches = {"sh": 2, "été": 1, r"\x5c": 1, digest: 5, "0" * 8: 5, "000": 0, "nothing": 0, "\n": 0, "/A B": 0}
    for query, found in searches.items():
        matching = service.runtime_lines(row, query)
        assert (len(matching), len(matching[0:9])) == (found, found)
    with pytest.raises(IndexError):
        everything[5]


def test_a_difference_shows_the_first_lines_and_counts_the_others(db: None, admin: User) -> None:
    text = "".join(f"sha256:{n:064x}  /f/{n}\n" for n in range(500)).encode()
    first, second = from_text(text, admin), from_text(lines(b"/init"), admin)
    change = service.runtime_difference(first, second)
    assert [line.rpartition("  ")[2] for line in change.added] == ["/init"]
    assert (change.removed[0][-4:], len(change.removed), change.more_removed) == ("/f/0", 200, 300)
    back = service.runtime_difference(second, first)
    assert (len(back.added), back.more_added, len(back.removed), back.more_removed) == (200, 300, 1, 0)
    same = service.runtime_difference(first, first)
    assert (same.added, same.removed) == ((), ())


def test_the_newest_version_of_each_policy_is_listed(db: None, admin: User) -> None:
    for name in ("hosts", "other", "hosts"):
        from_text(lines(b"/init"), admin, name=name)
    assert [str(each) for each in service.newest_runtime_policies()] == ["hosts v2", "other v1"]


def test_a_policy_says_which_groups_it_counts_for(
    watched: Portal, running: Running, admin: User, approver: User
) -> None:
    old, now = from_text(lines(b"/init"), admin), datetime.now(UTC)
    assert service.named_by(now=now) == {}
    put_in_force(old, admin, approver)
    new = from_text(lines(*FILES), admin)
    put_in_force(new, admin, approver)
    named_by = service.named_by(now=datetime.now(UTC))
    assert {key: [str(group) for group in groups] for key, groups in named_by.items()} == {str(new.pk): ["Default"]}


def test_half_a_million_lines_are_paged_and_compared(db: None, admin: User) -> None:
    """In seconds on a slow machine, where a line each made into an object would take the memory instead."""
    rows = [f"sha256:{n:064x}  /usr/lib/module-{n:06}.ko\n" for n in range(500_000)]
    texts = ["".join(rows).encode(), "".join(rows[:-1]).encode()]
    blobs = [Blob.objects.create(pk=hashlib.sha256(text).hexdigest(), content=text, size=len(text)) for text in texts]
    first, second = (
        RuntimePolicy.objects.create(
            name="large", version=at, content=blob, entries=500_000, origin="a test", created_at=NOW, created_by="ada"
        )
        for at, blob in enumerate(blobs, start=1)
    )
    started = time.process_time()
    assert service.runtime_lines(first)[499_999:500_049][0].path == "/usr/lib/module-499999.ko"
    assert len(service.runtime_lines(first, "module-4999")) == 100
    assert service.runtime_difference(first, second).removed[0].endswith("499999.ko")
    assert time.process_time() - started < 10


# --- whoever does it ---------------------------------------------------------------------------------------------


def test_only_who_may_propose_makes_a_policy(found: int) -> None:
    ways: tuple[Callable[[User], object], ...] = (
        lambda by: from_host(found, by),
        lambda by: from_text(lines(*FILES), by),
        lambda by: service.accept_files(RuntimePolicy.objects.get().pk, [SSH], by=by, now=NOW),
        lambda by: service.accept_finding(found, 0, by=by, now=NOW),
    )
    for user in (person("rob"), person("eve", "decide", "revoke")):
        for way in ways:
            with pytest.raises(NotAllowed):
                way(user)
    assert RuntimePolicy.objects.count() == 1


def test_a_policy_that_is_not_there_is_not_found(db: None, admin: User) -> None:
    with pytest.raises(NotFound):
        service.runtime_policy(uuid4())
    with pytest.raises(NotFound):
        service.accept_files(uuid4(), [SSH], by=admin, now=NOW)


def test_two_people_do_not_make_the_same_version(db: None, admin: User) -> None:
    first = from_text(lines(b"/init"), admin)

    def meanwhile(sender: object, instance: RuntimePolicy, **kwargs: object) -> None:
        """Somebody else is a moment faster."""
        pre_save.disconnect(meanwhile, sender=RuntimePolicy)
        RuntimePolicy.objects.bulk_create(
            [RuntimePolicy(name="hosts", version=2, content=first.content, entries=1, origin="x", created_at=NOW)]
        )

    pre_save.connect(meanwhile, sender=RuntimePolicy)
    with pytest.raises(AlreadyDecided, match="meanwhile"):
        from_text(lines(*FILES), admin)
    assert len(ledger.leaves(act_prefix="runtime.added")) == 1


def test_a_version_never_changes(db: None, admin: User) -> None:
    row = from_text(lines(*FILES), admin)
    with pytest.raises(DatabaseError), transaction.atomic():
        RuntimePolicy.objects.filter(pk=row.pk).update(excludes=["/scratch/"])
    with pytest.raises(DatabaseError), transaction.atomic():
        row.delete()
    assert RuntimePolicy.objects.get().excludes == []
