"""Makers of TPMs on pages: files looked into before they count, and switches that show what they do beforehand."""

import html
import re
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any
from uuid import UUID, uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from attestation import service
from attestation.core.certificate_reader import Tolerance
from attestation.errors import DraftMoved
from attestation.models import Attester, AuthorityBundle, EndorsementAuthority, Vendor
from ledger import service as ledger
from tests.attestation.conftest import Portal
from tests.boot_logs import COLLECTION
from tests.certificate_forge import MIDDLE, MIDDLE_KEY, NOW, ROOT, ROOT_KEY, Form, authority, intel
from tests.fabric.conftest import PASSWORD, REASON
from tests.machines import Machine

pytestmark = pytest.mark.django_db

Browse = Callable[[User | None], Client]
PUBLISHED = COLLECTION / "certs" / "keylime_tpm_cert_store"
SURE = {"reason": REASON, "password": PASSWORD}
ADDRESS = "http://upgrades.example/root.crt"
ACCESS = x509.AuthorityInformationAccess(
    [x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier(ADDRESS))]
)
EXPIRED = authority("old", "old", ROOT_KEY, ROOT_KEY, not_after=NOW - timedelta(days=1)).read.der
BENT = intel(Form("bent", "root", MIDDLE_KEY, ROOT_KEY, ca=True, usage="key_cert_sign", purposes=()))
ORPHAN = authority("orphan", "nobody", MIDDLE_KEY, ROOT_KEY, access=ACCESS).read.der


def now() -> datetime:
    return datetime.now(UTC)


def zipped(**files: bytes) -> bytes:
    data = BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(f"Acme/RootCA/{name}.crt", content)
    return data.getvalue()


BUNDLE = zipped(root=ROOT.read.der, middle=MIDDLE.read.der, old=EXPIRED, leaf=Form().der(), bent=BENT, rubbish=b"x")


def text(answer: Any) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.content.decode())).split())


def look(client: Client, content: bytes, name: str = "acme.zip") -> Any:
    return client.post("/makers/import/", {"file": SimpleUploadedFile(name, content)})


def imported(by: User, content: bytes = BUNDLE, maker: str = "Acme", name: str = "acme.zip") -> AuthorityBundle:
    bundle = service.upload_bundle(content, file_name=name, by=by, now=now())
    return service.import_bundle(bundle.pk, makers=[maker], by=by, reason=REASON, now=now())


def verdict(machine: Machine) -> str:
    return Attester.objects.get(pk=machine.attester).ek_verdict


@pytest.fixture
def swtpm(fleet: Portal, healthy: Machine) -> Vendor:
    """The maker of the software TPMs that two hosts of the fleet rest on."""
    return service.endorsers(service.attester(UUID(healthy.attester)))[-1].vendor


# Files.


