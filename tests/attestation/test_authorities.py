"""Who is trusted as a maker of TPMs is decided by people who may, seen before it is done, and kept."""

import hashlib
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from attestation import service
from attestation.core.certificate_reader import Tolerance
from attestation.errors import (
    AlreadyDecided,
    CannotApprove,
    DraftMoved,
    NotAllowed,
    NotFound,
    ParseError,
    Refusal,
    TooLarge,
)
from attestation.models import Attester, AuthorityBundle, EndorsementAuthority, Vendor
from ledger import service as ledger
from tests.attestation.conftest import Portal, person
from tests.certificate_forge import LATER, MIDDLE, MIDDLE_KEY, NOW, ROOT, ROOT_KEY, YEAR, Form, authority, intel
from tests.machines import Machine

pytestmark = pytest.mark.django_db

WHY = "From the maker's own site, compared by telephone."
MAKER = "middle"  # a certificate without an organisation goes by its common name


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def guardian(db: None) -> User:
    return person("gil", "trust_maker")


def zipped(**files: bytes) -> bytes:
    data = BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(f"Acme/RootCA/{name}.crt", content)
    return data.getvalue()


EXPIRED = authority("old", "old", ROOT_KEY, ROOT_KEY, not_after=NOW - timedelta(days=1)).read.der
MALFORMED = intel(Form("bent", "root", MIDDLE_KEY, ROOT_KEY, ca=True, usage="key_cert_sign", purposes=()))
BUNDLE = zipped(
    root=ROOT.read.der,
    middle=MIDDLE.read.der,
    twice=MIDDLE.read.der,
    old=EXPIRED,
    leaf=Form().der(),
    bent=MALFORMED,
    rubbish=b"rubbish",
)


def upload(by: User, content: bytes = BUNDLE, name: str = "acme.zip") -> AuthorityBundle:
    return service.upload_bundle(content, file_name=name, by=by, now=now())


def take(bundle: AuthorityBundle, by: User, *makers: str) -> AuthorityBundle:
    return service.import_bundle(bundle.pk, makers=makers or ("Acme",), by=by, reason=WHY, now=now())


def outcomes(bundle: AuthorityBundle) -> dict[str, tuple[str, str]]:
    lines = service.bundle_report(bundle)
    return {line.path.rpartition("/")[2].removesuffix(".crt"): (line.outcome, line.reason) for line in lines}


REPORT = {
    "root": ("added", ""),
    "middle": ("added", ""),
    "twice": ("known", ""),
    "old": ("refused", "expired"),
    "leaf": ("refused", "not_an_authority"),
    "bent": ("refused", "not_tolerated"),
    "rubbish": ("refused", "unreadable"),
}


def test_a_bundle_is_seen_before_it_is_trusted(guardian: User) -> None:
    bundle = upload(guardian)
    assert outcomes(bundle) == REPORT
    assert not EndorsementAuthority.objects.exists()
    assert not Vendor.objects.exists()
    assert not ledger.leaves().exists()


def test_one_bad_certificate_does_not_keep_the_others_out(guardian: User) -> None:
    bundle = take(upload(guardian), guardian)
    assert outcomes(bundle) == REPORT  # as it was, though all of them are known by now
    root, middle = EndorsementAuthority.objects.order_by("-kind")
    assert (root.kind, middle.kind) == ("root", "intermediate")
    assert (middle.title, middle.vendor.name, middle.path) == ("middle", "Acme", "Acme/RootCA/middle.crt")
    assert (middle.not_before, middle.not_after) == (NOW - YEAR, LATER)
    assert middle.bundle == bundle
    assert (bundle.file_name, bundle.file_sha256) == ("acme.zip", hashlib.sha256(BUNDLE).hexdigest())
    assert (bundle.imported_by, bundle.provenance) == ("gil", WHY)
    assert bundle.content == b""
    assert "calls it a root; it is issued by “CN=root”" in service.bundle_report(bundle)[1].sentence


