"""Runtime policies on pages: made from a host or a list, read a page at a time, amended from a finding."""

import hashlib
import html
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from attestation import service
from attestation.models import PolicyDraft, RuntimePolicy
from tests.attestation.conftest import Portal
from tests.attestation.test_runtime_policies import AGGREGATE, SSH, pem
from tests.fabric.conftest import newest
from tests.ima_lists import ng
from tests.measuring import FILES, Running, lines, named

Browse = Callable[[User | None], Client]
CountQueries = Any


def text(answer: Any) -> str:
    return " ".join(html.unescape(answer.content.decode()).split())


def upload(client: Client, content: bytes | None, **changes: Any) -> Any:
    files = {} if content is None else {"listing": SimpleUploadedFile("hosts.txt", content, content_type="text/plain")}
    return client.post("/runtime/add/", {"name": "hosts", "excludes": "/srv/\n\n /var/log/x \n"} | files | changes)


def make(by: User, content: bytes = b"", name: str = "hosts") -> RuntimePolicy:
    return service.runtime_policy_from_text(
        content or lines(*FILES), name=name, excludes=(), signers=b"", origin="a test", by=by, now=datetime.now(UTC)
    )


@pytest.fixture
def found(watched: Portal, running: Running, admin: User, approver: User) -> int:
    """An attestation that found a changed file, and two that nobody approved."""
    named(lines(*FILES), admin, approver)
    running.measure(ng(b"/bin/sh", b"other"), ng(b"/usr/bin/ssh", b"ssh"), ng(b"/opt/<b>&\n", b"odd"))
    assert running.attest(watched).json()["status"] == "InsecureHostConfiguration"
    return newest(running.machine)


def test_a_list_is_uploaded_and_shown(admin: User, auditor: User, browse: Browse) -> None:
    answer = upload(browse(admin), lines(*FILES), signers=SimpleUploadedFile("signers.pem", pem()))
    assert answer.status_code == 302
    page = text(browse(auditor).get(answer["Location"]))
    assert "Uploaded from hosts.txt. Made" in page
    for shown in ("hosts v1", "/usr/bin/qemu", "/srv/", "/var/log/x", "CN=IMA signer", "No group’s policy in force"):
        assert shown in page
    assert "Upload a list" not in text(browse(auditor).get("/runtime/"))
    assert "hosts" in text(browse(auditor).get("/runtime/"))
    assert "made runtime policy" in text(browse(auditor).get("/audit/"))


BAD_UPLOADS: dict[str, tuple[bytes | None, dict[str, Any], str]] = {
    "nothing": (None, {}, "Choose a list of files, signing certificates, or both"),
    "an empty list": (b"", {}, "The submitted file is empty"),
    "a list of comments": (b"# nothing\n", {}, "nothing could run"),
    "bytes": (b"\0\xff\n", {}, "Line 1 of the list is not a digest"),
    "a boot aggregate": (AGGREGATE.encode(), {}, "boot aggregate"),
    "no name": (lines(*FILES), {"name": " "}, "Give the policy a name"),
    "too long a name": (lines(*FILES), {"name": "x" * 101}, "at most 100 characters"),
    "a NUL in the name": (lines(*FILES), {"name": "a\0b"}, "Null characters are not allowed"),
    "everything left out": (lines(*FILES), {"excludes": "/"}, "cannot be excluded"),
    "no certificate": (lines(*FILES), {"signers": SimpleUploadedFile("x.pem", b"\0")}, "no readable PEM certificate"),
    "too many certificates": (
        lines(*FILES),
        {"signers": SimpleUploadedFile("x.pem", b"-" * (256 * 1024 + 1))},
        "larger than 256 KiB",
    ),
}


@pytest.mark.parametrize(("content", "changes", "said"), BAD_UPLOADS.values(), ids=BAD_UPLOADS)
def test_what_cannot_be_read_is_said_on_the_form(
    admin: User, browse: Browse, content: bytes | None, changes: dict[str, Any], said: str
) -> None:
    answer = upload(browse(admin), content, **changes)
    assert answer.status_code in (200, 400)
    assert said in text(answer)
    assert not RuntimePolicy.objects.exists()