def test_a_file_is_looked_into_before_anything_of_it_counts(approver: User, auditor: User, browse: Browse) -> None:
    client = browse(approver)
    bundle_page = look(client, BUNDLE)["Location"]
    bundle = AuthorityBundle.objects.get()
    assert bundle_page == f"/bundles/{bundle.pk}/import/"
    shown = text(client.get(bundle_page))
    for words in ("Nothing of it is trusted yet", "Would be added", "expired on", "Get the maker’s newer one"):
        assert words in shown
    for code in ("expired", "not_an_authority", "not_tolerated", "unreadable"):
        assert code in shown
    assert not EndorsementAuthority.objects.exists()
    assert "Trust what is chosen" not in text(browse(auditor).get(f"/bundles/{bundle.pk}/"))

    done = client.post(bundle_page, {"makers": ["Acme"], **SURE})
    assert (done.status_code, done["Location"]) == (302, f"/bundles/{bundle.pk}/")
    assert set(EndorsementAuthority.objects.values_list("title", flat=True)) == {"root", "middle"}
    kept = text(browse(auditor).get(f"/bundles/{bundle.pk}/"))
    assert "Imported" in kept
    assert REASON in kept
    assert "this report never changes" in kept
    assert "acme.zip" in text(browse(auditor).get("/makers/"))
    assert f'href="/bundles/{bundle.pk}/"' in browse(auditor).get("/audit/").content.decode()


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        pytest.param(b"", 200, "", id="nothing"),
        pytest.param(b"no certificate", 400, "malformed", id="text"),
        pytest.param(b"MSCF" + bytes(60), 400, "malformed", id="a broken cabinet"),
        pytest.param(b"PK\x03\x04" + bytes(40), 400, "malformed", id="a broken archive"),
        pytest.param(
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            400,
            "malformed",
            id="PEM of something else",
        ),
        pytest.param(b"\x30\x03\x02\x01\x01" * 9000, 413, "too_large", id="too many"),
        pytest.param(bytes((8 << 20) + 1), 413, "too_large", id="too large"),
    ],
)
def test_what_is_no_bundle_is_said_on_the_form(
    content: bytes, status: int, code: str, approver: User, browse: Browse
) -> None:
    answer = look(browse(approver), content)
    assert answer.status_code == status
    said = text(answer)
    assert "Show what is in it" in said
    assert code in said
    assert ("Not done:" if code else "The file is empty") in said
    assert not AuthorityBundle.objects.exists()
    assert not ledger.leaves(act_prefix="authorities").exists()


def test_a_form_without_a_file_asks_for_one(approver: User, browse: Browse) -> None:
    assert "Choose a file" in text(browse(approver).post("/makers/import/", {"csrfmiddlewaretoken": "x"}))


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        pytest.param({**SURE}, "Choose at least one maker", id="nobody chosen"),
        pytest.param({"makers": ["Acme"], "password": PASSWORD}, "Write where the file was got", id="no provenance"),
        pytest.param({"makers": ["Acme"], "reason": "here", "password": PASSWORD}, "at least a sentence", id="a word"),
        pytest.param({"makers": ["Acme"], "reason": REASON}, "Type your password", id="no password"),
        pytest.param({"makers": ["Acme"], "reason": REASON, "password": "x"}, "not your password", id="a wrong one"),
        pytest.param({"makers": ["Intel"], **SURE}, "nothing to add of one of these", id="another maker"),
    ],
)
def test_an_import_that_is_not_filled_in_trusts_nothing(
    answers: dict[str, Any], said: str, approver: User, browse: Browse
) -> None:
    client = browse(approver)
    answer = client.post(look(client, BUNDLE)["Location"], answers)
    assert answer.status_code == 200
    assert said in text(answer)
    assert not EndorsementAuthority.objects.exists()


def test_a_file_that_would_do_something_else_by_now_is_shown_again(approver: User, browse: Browse) -> None:
    imported(approver)
    client, acme = browse(approver), Vendor.objects.get()
    page = look(client, BUNDLE, "again.zip")["Location"]
    assert "has nothing to add" in text(client.get(page))
    service.switch_exception(acme.pk, Tolerance.NULL_PARAMETERS, allowed=True, by=approver, reason=REASON, now=now())
    bundle = AuthorityBundle.objects.get(imported_at=None)
    with pytest.raises(DraftMoved, match="since it was shown"):
        service.import_bundle(bundle.pk, makers=["Acme"], by=approver, reason=REASON, now=now())
    assert not EndorsementAuthority.objects.filter(title="bent").exists()
    assert "1 certificate" in text(client.get(page))  # what was refused is offered now
    client.post(page, {"makers": ["Acme"], **SURE})
    assert EndorsementAuthority.objects.filter(title="bent").exists()


def test_a_file_is_imported_once(approver: User, browse: Browse) -> None:
    client = browse(approver)
    page = look(client, BUNDLE)["Location"]
    client.post(page, {"makers": ["Acme"], **SURE})
    again = client.post(page, {"makers": ["Acme"], **SURE})
    assert "Trust what is chosen" not in text(again)
    assert "this report never changes" in text(client.get(page))
    assert ledger.leaves(act_prefix="authorities.imported").count() == 1