def test_an_import_is_one_act_in_the_ledger(guardian: User) -> None:
    bundle = take(upload(guardian), guardian)
    leaf = ledger.leaves().get()
    assert (leaf.act, leaf.actor, leaf.subject) == ("authorities.imported", "user:gil", f"bundle:{bundle.pk}")
    assert leaf.detail["count"] == 2
    assert leaf.detail["sha256"] == bundle.file_sha256
    assert leaf.detail["added"] == {"Acme": [ROOT.read.fingerprint, MIDDLE.read.fingerprint]}
    assert leaf.detail["refused"] == {"expired": 1, "not_an_authority": 1, "not_tolerated": 1, "unreadable": 1}
    assert leaf.detail["reason"] == WHY


def test_a_bundle_is_imported_once(guardian: User) -> None:
    bundle = upload(guardian)
    take(bundle, guardian)
    with pytest.raises(AlreadyDecided):
        take(bundle, guardian)
    assert ledger.leaves().count() == 1


def test_known_authorities_stay_as_they_came_first(guardian: User) -> None:
    first = take(upload(guardian), guardian)
    again = take(upload(guardian, name="again.zip"), guardian)
    assert {outcome for outcome, _ in outcomes(again).values()} == {"known", "refused"}
    assert set(EndorsementAuthority.objects.values_list("bundle", flat=True)) == {first.pk}


def test_only_the_makers_that_were_chosen_are_trusted(guardian: User) -> None:
    bundle = take(upload(guardian), guardian, "Another")
    assert outcomes(bundle)["root"] == ("refused", "not_chosen")
    assert not EndorsementAuthority.objects.exists()


def test_nobody_trusts_a_maker_without_the_permission(guardian: User, admin: User, approver: User) -> None:
    bundle = upload(guardian)
    take(bundle, guardian)
    vendor = Vendor.objects.get()
    acts: list[Callable[[User], object]] = [
        upload,
        lambda by: take(bundle, by),
        lambda by: service.switch_maker(vendor.pk, enabled=False, by=by, reason=WHY, now=now()),
        lambda by: service.set_exceptions(vendor.pk, [Tolerance.PADDING], by=by, reason=WHY, now=now()),
        lambda by: service.switch_exception(vendor.pk, Tolerance.PADDING, allowed=True, by=by, reason=WHY, now=now()),
        lambda by: service.switch_authority(ROOT.read.fingerprint, enabled=False, by=by, reason=WHY, now=now()),
    ]
    for by in (admin, approver, User.objects.create_user("eve")):
        for act in acts:
            with pytest.raises(NotAllowed, match="trust_maker"):
                act(by)
    assert Vendor.objects.get().enabled
    assert ledger.leaves().count() == 1


@pytest.mark.parametrize(
    ("content", "error"),
    [
        pytest.param(b"", ParseError, id="nothing"),
        pytest.param(b"MSCF" + bytes(60), ParseError, id="a broken cabinet"),
        pytest.param(b"\x30\x03\x02\x01\x01" * 9000, TooLarge, id="too many"),
        pytest.param(bytes((8 << 20) + 1), TooLarge, id="too large"),
    ],
)
def test_what_is_no_bundle_is_not_even_kept(content: bytes, error: type[Refusal], guardian: User) -> None:
    with pytest.raises(error):
        upload(guardian, content)
    with pytest.raises(error):
        service.trust_authority(content, provenance=WHY, by="system", now=now())
    assert not AuthorityBundle.objects.exists()


def test_uploads_that_nobody_imports_do_not_pile_up(guardian: User) -> None:
    other = person("gus", "trust_maker")
    old = service.upload_bundle(BUNDLE, file_name="old", by=other, now=now() - timedelta(days=2))
    first, second = upload(guardian), upload(guardian)
    assert list(AuthorityBundle.objects.all()) == [second]
    for gone in (old, first):
        with pytest.raises(NotFound):
            service.authority_bundle(gone.pk)
        with pytest.raises(AlreadyDecided):
            take(gone, guardian)


def test_an_exception_lets_the_makers_malformed_certificate_in(guardian: User) -> None:
    take(upload(guardian), guardian)
    vendor = Vendor.objects.get()
    assert vendor.tolerances == []
    service.set_exceptions(vendor.pk, [Tolerance.NULL_PARAMETERS], by=guardian, reason=WHY, now=now())
    bundle = take(upload(guardian), guardian)
    assert outcomes(bundle)["bent"] == ("added", "")
    assert EndorsementAuthority.objects.get(title="bent").tolerances == ["ecdsa_null_parameters"]
    leaf = ledger.leaves(act_prefix="maker.exceptions_set").get()
    assert (leaf.detail["before"], leaf.detail["exceptions"]) == ([], ["ecdsa_null_parameters"])


