"""Code integrity policies on pages: read before they are added, and set side by side."""

import html
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from attestation import service
from attestation.models import Blob, CodeIntegrityPolicy
from ledger import service as ledger
from tests.attestation.test_code_policies import AUDITING
from tests.ci_policies import ALLOW_ALL, ALWAYS, STRICT, UMCI, Code, File, Policy, Rules, sign

Browse = Callable[[User | None], Client]
LARGE = Policy(
    flags=ALWAYS | UMCI,
    files=tuple(File(name=f"driver-{n:04}.sys") for n in range(300)),
    codes=(Code(131, Rules(files=tuple(range(300)))), Code(12, Rules(files=(0,)))),
)


def text(answer: Any) -> str:
    return " ".join(html.unescape(answer.content.decode()).split())


def look(client: Client, content: bytes, name: str = "SiPolicy.p7b") -> Any:
    return client.post("/codepolicies/add/", {"file": SimpleUploadedFile(name, content)})


def asked(answer: Any) -> dict[str, str]:
    """What the page that shows a policy would send on."""
    form = answer.context["form"]
    return {name: form[name].value() for name in ("name", "content", "file_name")}


def add(by: User, policy: Policy, name: str) -> CodeIntegrityPolicy:
    return service.add_code_policy(policy.binary, name=name, file_name="a.p7b", by=by, now=datetime.now(UTC))


def test_a_policy_is_shown_before_it_is_added(admin: User, auditor: User, browse: Browse) -> None:
    client, blobs = browse(admin), Blob.objects.count()
    shown = look(client, sign(STRICT.binary))
    page = text(shown)
    for words in ("Add this policy?", "Enforces", "Deny file name “evil.sys”", "Contoso", "SiPolicy.p7b"):
        assert words in page
    assert not CodeIntegrityPolicy.objects.exists()
    assert Blob.objects.count() == blobs
    added = client.post("/codepolicies/add/", asked(shown) | {"name": "Hosts of winter"})
    row = CodeIntegrityPolicy.objects.get()
    assert (added.status_code, added["Location"]) == (302, f"/codepolicies/{row.pk}/")
    assert (row.name, service.code_policy_file(row)) == ("Hosts of winter", sign(STRICT.binary))
    assert "added code integrity policy" in text(browse(auditor).get("/audit/"))
    assert "Hosts of winter" in text(browse(auditor).get("/codepolicies/"))


@pytest.mark.parametrize(
    ("policy", "said"),
    [(AUDITING, "This policy blocks nothing."), (ALLOW_ALL, "This policy allows everything.")],
    ids=["audits", "trivial"],
)
def test_a_policy_that_protects_nothing_is_called_so_everywhere(
    admin: User, browse: Browse, policy: Policy, said: str
) -> None:
    client = browse(admin)
    assert said in text(look(client, policy.binary))
    assert said in text(client.get(f"/codepolicies/{add(admin, policy, 'Weak').pk}/"))
    word, page = "Audits only" if policy is AUDITING else "Allows everything", text(client.get("/codepolicies/"))
    assert word in page
    assert "Enforces" not in page


def test_a_strict_policy_carries_no_warning(admin: User, browse: Browse) -> None:
    page = text(browse(admin).get(f"/codepolicies/{add(admin, STRICT, 'Hosts').pk}/"))
    assert "blocks nothing" not in page
    assert "allows everything." not in page


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<?xml version='1.0'?><SiPolicy/>", id="the XML it is made from"),
        pytest.param(b"\x30\x80", id="half a signature"),
        pytest.param(STRICT.binary[:-3], id="cut short"),
        pytest.param(bytes((4 << 20) + 1), id="too large"),
    ],
)
def test_what_is_no_policy_is_said_on_the_form(admin: User, browse: Browse, content: bytes) -> None:
    answer = look(browse(admin), content)
    assert answer.status_code in (200, 400)
    assert "Not recorded" in text(answer) or "Not done" in text(answer)
    assert "Add this policy?" not in text(answer)
    assert not CodeIntegrityPolicy.objects.exists()


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"name": ""}, 200, "Give the policy a name"),
        ({"name": "x" * 101}, 200, "at most 100 characters"),
        ({"content": ""}, 400, "cannot read"),
        ({"content": "%%%"}, 400, "cannot read"),
        ({"content": "AAAA"}, 400, "code integrity policy"),
        ({"file_name": ""}, 400, "cannot read"),
        ({"file_name": "x" * 301}, 400, "cannot read"),
    ],
)
def test_what_did_not_come_back_whole_is_not_added(
    admin: User, browse: Browse, changes: dict[str, str], status: int, said: str
) -> None:
    client = browse(admin)
    answer = client.post("/codepolicies/add/", asked(look(client, STRICT.binary)) | changes)
    assert answer.status_code == status
    assert said in text(answer)
    assert not CodeIntegrityPolicy.objects.exists()
    assert not ledger.leaves(act_prefix="codepolicy.").exists()