def test_a_report_is_read_by_outcome_reason_and_maker(approver: User, auditor: User, browse: Browse) -> None:
    client, page = browse(auditor), f"/bundles/{imported(approver).pk}/"

    def lines(query: str) -> str:
        answer = client.get(page + query)
        assert answer.status_code == 200
        return answer.content.decode().partition('id="lines"')[2].partition("</section>")[0]

    assert "rubbish.crt" in lines("?outcome=refused")
    assert "middle.crt" not in lines("?outcome=refused")
    assert "old.crt" in lines("?reason=expired")
    assert "bent.crt" not in lines("?reason=expired")
    assert "rubbish.crt" not in lines("?maker=Acme")
    for query in ("?outcome=x", "?reason=%00", "?maker=%3Cscript%3E", "?page=99", "?page=x"):
        assert "<script>" not in lines(query)


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the collection of real certificates is not here")
def test_published_certificates_are_shown_with_what_is_odd_about_them(approver: User, browse: Browse) -> None:
    client = browse(approver)
    pems = b"".join(path.read_bytes() for path in sorted(PUBLISHED.glob("*.pem")))
    shown = text(client.get(look(client, pems, "makers.pem")["Location"]))
    for maker in ("Infineon", "Intel", "Nuvoton", "STMicroelectronics", "NationZ"):
        assert maker in shown
    bundle = AuthorityBundle.objects.get()
    client.post(f"/bundles/{bundle.pk}/import/", {"makers": ["Nuvoton", "Infineon"], **SURE})
    assert set(Vendor.objects.values_list("name", flat=True)) == {"Nuvoton", "Infineon"}
    for row in EndorsementAuthority.objects.all():
        page = text(client.get(f"/authorities/{row.pk}/"))
        assert row.title in page
        assert "makers.pem" in page


def test_an_import_shows_beforehand_which_hosts_it_helps(
    fabric: Portal, foreign: Machine, approver: User, browse: Browse
) -> None:
    foreign.ek_certificate = foreign.tpm.ek_certificate()
    assert fabric.enrol(foreign).json()["state"] == "pending"
    client = browse(approver)
    other = look(client, BUNDLE)["Location"]
    assert "No host that is here would be judged otherwise" in text(client.get(other))

    pems = b"".join(each.public_bytes(Encoding.PEM) for each in foreign.maker.authorities())
    page = look(client, pems, "foreign.pem")["Location"]
    asks = client.get(page)
    assert "1 host would be judged otherwise" in text(asks)
    assert f"/hosts/{foreign.attester}/" in asks.content.decode()
    assert verdict(foreign) == "untrusted"
    client.post(page, {"makers": ["swtpm"], **SURE})
    assert verdict(foreign) == "trusted"


def test_an_import_promises_nothing_of_a_maker_that_is_off(
    fabric: Portal, healthy: Machine, foreign: Machine, approver: User, browse: Browse
) -> None:
    foreign.ek_certificate = foreign.tpm.ek_certificate()
    fabric.enrol(foreign)
    maker = service.endorsers(service.attester(UUID(healthy.attester)))[0].vendor
    service.switch_maker(maker.pk, enabled=False, by=approver, reason=REASON, now=now())
    pems = b"".join(each.public_bytes(Encoding.PEM) for each in foreign.maker.authorities())
    client = browse(approver)
    page = look(client, pems, "foreign.pem")["Location"]
    assert "No host that is here would be judged otherwise" in text(client.get(page))
    client.post(page, {"makers": ["swtpm"], **SURE})
    assert verdict(foreign) == "untrusted"


# What is there.


def test_without_a_maker_the_page_says_what_to_do(approver: User, auditor: User, browse: Browse) -> None:
    page = text(browse(auditor).get("/makers/"))
    assert "No maker is trusted yet" in page
    assert "have an approver import them" in page
    assert "Nothing is fetched over the network" in page
    assert "look into that file" in text(browse(approver).get("/makers/"))