def test_what_is_imported_is_what_was_shown(guardian: User) -> None:
    take(upload(guardian), guardian)
    shown = upload(guardian, zipped(bent=MALFORMED))
    assert outcomes(shown)["bent"] == ("refused", "not_tolerated")
    exception: dict[str, Any] = {"by": guardian, "reason": WHY, "now": now()}
    service.switch_exception(Vendor.objects.get().pk, Tolerance.NULL_PARAMETERS, allowed=True, **exception)
    with pytest.raises(DraftMoved, match="since it was shown"):
        take(shown, guardian)
    assert not EndorsementAuthority.objects.filter(title="bent").exists()
    again = service.authority_bundle(shown.pk)
    assert outcomes(again)["bent"] == ("added", "")
    take(again, guardian)
    assert EndorsementAuthority.objects.filter(title="bent").exists()


def test_an_exception_is_switched_alone_and_not_twice(guardian: User) -> None:
    take(upload(guardian), guardian)
    vendor = Vendor.objects.get()

    def switch(exception: Tolerance, *, allowed: bool) -> int:
        return service.switch_exception(vendor.pk, exception, allowed=allowed, by=guardian, reason=WHY, now=now())

    for exception in (Tolerance.PADDING, Tolerance.SET_ORDER):
        switch(exception, allowed=True)
    switch(Tolerance.PADDING, allowed=False)
    assert Vendor.objects.get().tolerances == ["set_order"]
    for exception, allowed in ((Tolerance.PADDING, False), (Tolerance.SET_ORDER, True)):
        with pytest.raises(AlreadyDecided):
            switch(exception, allowed=allowed)
    assert ledger.leaves(act_prefix="maker.exceptions_set").count() == 3


def test_a_maker_of_which_nothing_was_good_enough_can_be_given_its_exception(guardian: User) -> None:
    take(upload(guardian, zipped(bent=MALFORMED)), guardian)
    assert Vendor.objects.get().name == "Acme"


def test_things_that_are_not_there_are_refused(guardian: User) -> None:
    act: dict[str, Any] = {"by": guardian, "reason": WHY, "now": now()}
    with pytest.raises(AlreadyDecided):
        service.switch_maker(4711, enabled=False, **act)
    with pytest.raises(NotFound):
        service.set_exceptions(4711, [], **act)
    with pytest.raises(NotFound):
        service.switch_exception(4711, Tolerance.PADDING, allowed=True, **act)
    with pytest.raises(AlreadyDecided):
        service.switch_authority("0" * 64, enabled=True, **act)
    with pytest.raises(AlreadyDecided):
        service.import_bundle(uuid4(), makers=["Acme"], **act)
    for find in (
        lambda: service.maker(4711),
        lambda: service.authority("0" * 64),
        lambda: service.authority_bundle(uuid4()),
    ):
        with pytest.raises(NotFound):
            find()
    assert not ledger.leaves().exists()


# What it means for hosts.


def vendors_of(machine: Machine) -> Vendor:
    """The maker of a lab machine's TPM."""
    row = service.attester(UUID(machine.attester))
    return EndorsementAuthority.objects.get(pk=row.endorsement["root_fingerprint"]).vendor


def verdict(machine: Machine) -> str:
    return Attester.objects.get(pk=machine.attester).ek_verdict