def test_a_policy_is_added_once(admin: User, browse: Browse) -> None:
    client = browse(admin)
    add(admin, STRICT, "Hosts")
    answer = client.post("/codepolicies/add/", asked(look(client, sign(STRICT.binary))))
    assert answer.status_code == 409
    assert "ada has added this policy already, as “Hosts”" in text(answer)
    assert "Add this policy?" in text(answer)  # what was asked stays in sight
    assert CodeIntegrityPolicy.objects.count() == 1


def test_its_lines_are_shown_by_part_and_page(admin: User, auditor: User, browse: Browse) -> None:
    address, client = f"/codepolicies/{add(admin, LARGE, 'Large').pk}/", browse(auditor)
    first = text(client.get(address))
    assert "driver-0050.sys" in first
    assert "driver-0250.sys" not in first
    kernel = text(client.get(f"{address}?part=Kernel+drivers&page=3"))
    assert "driver-0250.sys" in kernel
    assert "Programs</td>" not in kernel
    for query in ("part=no+such", "part=%00", "page=99", "page=x", "with=x", f"with={uuid4()}", "part=%3Cscript%3E"):
        answer = client.get(f"{address}?{query}")
        assert answer.status_code == 200
        assert "<script>" not in answer.content.decode()
    preview = text(look(browse(admin), LARGE.binary))
    assert "These are the first 100 lines" in preview


def test_two_policies_are_compared_on_a_page(admin: User, auditor: User, browse: Browse) -> None:
    strict, audits = add(admin, STRICT, "Strict"), add(admin, AUDITING, "Auditing")
    page = text(browse(auditor).get(f"/codepolicies/{audits.pk}/?with={strict.pk}"))
    change = page.partition('id="change"')[2].partition("</table>")[0]
    assert "Added" in change
    assert "Enabled:Audit Mode" in change
    assert "evil.sys" not in change
    alone = text(browse(auditor).get(f"/codepolicies/{audits.pk}/?with={audits.pk}"))
    assert 'id="change"' not in alone


def test_a_long_difference_is_cut_and_counted(admin: User, auditor: User, browse: Browse) -> None:
    strict, large = add(admin, STRICT, "Strict"), add(admin, LARGE, "Large")
    assert "more lines differ" in text(browse(auditor).get(f"/codepolicies/{large.pk}/?with={strict.pk}"))


def test_the_file_is_downloaded_as_it_came(admin: User, auditor: User, browse: Browse) -> None:
    row = service.add_code_policy(
        sign(STRICT.binary), name='a"\n/../b', file_name="a.p7b", by=admin, now=datetime.now(UTC)
    )
    answer = browse(auditor).get(f"/codepolicies/{row.pk}/file/")
    assert answer.content == sign(STRICT.binary)
    assert answer["Content-Disposition"].startswith("attachment;")
    assert "\n" not in answer["Content-Disposition"]


def test_names_in_a_policy_stay_text(admin: User, browse: Browse) -> None:
    named = Policy(
        files=(File(name="<script>x</script>"),),
        codes=(Code(131, Rules(files=(0,))),),
        settings=(("PolicyInfo", "Information", "Name", "<script>y</script>"),),
    )
    client = browse(admin)
    for answer in (look(client, named.binary), client.get(f"/codepolicies/{add(admin, named, '<script>z').pk}/")):
        page = answer.content.decode()
        assert "&lt;script&gt;x" in page
        assert "<script>" not in page
    assert "<script>" not in client.get("/codepolicies/").content.decode()


def test_a_policy_that_is_not_there_has_no_page(auditor: User, browse: Browse) -> None:
    for address in (f"/codepolicies/{uuid4()}/", f"/codepolicies/{uuid4()}/file/", f"/runtime/{uuid4()}/"):
        assert browse(auditor).get(address).status_code == 404


def test_the_list_takes_as_many_queries_whatever_its_length(
    admin: User, auditor: User, browse: Browse, django_assert_max_num_queries: Any
) -> None:
    client = browse(auditor)
    add(admin, STRICT, "One")
    with django_assert_max_num_queries(30) as few:
        client.get("/codepolicies/")
    for number, policy in enumerate((AUDITING, ALLOW_ALL, LARGE)):
        add(admin, policy, f"Policy {number}")
    with django_assert_max_num_queries(len(few)):
        client.get("/codepolicies/")