def test_makers_are_counted_with_the_hosts_that_rest_on_them(swtpm: Vendor, auditor: User, browse: Browse) -> None:
    client = browse(auditor)
    page = text(client.get("/makers/"))
    assert "swtpm Counts 1 1 0 0" in page
    assert "never fetched over the network" in page
    assert "Trust it no more" not in text(client.get(f"/makers/{swtpm.pk}/"))


def test_a_maker_is_searched_by_name_and_digest(approver: User, auditor: User, browse: Browse) -> None:
    imported(approver)
    client, page = browse(auditor), f"/makers/{Vendor.objects.get().pk}/"
    assert "middle" in text(client.get(page))
    digest = MIDDLE.read.fingerprint
    for query in ("MIDD", digest[:12], digest[:4].upper() + ":" + digest[4:6]):
        assert f"/authorities/{digest}/" in client.get(page, {"q": query}).content.decode()
    assert "fits this search" in text(client.get(page, {"q": "%"}))
    assert client.get(page, {"q": "a\0b", "page": "x"}).status_code == 200


def test_hosts_say_which_maker_they_miss_and_where_it_should_be(
    fleet: Portal, foreign: Machine, approver: User, auditor: User, browse: Browse
) -> None:
    sentence = f"No trusted authority named “CN=x” has signed it. It should be at {ADDRESS}; import it."
    Attester.objects.filter(pk=foreign.attester).update(ek_verdict="untrusted", ek_detail=sentence)
    client = browse(auditor)
    page = client.get("/makers/").content.decode()
    assert ADDRESS in page
    assert f'href="{ADDRESS}' not in page  # a certificate's own words are no link
    assert f"/hosts/{foreign.attester}/" in page
    assert 'href="/makers/"' in client.get(f"/hosts/{foreign.attester}/").content.decode()


def test_a_host_links_to_the_authorities_that_vouch_for_it(
    swtpm: Vendor, healthy: Machine, auditor: User, browse: Browse
) -> None:
    client, host = browse(auditor), service.attester(UUID(healthy.attester))
    page = client.get(f"/hosts/{host.pk}/").content.decode()
    chain = host.endorsement["chain"]
    assert [page.index(f'href="/authorities/{fingerprint}/"') for fingerprint in chain] == sorted(
        page.index(f'href="/authorities/{fingerprint}/"') for fingerprint in chain
    )
    for fingerprint in chain:
        assert f"/hosts/{host.pk}/" in client.get(f"/authorities/{fingerprint}/").content.decode()


def test_an_authority_says_what_it_is_and_where_it_came_from(approver: User, auditor: User, browse: Browse) -> None:
    bundle, client = imported(approver), browse(auditor)
    page = client.get(f"/authorities/{MIDDLE.read.fingerprint}/")
    said = text(page)
    for words in ("CN=middle", "CN=root", "ECC secp256r1", "ECDSA and SHA-256", "at most 0", REASON, "ben"):
        assert words in said
    for words in ("Acme/RootCA/middle.crt", bundle.file_sha256, f"/authorities/{ROOT.read.fingerprint}/"):
        assert words in page.content.decode()
    above = client.get(f"/authorities/{ROOT.read.fingerprint}/").content.decode()
    assert f"/authorities/{MIDDLE.read.fingerprint}/" in above
    assert "nothing is above it" in above


def test_an_authority_without_its_issuer_says_where_that_should_be(
    approver: User, auditor: User, browse: Browse
) -> None:
    imported(approver, ORPHAN, "orphan", "orphan.crt")
    page = browse(auditor).get(f"/authorities/{EndorsementAuthority.objects.get().pk}/")
    said = text(page)
    assert "Lacks its issuer" in said
    assert "1 lacks an issuer" in text(browse(auditor).get("/makers/"))
    assert "No chain leads from it to a root that counts" in said
    assert "Nothing here fetches certificates over the network" in said
    assert ADDRESS in said
    assert f'href="{ADDRESS}' not in page.content.decode()