def test_too_large_a_list_is_not_read(admin: User, browse: Browse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fabric.code_forms.LIST_LIMIT", 10)
    assert "larger than 64 MiB" in text(upload(browse(admin), lines(*FILES)))
    assert not RuntimePolicy.objects.exists()


def test_a_list_is_read_a_page_at_a_time(admin: User, auditor: User, browse: Browse) -> None:
    rows = "".join(f"sha256:{n:064x}  /usr/lib/module-{n:05}.ko\n" for n in range(1001))
    policy, client = make(admin, rows.encode()), browse(auditor)
    first = text(client.get(f"/runtime/{policy.pk}/"))
    assert "1 to 200 of 1001" in first
    assert "module-00199.ko" in first
    assert "module-00200.ko" not in first
    last = text(client.get(f"/runtime/{policy.pk}/?page=6"))
    assert "1001 to 1001 of 1001" in last
    assert "1 to 10 of 10" in text(client.get(f"/runtime/{policy.pk}/?file=module-0012"))
    for query in ("file=module-00123", "file=" + f"{123:064x}"):
        page = text(client.get(f"/runtime/{policy.pk}/?{query}"))
        assert ("module-00123.ko" in page, "1 to 1 of 1" in page) == (True, True)
    for query in ("file=no+such", "file=%00", "file=%3Cscript%3E", "page=999&file=x", "page=x", "file=%FF"):
        answer = client.get(f"/runtime/{policy.pk}/?{query}")
        assert answer.status_code == 200
        assert "<script>" not in answer.content.decode()
    assert "No file fits this search" in text(client.get(f"/runtime/{policy.pk}/?file=nothing"))


def test_a_list_is_downloaded_as_it_can_be_uploaded(admin: User, auditor: User, browse: Browse) -> None:
    policy = make(admin, name='ho"sts\n/../x')
    answer = browse(auditor).get(f"/runtime/{policy.pk}/files.txt")
    assert answer.content == lines(*FILES)
    assert answer["Content-Type"].startswith("text/plain")
    assert answer["Content-Disposition"].startswith("attachment;")
    assert "\n" not in answer["Content-Disposition"]
    assert upload(browse(admin), answer.content).status_code == 302


def test_a_version_shows_what_it_changed(admin: User, auditor: User, browse: Browse) -> None:
    first, second = make(admin), make(admin, lines(b"/init", b"/bin/sh") + SSH.encode())
    page = text(browse(auditor).get(f"/runtime/{second.pk}/"))
    change = page.partition('id="change"')[2].partition("</table>")[0]
    assert (
        change.index("Removed") < change.index("/usr/bin/qemu") < change.index("Added") < change.index("/usr/bin/ssh")
    )
    assert "/init" not in change
    assert "Changed since" not in text(browse(auditor).get(f"/runtime/{first.pk}/"))


def test_a_version_that_is_the_same_says_so(admin: User, auditor: User, browse: Browse) -> None:
    make(admin)
    assert "The same files" in text(browse(auditor).get(f"/runtime/{make(admin).pk}/"))


def test_the_list_says_which_version_is_in_force(found: int, admin: User, auditor: User, browse: Browse) -> None:
    old = RuntimePolicy.objects.get()
    make(admin, name="files")
    page = text(browse(auditor).get("/runtime/"))
    assert f'/runtime/{old.pk}/">v1</a>' in page
    assert "Default" in page
    assert "/policies/default/" in text(browse(auditor).get(f"/runtime/{old.pk}/"))
    assert f"/runtime/{old.pk}/" in text(browse(auditor).get("/policies/default/"))


def test_the_list_takes_as_many_queries_whatever_its_length(
    found: int, admin: User, auditor: User, browse: Browse, django_assert_max_num_queries: CountQueries
) -> None:
    client = browse(auditor)
    with django_assert_max_num_queries(30) as few:
        client.get("/runtime/")
    for number in range(6):
        make(admin, name=f"policy {number}")
    with django_assert_max_num_queries(len(few)):
        client.get("/runtime/")


# --- from a host -------------------------------------------------------------------------------------------------


def test_a_hosts_list_becomes_a_policy(watched: Portal, running: Running, admin: User, browse: Browse) -> None:
    running.attest(watched)
    client, address = browse(admin), f"/attestations/{newest(running.machine)}/"
    assert f"{address}runtime/" in text(client.get(address))
    assert "Accept what nbg-i01 has run?" in text(client.get(f"{address}runtime/"))
    answer = client.post(f"{address}runtime/", {"name": "hosts", "excludes": "/srv/"})
    assert answer.status_code == 302
    policy = RuntimePolicy.objects.get()
    assert (policy.entries, policy.excludes) == (len(FILES), ["/srv/"])
    assert "What nbg-i01 had measured" in text(client.get(answer["Location"]))


def test_where_no_list_is_kept_none_is_offered(watched: Portal, running: Running, admin: User, browse: Browse) -> None:
    watched.attest(running.machine)
    client, address = browse(admin), f"/attestations/{newest(running.machine)}/"
    assert f"{address}runtime/" not in text(client.get(address))
    answer = client.post(f"{address}runtime/", {"name": "hosts"})
    assert answer.status_code == 404
    assert "Not done: No proved IMA list is kept" in text(answer)
    assert client.get("/attestations/999999/runtime/").status_code == 404
    assert not RuntimePolicy.objects.exists()


def test_a_policy_of_a_host_needs_a_name(watched: Portal, running: Running, admin: User, browse: Browse) -> None:
    running.attest(watched)
    answer = browse(admin).post(f"/attestations/{newest(running.machine)}/runtime/", {"name": "", "excludes": "*"})
    assert "Give the policy a name" in text(answer)
    assert not RuntimePolicy.objects.exists()


# --- from a finding ----------------------------------------------------------------------------------------------


def accepting(found: int, number: int) -> str:
    return f"/attestations/{found}/findings/{number}/accept/"


def test_each_finding_about_a_file_offers_to_accept_it(
    found: int, running: Running, admin: User, auditor: User, browse: Browse
) -> None:
    for address in (f"/attestations/{found}/", f"/hosts/{running.machine.attester}/"):
        page = text(browse(admin).get(address))
        assert all(accepting(found, number) in page for number in range(3))
        assert "Accept this file" not in text(browse(auditor).get(address))


def test_what_is_accepted_is_shown_before_it_is(found: int, admin: User, browse: Browse) -> None:
    findings = service.attestation(found).findings
    changed = next(at for at, each in enumerate(findings) if "/bin/sh" in each["what"])
    page = text(browse(admin).get(accepting(found, changed)))
    for digest in (hashlib.sha256(b"other").hexdigest(), hashlib.sha256(b"sh").hexdigest()):
        assert digest in page
    assert "files v1" in page
    assert "/usr/bin/ssh" in page.partition("of the same attestation as well")[2]
    assert "decided by another person" in page
    assert not PolicyDraft.objects.filter(state="draft").exists()


def test_one_click_and_one_confirmation_make_a_draft(found: int, admin: User, browse: Browse) -> None:
    answer = browse(admin).post(accepting(found, 0))
    draft = PolicyDraft.objects.get(state="draft")
    assert (answer.status_code, answer["Location"]) == (302, f"/drafts/{draft.pk}/")
    assert draft.content().runtime == str(RuntimePolicy.objects.get(version=2).pk)
    assert "files v2" in text(browse(admin).get(answer["Location"]))


def test_several_files_are_accepted_together(found: int, admin: User, browse: Browse) -> None:
    assert browse(admin).post(accepting(found, 0), {"also": ["1", "2"]}).status_code == 302
    change = service.runtime_difference(*RuntimePolicy.objects.order_by("version"))
    assert len(change.added) == 3
    assert PolicyDraft.objects.get(state="draft").title.endswith("and 2 more")


@pytest.mark.parametrize("also", ["0", "99", "-1", "x", "", "\0", "²"])
def test_only_files_of_the_same_attestation_are_accepted_together(
    found: int, admin: User, browse: Browse, also: str
) -> None:
    answer = browse(admin).post(accepting(found, 0), {"also": [also]})
    assert answer.status_code == 200
    assert "Not recorded" in text(answer)
    assert not PolicyDraft.objects.filter(state="draft").exists()


def test_there_is_nothing_to_accept_where_no_file_was_found(
    found: int, watched: Portal, running: Running, admin: User, browse: Browse
) -> None:
    client = browse(admin)
    assert client.post(accepting(found, 99)).status_code == 404
    assert client.post(accepting(999999, 0)).status_code == 404
    watched.attest(running.machine)
    without = newest(running.machine)
    files = service.acceptable(service.attestation(without))
    others = [at for at in range(len(service.attestation(without).findings)) if at not in files]
    assert all(client.post(accepting(without, at)).status_code == 404 for at in others)
    assert not PolicyDraft.objects.filter(state="draft").exists()


def test_what_the_policy_accepts_by_now_is_said_on_the_page(
    found: int, admin: User, approver: User, browse: Browse
) -> None:
    files = service.files_of(service.attestation(found).findings[0])
    accepted = lines(*FILES) + b"".join(f"{each.seen}  {each.text}\n".encode() for each in files)
    named(accepted, admin, approver)
    answer = browse(admin).post(accepting(found, 0))
    assert answer.status_code == 409
    assert "Not done: The policy accepts all of these already." in text(answer)
    assert not PolicyDraft.objects.filter(state="draft").exists()


def test_a_path_with_markup_stays_text(found: int, admin: User, browse: Browse) -> None:
    client = browse(admin)
    for address in (f"/attestations/{found}/", accepting(found, 0), accepting(found, 2)):
        assert "<b>&\\x0a" not in client.get(address).content.decode()
    answer = client.post(accepting(found, 2), {"also": ["0", "1"]})
    page = client.get(f"/runtime/{RuntimePolicy.objects.get(version=2).pk}/").content.decode()
    assert answer.status_code == 302
    assert "/opt/&lt;b&gt;&amp;\\x0a" in page