def test_turning_a_maker_off_and_on_is_judged_for_every_host(
    fabric: Portal, healthy: Machine, drifted: Machine, guardian: User, admin: User, approver: User
) -> None:
    fabric.enrol(drifted)
    vendor = vendors_of(healthy)
    effect = service.effect_of_maker(vendor, enabled=False, now=now())
    assert (effect.resting, effect.waiting, effect.approved) == (2, 1, 1)
    assert {each.verdict for each in effect.changed} == {"untrusted"}
    assert verdict(healthy) == "trusted"

    assert service.switch_maker(vendor.pk, enabled=False, by=guardian, reason=WHY, now=now()) == 2
    assert (verdict(healthy), verdict(drifted)) == ("untrusted", "untrusted")
    proposal = service.propose_host(UUID(drifted.attester), by=admin, reason=WHY, now=now())
    with pytest.raises(CannotApprove, match="not trusted here"):
        service.decide(proposal.pk, by=approver, approve=True, reason=WHY, now=now())
    assert Attester.objects.get(pk=healthy.attester).state == "approved"
    assert fabric.attest(healthy).json()["status"] == "Passed"

    back = service.effect_of_maker(vendor, enabled=True, now=now())
    assert (back.resting, back.waiting, back.approved) == (0, 1, 1)
    assert service.switch_maker(vendor.pk, enabled=True, by=guardian, reason=WHY, now=now()) == 2
    assert (verdict(healthy), verdict(drifted)) == ("trusted", "trusted")
    acts = [leaf.act for leaf in ledger.leaves().order_by("id") if leaf.actor == "user:gil"]
    assert acts == [
        *("maker.disabled", *["host.endorsement_changed"] * 2),
        "maker.enabled",
        *["host.endorsement_changed"] * 2,
    ]
    changed = ledger.leaves(subject=f"host:{healthy.attester}", act_prefix="host.endorsement_changed").last()
    assert changed is not None
    assert (changed.detail["before"], changed.detail["verdict"], changed.detail["state"]) == (
        "trusted",
        "untrusted",
        "approved",
    )


def test_a_maker_is_not_switched_to_what_it_is_already(portal: Portal, healthy: Machine, guardian: User) -> None:
    portal.enrol(healthy)
    vendor = vendors_of(healthy)
    with pytest.raises(AlreadyDecided):
        service.switch_maker(vendor.pk, enabled=True, by=guardian, reason=WHY, now=now())
    service.switch_maker(vendor.pk, enabled=False, by=guardian, reason=WHY, now=now())
    with pytest.raises(AlreadyDecided):
        service.switch_maker(vendor.pk, enabled=False, by=guardian, reason=WHY, now=now())
    assert ledger.leaves(act_prefix="maker.").count() == 1


def test_one_authority_can_be_turned_off_alone(portal: Portal, healthy: Machine, guardian: User) -> None:
    portal.enrol(healthy)
    row = service.attester(UUID(healthy.attester))
    issuer, root = row.endorsement["chain"]
    assert service.hosts_per_authority([row]) == {issuer: 1, root: 1}
    assert [each.pk for each in service.endorsers(row)] == [issuer, root]
    assert service.hosts_of_maker(service.authority(root).vendor) == [row]
    assert service.missing_makers() == []
    assert service.hosts_resting_on([issuer]) == [row]
    effect = service.effect_of_authority(service.authority(issuer), enabled=False, now=now())
    assert [each.host for each in effect.changed] == [row]
    service.switch_authority(issuer, enabled=False, by=guardian, reason=WHY, now=now())
    assert verdict(healthy) == "untrusted"
    assert service.attester(UUID(healthy.attester)).endorsement == {}
    again = portal.enrol(healthy)
    assert again.status_code == 200  # it waits, and its verdict stays what it is
    assert verdict(healthy) == "untrusted"
    service.switch_authority(issuer, enabled=True, by=guardian, reason=WHY, now=now())
    assert verdict(healthy) == "trusted"


def test_a_host_of_a_maker_that_is_off_is_enrolled_as_untrusted(
    portal: Portal, healthy: Machine, drifted: Machine, guardian: User
) -> None:
    portal.enrol(healthy)
    service.switch_maker(vendors_of(healthy).pk, enabled=False, by=guardian, reason=WHY, now=now())
    assert portal.enrol(drifted).json()["state"] == "pending"
    row = Attester.objects.get(pk=drifted.attester)
    assert row.ek_verdict == "untrusted"
    assert "No trusted authority named" in row.ek_detail
    assert service.endorsers(row) == []
    (missing,) = service.missing_makers()
    assert (missing.sentence, set(missing.hosts)) == (row.ek_detail, {row, Attester.objects.get(pk=healthy.attester)})