def test_what_is_not_there_has_no_page(swtpm: Vendor, approver: User, browse: Browse) -> None:
    client = browse(approver)
    digest = "0" * 64
    for address in (
        "/makers/4711/",
        "/makers/4711/off/",
        "/makers/4711/exceptions/padding/allow/",
        f"/makers/{swtpm.pk}/exceptions/anything/allow/",
        f"/makers/{2**80}/",
        f"/authorities/{digest}/",
        f"/authorities/{digest}/off/",
        "/authorities/x/",
        f"/bundles/{uuid4()}/",
        f"/bundles/{uuid4()}/import/",
    ):
        assert client.get(address).status_code == 404, address
        assert client.post(address, SURE).status_code in {404, 405}, address


def test_names_in_certificates_and_files_stay_text(approver: User, browse: Browse) -> None:
    evil = "<script>alert(1)</script>"
    client = browse(approver)
    bundle = imported(approver, authority(evil, evil, ROOT_KEY, ROOT_KEY).read.der, evil, evil)
    row = EndorsementAuthority.objects.get()
    for address in (
        *("/makers/", f"/makers/{row.vendor_id}/", f"/authorities/{row.pk}/", f"/bundles/{bundle.pk}/", "/audit/"),
        *(f"/makers/{row.vendor_id}/off/", f"/authorities/{row.pk}/off/"),
    ):
        page = client.get(address).content.decode()
        assert "alert(1)" in page
        assert "<script>alert" not in page


# Switches.


def test_a_maker_is_turned_off_after_its_effect_was_shown(
    swtpm: Vendor, healthy: Machine, drifted: Machine, approver: User, browse: Browse
) -> None:
    client, off = browse(approver), f"/makers/{swtpm.pk}/off/"
    asks = text(client.get(off))
    assert "2 hosts would be judged otherwise: 2 approved, 0 waiting" in asks
    assert "nbg-a01 Chain verified → Issuer not trusted" in asks
    assert (verdict(healthy), verdict(drifted)) == ("trusted", "trusted")

    done = client.post(off, {"name": "swtpm", **SURE}, follow=True)
    assert "2 hosts are judged otherwise by it" in text(done)
    assert "None of its certificates counts" in text(done)
    assert (verdict(healthy), verdict(drifted)) == ("untrusted", "untrusted")
    assert "Turned off" in text(client.get("/makers/"))
    again = client.post(off, {"name": "swtpm", **SURE})
    assert again.status_code == 409
    assert "already_decided" in text(again)
    assert "there is nothing to do" in text(client.get(off))

    client.post(f"/makers/{swtpm.pk}/on/", {"name": "swtpm", **SURE})
    assert (verdict(healthy), verdict(drifted)) == ("trusted", "trusted")
    acts = [leaf.act for leaf in ledger.leaves(subject=swtpm.subject).order_by("id")]
    assert acts == ["maker.disabled", "maker.enabled"]


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        pytest.param({"name": "swtpm", "password": PASSWORD}, "Write a reason", id="no reason"),
        pytest.param({"name": "swtpm", "reason": REASON}, "Type your password", id="no password"),
        pytest.param({"name": "swtpm", "reason": REASON, "password": "guess"}, "not your password", id="a wrong one"),
        pytest.param({"name": "intel", **SURE}, "not the name", id="another name"),
        pytest.param(SURE, "Type the name", id="no name"),
    ],
)
def test_a_switch_that_is_not_filled_in_does_nothing(
    answers: dict[str, str], said: str, swtpm: Vendor, healthy: Machine, approver: User, browse: Browse
) -> None:
    answer = browse(approver).post(f"/makers/{swtpm.pk}/off/", answers)
    assert answer.status_code == 200
    assert said in text(answer)
    assert Vendor.objects.get(pk=swtpm.pk).enabled
    assert verdict(healthy) == "trusted"
    assert not ledger.leaves(act_prefix="maker.").exists()


