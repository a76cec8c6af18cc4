"""Template disks on offer: who may offer and retire them, what is refused, and what everybody may check."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import IntegrityError, transaction
from django.test import Client

from fabric.models import TemplateDisk, Tenant
from fabric.template_disks import TemplateUnchanged, add_template, order_of, switch_template
from kps.core.catalog import CATALOG_LIMIT, build_catalog, parse_catalog, parse_version
from kps.core.guardian import GuardianKeys
from kps.errors import NotAllowed
from ledger import service as ledger
from tests.fabric.conftest import REASON
from tests.kps.core.test_catalog import TOKEN, VOLUME
from tests.kps.parties import OTHER_FABRIC, OWNER, STRANGER, said, signed

Browse = Callable[[User | None], Client]


def catalog(version: str = "12.1", name: str = "debian-12", signer: GuardianKeys = OWNER) -> str:
    now = datetime(2026, 11, 20, tzinfo=UTC)
    return build_catalog(signer, VOLUME, name=name, version=parse_version(version), now=now)


def offer(client: Client, content: str | bytes) -> Any:
    file = SimpleUploadedFile("disk.catalog", content if isinstance(content, bytes) else content.encode())
    return client.post("/templates/offer/", {"catalog": file})


def text(answer: Any) -> str:
    return " ".join(answer.content.decode().split())


@pytest.fixture
def template(admin: User) -> TemplateDisk:
    return add_template(TOKEN.encode(), by=admin, now=datetime.now(UTC))


def test_an_admin_offers_a_template_and_everybody_sees_who_signed_it(
    admin: User, owner: User, operator: User, auditor: User, browse: Browse
) -> None:
    answer = offer(browse(admin), TOKEN + "\n")
    assert answer.status_code == 302
    thumbprint = parse_catalog(TOKEN).thumbprint
    for person in (admin, owner, operator, auditor):
        for address in ("/templates/", answer["Location"]):
            page = text(browse(person).get(address))
            assert "debian-12 12.1" in page
            assert thumbprint in page
            assert "On offer" in page
    assert [leaf.actor for leaf in ledger.leaves(act_prefix="template.added")] == ["user:ada"]


def test_the_catalog_is_given_as_it_was_signed(template: TemplateDisk, owner: User, browse: Browse) -> None:
    answer = browse(owner).get(f"/templates/{template.pk}/catalog/")
    assert parse_catalog(answer.content.decode().strip()) == parse_catalog(TOKEN)
    assert "debian-12-12.1.catalog" in answer["Content-Disposition"]


ALTERED = signed(said(TOKEN) | {"version": "99"}, STRANGER, kid_of=OWNER)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param(ALTERED, "catalog_refused", id="altered"),
        pytest.param("", "malformed", id="empty"),
        pytest.param(b"\0" * 100, "malformed", id="zeros"),
        pytest.param("{}", "malformed", id="no token"),
        pytest.param(signed({}, OWNER), "malformed", id="another token"),
        pytest.param(TOKEN + " " * CATALOG_LIMIT, "larger than 96 KiB", id="too large"),
    ],
)
def test_what_is_no_catalog_is_refused_and_nothing_is_kept(
    content: str | bytes, code: str, admin: User, browse: Browse
) -> None:
    answer = offer(browse(admin), content)
    assert answer.status_code in {200, 400, 422}
    assert code in text(answer) or "The submitted file is empty" in text(answer)
    assert not TemplateDisk.objects.exists()
    assert not ledger.leaves(act_prefix="template.")


@pytest.mark.parametrize("version", ["12.1", "12.1.0", "12.1.0.0"])
def test_a_version_is_offered_once(version: str, template: TemplateDisk, admin: User, browse: Browse) -> None:
    answer = offer(browse(admin), catalog(version))
    assert (answer.status_code, "template_known" in text(answer)) == (409, True)
    assert TemplateDisk.objects.count() == 1
    assert ledger.leaves(act_prefix="template.added").count() == 1


def test_another_version_signer_or_name_is_another_template(
    template: TemplateDisk, admin: User, browse: Browse
) -> None:
    for other in (catalog("12.2"), catalog(signer=OTHER_FABRIC), catalog(name="debian-13")):
        assert offer(browse(admin), other).status_code == 302
    assert TemplateDisk.objects.count() == 4
    others = text(browse(admin).get(f"/templates/{template.pk}/")).partition("Other versions")[2]
    assert others.count('<a href="/templates/') == 1
    assert ">12.2</a>" in others


def test_the_newest_version_of_a_template_comes_first(template: TemplateDisk, admin: User) -> None:
    for version in ("9", "100", "12.10", "12.9.1"):
        add_template(catalog(version).encode(), by=admin, now=datetime.now(UTC))
    assert [each.version for each in TemplateDisk.objects.all()] == ["100", "12.10", "12.9.1", "12.1", "9"]


def test_text_orders_versions_as_their_numbers_do() -> None:
    versions = [parse_version(text) for text in ("0", "0.0.0.1", "1.9", "1.10", "9", "10", "999999999")]
    assert sorted(map(order_of, versions)) == [order_of(each) for each in versions]


def test_a_template_is_retired_and_offered_again(
    template: TemplateDisk, admin: User, owner: User, browse: Browse
) -> None:
    client = browse(admin)
    assert client.post(f"/templates/{template.pk}/retire/", {"reason": REASON}).status_code == 302
    for address in ("/templates/", f"/templates/{template.pk}/"):
        assert "Retired" in text(browse(owner).get(address))
    assert client.post(f"/templates/{template.pk}/offer-again/", {"reason": REASON}).status_code == 302
    assert "On offer" in text(browse(owner).get("/templates/"))
    acts = [(leaf.act, leaf.detail.get("reason")) for leaf in ledger.leaves(act_prefix="template.")]
    assert acts == [("template.offered_again", REASON), ("template.retired", REASON), ("template.added", None)]


@pytest.mark.parametrize("act", ["retire", "offer-again"])
def test_an_act_without_a_reason_is_not_done(act: str, template: TemplateDisk, admin: User, browse: Browse) -> None:
    assert browse(admin).post(f"/templates/{template.pk}/{act}/", {"reason": "no"}).status_code == 200
    assert ledger.leaves(act_prefix="template.").count() == 1


def test_what_is_so_already_is_not_done_again(template: TemplateDisk, admin: User, browse: Browse) -> None:
    answer = browse(admin).post(f"/templates/{template.pk}/offer-again/", {"reason": REASON})
    assert (answer.status_code, "template_unchanged" in text(answer)) == (409, True)
    now = datetime.now(UTC)
    switch_template(template, retired=True, by=admin, reason=REASON, now=now)
    with pytest.raises(TemplateUnchanged):
        switch_template(template, retired=True, by=admin, reason=REASON, now=now)
    assert ledger.leaves(act_prefix="template.retired").count() == 1


@pytest.mark.parametrize("role", ["approver", "auditor", "owner", "operator", "stranger_tenant", "nobody"])
def test_nobody_but_an_admin_offers_or_retires(
    role: str, template: TemplateDisk, browse: Browse, request: pytest.FixtureRequest
) -> None:
    person = request.getfixturevalue(role)
    client = browse(person)
    assert offer(client, catalog("13")).status_code == 403
    for act in ("retire", "offer-again"):
        assert client.post(f"/templates/{template.pk}/{act}/", {"reason": REASON}).status_code == 403
    with pytest.raises(NotAllowed):
        add_template(catalog("13").encode(), by=person, now=datetime.now(UTC))
    with pytest.raises(NotAllowed):
        switch_template(template, retired=True, by=person, reason=REASON, now=datetime.now(UTC))
    assert TemplateDisk.objects.get().retired is False


def test_somebody_without_a_role_sees_no_template(template: TemplateDisk, nobody: User, browse: Browse) -> None:
    assert not TemplateDisk.objects.visible_to(nobody)
    for address in ("/templates/", f"/templates/{template.pk}/", f"/templates/{template.pk}/catalog/"):
        assert browse(nobody).get(address).status_code in {403, 404}
        assert browse(None).get(address).status_code == 302


def test_the_offer_to_act_is_made_to_those_who_may(
    template: TemplateDisk, admin: User, owner: User, tenant: Tenant, browse: Browse
) -> None:
    assert "Retire template" in text(browse(admin).get(f"/templates/{template.pk}/"))
    for address in ("/templates/", f"/templates/{template.pk}/"):
        page = text(browse(owner).get(address))
        assert not any(word in page for word in ("Retire template", "Offer a template"))
        assert 'href="/templates/"' in page


def test_an_empty_list_says_what_fills_it(auditor: User, browse: Browse) -> None:
    assert "guardhouse template sign" in text(browse(auditor).get("/templates/"))


def test_the_database_itself_keeps_a_version_single(template: TemplateDisk) -> None:
    template.pk = None
    with pytest.raises(IntegrityError), transaction.atomic():
        template.save(force_insert=True)