def test_exceptions_are_what_decides_about_a_padded_certificate(
    portal: Portal, healthy: Machine, guardian: User
) -> None:
    whole = healthy.ek_certificate
    assert whole is not None
    healthy.ek_certificate = whole + b"\xff" * 64
    try:
        assert portal.enrol(healthy).json()["state"] == "pending"
    finally:
        healthy.ek_certificate = whole
    row = Attester.objects.get(pk=healthy.attester)
    assert (row.ek_verdict, row.endorsement) == ("untrusted", {})
    assert "(padding)" in row.ek_detail
    vendor = EndorsementAuthority.objects.filter(kind="intermediate").get().vendor
    effect = service.effect_of_exceptions(vendor, [Tolerance.PADDING], now=now())
    assert [(each.host.pk, each.verdict) for each in effect.changed] == [(row.pk, "trusted")]
    service.set_exceptions(vendor.pk, [Tolerance.PADDING], by=guardian, reason=WHY, now=now())
    row.refresh_from_db()
    assert (row.ek_verdict, row.endorsement["tolerances"]) == ("trusted", ["padding"])
    service.set_exceptions(vendor.pk, [], by=guardian, reason=WHY, now=now())
    row.refresh_from_db()
    assert row.ek_verdict == "untrusted"


def test_a_certificate_that_has_expired_since_is_refused_and_hinders_no_import(
    portal: Portal, healthy: Machine, foreign: Machine, guardian: User, admin: User, approver: User
) -> None:
    portal.enrol(healthy)
    row = Attester.objects.get(pk=healthy.attester)
    Attester.objects.filter(pk=row.pk).update(ek_certificate=EXPIRED, ek_verdict="untrusted")  # of another key even
    portal.enrol(foreign)
    pems = b"".join(each.public_bytes(Encoding.PEM) for each in foreign.maker.authorities())
    service.trust_authority(pems, provenance=WHY, by="system", now=now())
    assert (verdict(healthy), verdict(foreign)) == ("refused", "trusted")
    proposal = service.propose_host(row.pk, by=admin, reason=WHY, now=now())
    with pytest.raises(CannotApprove, match="does not hold"):
        service.decide(proposal.pk, by=approver, approve=True, reason=WHY, now=now())


def test_an_authority_without_issuer_says_what_is_missing(guardian: User) -> None:
    take(upload(guardian, MIDDLE.read.der, "middle.crt"), guardian, MAKER)
    row = service.authority(MIDDLE.read.fingerprint)
    chain = service.chain_of(row, now=NOW)
    assert chain.links == ()
    assert "“CN=root” has signed “CN=middle”" in chain.problem
    take(upload(guardian, ROOT.read.der, "root.crt"), guardian, "root")
    assert [link.title for link in service.chain_of(row, now=NOW).links] == ["root"]
    assert list(service.issued_by(service.authority(ROOT.read.fingerprint))) == [row]


def test_makers_are_counted(fabric: Portal, healthy: Machine) -> None:
    lines = {line.vendor.name: line for line in service.makers(now=now())}
    assert lines.keys() == {"swtpm"}
    line = lines["swtpm"]
    assert (line.hosts, line.vendor.roots, line.vendor.intermediates, line.vendor.off) == (1, 1, 1, 0)  # type: ignore[attr-defined]


# The console.


def console(capsys: pytest.CaptureFixture[str], path: Any) -> str:
    call_command("trust_authority", str(path), "--provenance", WHY)
    return capsys.readouterr().out


def test_the_console_takes_every_form_and_says_what_became_of_each(
    db: None, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "acme.zip"
    path.write_bytes(BUNDLE)
    said = console(capsys, path)
    assert f"added  {ROOT.read.fingerprint}  Acme  root" in said
    assert "refused  Acme/RootCA/rubbish.crt" in said
    assert "expired on" in said
    bundle = AuthorityBundle.objects.get()
    assert bundle.imported_by.startswith("console:")
    assert (bundle.file_name, bundle.provenance) == ("acme.zip", WHY)
    assert f"known  {ROOT.read.fingerprint}" in console(capsys, path)


def test_the_console_fails_when_nothing_came_of_it(db: None, tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "old.crt"
    with pytest.raises(CommandError):
        console(capsys, path)
    path.write_bytes(b"nothing")
    with pytest.raises(CommandError, match="no certificate"):
        console(capsys, path)
    path.write_bytes(EXPIRED)
    with pytest.raises(CommandError, match="Nothing in this file was added"):
        console(capsys, path)