def test_one_authority_is_turned_off_by_its_digits(
    swtpm: Vendor, healthy: Machine, approver: User, browse: Browse
) -> None:
    issuer = service.endorsers(service.attester(UUID(healthy.attester)))[0]
    client, off = browse(approver), f"/authorities/{issuer.pk}/off/"
    assert "2 hosts would be judged otherwise" in text(client.get(off))
    wrong = client.post(off, {"name": "00000000", **SURE})
    assert "These are not its digits" in text(wrong)
    assert verdict(healthy) == "trusted"
    client.post(off, {"name": issuer.pk[:8].upper(), **SURE})
    assert verdict(healthy) == "untrusted"
    assert "Turned off" in text(client.get(f"/makers/{swtpm.pk}/"))
    assert client.post(off, {"name": issuer.pk[:8], **SURE}).status_code == 409
    client.post(f"/authorities/{issuer.pk}/on/", {"name": issuer.pk[:8], **SURE})
    assert verdict(healthy) == "trusted"


def test_an_exception_is_allowed_after_it_was_explained(
    fleet: Portal, healthy: Machine, running: Any, approver: User, browse: Browse
) -> None:
    machine = running.machine
    whole = machine.ek_certificate
    machine.ek_certificate = whole + b"\xff" * 64
    assert fleet.enrol(machine).json()["state"] == "pending"
    maker = service.endorsers(service.attester(UUID(healthy.attester)))[0].vendor
    client, allow = browse(approver), f"/makers/{maker.pk}/exceptions/padding/allow/"
    asks = text(client.get(allow))
    assert "Bytes behind the certificate" in asks
    assert "NV index that may be larger" in asks
    assert "1 host would be judged otherwise: 0 approved, 1 waiting" in asks
    assert "Issuer not trusted → Chain verified" in asks
    assert verdict(machine) == "untrusted"

    assert "Type your password" in text(client.post(allow, {"reason": REASON}))
    client.post(allow, SURE)
    assert verdict(machine) == "trusted"
    assert "1 host" in text(client.get(f"/makers/{maker.pk}/"))
    assert "its chain needs them" in text(client.get(f"/hosts/{machine.attester}/"))
    assert client.post(allow, SURE).status_code == 409
    client.post(f"/makers/{maker.pk}/exceptions/padding/end/", SURE)
    assert verdict(machine) == "untrusted"
    assert Vendor.objects.get(pk=maker.pk).tolerances == []


def test_exceptions_are_switched_one_by_one(approver: User, browse: Browse) -> None:
    imported(approver)
    acme, client = Vendor.objects.get(), browse(approver)
    for name in ("padding", "rsaes_oaep_key"):
        client.post(f"/makers/{acme.pk}/exceptions/{name}/allow/", SURE)
    client.post(f"/makers/{acme.pk}/exceptions/padding/end/", SURE)
    acme.refresh_from_db()
    assert acme.tolerances == ["rsaes_oaep_key"]


def test_pages_take_as_many_queries_whatever_there_is(
    approver: User, auditor: User, browse: Browse, django_assert_max_num_queries: Any
) -> None:
    bundle, client = imported(approver), browse(auditor)
    vendor = Vendor.objects.get()
    addresses = (
        "/makers/",
        f"/makers/{vendor.pk}/",
        f"/bundles/{bundle.pk}/",
        f"/authorities/{ROOT.read.fingerprint}/",
    )
    few = []
    for address in addresses:
        with django_assert_max_num_queries(40) as seen:
            client.get(address)
        few.append(len(seen))
    more = {f"ca{number}": authority(f"ca{number}", "root", MIDDLE_KEY, ROOT_KEY).read.der for number in range(12)}
    imported(approver, zipped(**more), name="more.zip")
    for address, count in zip(addresses, few, strict=True):
        with django_assert_max_num_queries(count):
            client.get(address)
