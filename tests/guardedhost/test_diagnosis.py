"""`diagnose` on lab hosts: what it says of healthy ones, and of each thing that can be wrong with one."""

import os
import socket
import ssl
import subprocess
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from attestation.core.base64url import to_b64u
from attestation.core.certificate import build_signer
from guardedhost import agent, lab
from guardedhost.diagnosis import collect as collecting
from guardedhost.diagnosis import probe
from guardedhost.diagnosis.bundle import write_bundle
from guardedhost.diagnosis.checks import CHECKS, STATUSES, Diagnosis, diagnose
from guardedhost.diagnosis.collect import collect
from guardedhost.diagnosis.outcome import Outcome, Result
from guardedhost.diagnosis.trace import Trace
from guardedhost.store import Store
from guardedhost.tpm import Tpm
from tests.guardedhost.conftest import CAPTURES, DRIFT, ON, Portal, serving
from tests.guardedhost.test_host_key import KeyVerifier
from tests.guardedhost.verifier import Verifier

OFF, IMA = CAPTURES / "secureboot-off" / "eventlog.bin", CAPTURES / "secureboot-on" / "ima.bin"
OTHER_MODES = {"keytab", "ticket", "host_key"}
HERE = {"state_folder", "tpm", "tpm_lockout", "ak", "ek", "ek_certificate", "boot_log", "boot_replay", "secure_boot"}


def named(diagnosis: Diagnosis) -> dict[str, Outcome]:
    return {line.check: line.outcome for line in diagnosis.lines}


def result(trace: Trace, check: str) -> Result:
    return named(diagnose(trace))[check].result


def failures(trace: Trace) -> set[str]:
    return set(diagnose(trace).failures)


def sentence(trace: Trace, check: str) -> str:
    """All that a check says, which must be a failure with a reason and a remedy."""
    outcome = named(diagnose(trace))[check]
    assert outcome.result is Result.FAIL, outcome
    assert outcome.why
    assert outcome.remedy
    return " ".join((outcome.what, outcome.why, outcome.remedy))


def test_a_healthy_host_passes_every_check_that_its_mode_asks_for(healthy: Trace) -> None:
    diagnosis = diagnose(healthy)
    assert (diagnosis.status, diagnosis.failures) == ("Passed", ())
    skipped = {line.check for line in diagnosis.lines if line.outcome.result is Result.SKIPPED}
    assert skipped == {*OTHER_MODES, "dns", "tls", "ek_chain", "ima"}
    assert [line.check for line in diagnosis.lines] == [check.name for check in CHECKS]
    assert "Nuremberg" in named(diagnosis)["portal"].what


def test_a_host_that_has_just_enrolled_has_nothing_in_hand_and_that_is_no_failure(
    enrolled: Verifier, store: Store
) -> None:
    trace = collect(store)
    assert (diagnose(trace).status, failures(trace)) == ("Passed", set())
    assert result(trace, "certificate") is result(trace, "last_attestation") is Result.SKIPPED


def test_each_check_has_a_name_of_its_own_and_each_status_is_one_of_the_eight(healthy: Trace) -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert len(STATUSES) == 8
    odd = replace(healthy.answer, status="Splendid") if healthy.answer else None
    assert diagnose(replace(healthy, answer=odd)).status == "Unknown"


def attest(store: Store) -> None:
    with agent.opened(store) as host:
        agent.attest(host)


# What a look leaves


def files(store: Store) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("attested", [True, False])
@pytest.mark.parametrize("passing", [True, False])
def test_a_look_leaves_every_file_as_it_was(enrolled: Verifier, store: Store, attested: bool, passing: bool) -> None:
    """A certificate in hand above all: whoever looks why something fails must not make it worse."""
    if attested:
        attest(store)
    before, enrolled.passing = files(store), passing
    assert ("credential.json" in before) is attested
    assert (result(collect(store), "verdict") is Result.PASS) is passing
    assert files(store) == before


@pytest.mark.parametrize("code", ["unauthorized_host", "log_replay_mismatch"])
def test_a_look_at_a_host_that_is_refused_leaves_every_file_as_it_was(
    enrolled: Verifier, store: Store, portal: Portal, code: str
) -> None:
    attest(store)
    before = files(store)
    portal.answer = lambda path, body: (403, {"code": code, "detail": "No."})
    assert code in sentence(collect(store), "verdict")
    assert files(store) == before


def test_a_host_after_a_boot_is_looked_at_with_a_key_that_is_kept_nowhere(healthy: Trace, store: Store) -> None:
    """The key of the boot before is of no use any more; the one of this boot is made by whoever attests."""
    lab.reboot(store.folder, boot_log=ON, ima_log=None)
    before = files(store)
    assert result(collect(store), "verdict") is Result.PASS
    assert files(store) == before


def test_the_portal_is_asked_for_a_trial_and_nothing_is_kept_of_one_that_earns_a_certificate(
    enrolled: Verifier, store: Store, portal: Portal
) -> None:
    def generous(path: str, body: Any) -> tuple[int, Any]:
        if path.endswith("/evidence"):
            enrolled.trial = False
        return enrolled.answer(path, body)

    portal.answer = generous
    before = files(store)
    assert result(collect(store), "verdict") is Result.PASS
    asked = [body for path, body in portal.seen if path.endswith("/challenges")]
    assert [body["trial"] for body in asked] == [True]
    assert files(store) == before
    assert store.credential() is None


def test_a_portal_that_knows_no_trials_is_shown_nothing(enrolled: Verifier, store: Store, portal: Portal) -> None:
    """It would take the look for an attestation, and let the certificate in hand count no more."""

    def old(path: str, body: Any) -> tuple[int, Any]:
        status, answer = enrolled.answer(path, body)
        return status, {**answer, "trial": None} if path.endswith("/challenges") else answer

    attest(store)
    shown, portal.answer = len(enrolled.evidence), old
    assert "another kind of challenge" in sentence(collect(store), "verdict")
    assert len(enrolled.evidence) == shown


def test_a_look_at_a_host_by_its_key_leaves_every_file_as_it_was(by_key: Store) -> None:
    for _ in range(2):
        before = files(by_key)
        assert result(collect(by_key), "verdict") is Result.PASS
        assert files(by_key) == before
        attest(by_key)
    (by_key.folder / "host-key.pem").unlink()
    before = files(by_key)
    assert "is gone" in sentence(collect(by_key), "verdict")
    assert files(by_key) == before


# The portal


def test_when_the_portal_is_down_its_lines_fail_and_the_host_is_looked_at_all_the_same(
    healthy: Trace, store: Store
) -> None:
    store.save_config(replace(store.config(), server="http://127.0.0.1:9"))
    trace = collect(store)
    assert failures(trace) == {"connection", "portal", "verdict"}
    assert diagnose(trace).status == "TransientError"
    assert all(result(trace, check) is Result.PASS for check in (*HERE, "certificate", "last_attestation"))
    assert "Connection refused" in sentence(trace, "connection")
    lapsed = replace(trace, at=trace.at + timedelta(hours=9))
    assert diagnose(lapsed).status == "Expired"
    assert {"certificate", "last_attestation"} <= failures(lapsed)


def test_a_portal_that_cannot_answer_now_is_told_from_one_that_is_not_there(
    enrolled: Verifier, store: Store, portal: Portal
) -> None:
    portal.answer, portal.about = lambda path, body: (503, {}), lambda path: (503, {})
    trace = collect(store)
    assert failures(trace) == {"portal", "verdict"}
    assert "503" in sentence(trace, "portal")
    assert diagnose(trace).status == "TransientError"


@pytest.mark.parametrize("answer", [b"<html>", b"[]", {"fabric": "f"}, {"fabric": 1, "mode": "tpm", "version": ""}])
def test_what_answers_and_is_no_portal_is_called_so(store: Store, portal: Portal, answer: Any) -> None:
    portal.about = lambda path: (200, answer)
    store.save_config(replace(store.config(), server=portal.url, attester="host"))
    assert "not that of a Guardhouse portal" in sentence(collect(store), "portal")


@pytest.mark.parametrize(
    ("server", "check", "words"),
    [
        ("http://portal.example", "dns", "must be reached by https"),
        ("https://127.0.0.1:many", "dns", "many"),
        (f"https://{'a' * 64}.example", "dns", "does not resolve"),
        ("https://no-such-host.invalid", "dns", "does not resolve"),
    ],
)
def test_an_address_that_leads_nowhere_fails_at_its_step(store: Store, server: str, check: str, words: str) -> None:
    store.save_config(replace(store.config(), server=server, attester="host"))
    trace = collect(store)
    assert words in sentence(trace, check)
    assert {"connection", "tls", "clock"}.isdisjoint(failures(trace))
    assert result(trace, "boot_replay") is Result.PASS


def test_a_name_that_resolves_is_told_with_its_addresses(enrolled: Verifier, store: Store, portal: Portal) -> None:
    store.save_config(replace(store.config(), server=portal.url.replace("127.0.0.1", "localhost")))
    trace = collect(store)
    assert failures(trace) == set()
    assert "127.0.0.1" in named(diagnose(trace))["dns"].what


@pytest.mark.parametrize(("seconds", "word"), [(-3600, "ahead of"), (-70, "ahead of"), (70, "behind"), (9e6, "behind")])
def test_a_clock_that_differs_from_the_portals_fails(
    enrolled: Verifier, store: Store, portal: Portal, seconds: float, word: str
) -> None:
    portal.clock = lambda: datetime.now(UTC) + timedelta(seconds=seconds)
    trace = collect(store)
    assert failures(trace) == {"clock"}
    assert word in sentence(trace, "clock")


@pytest.mark.parametrize("seconds", [-50, 0, 50])
def test_a_clock_within_what_the_portal_takes_passes(
    enrolled: Verifier, store: Store, portal: Portal, seconds: float
) -> None:
    portal.clock = lambda: datetime.now(UTC) + timedelta(seconds=seconds)
    assert result(collect(store), "clock") is Result.PASS


def test_a_server_that_never_answers_ends_the_wait(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_ALL", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store.save_config(replace(store.config(), server=f"http://127.0.0.1:{silent.getsockname()[1]}", attester="h"))
        began = time.monotonic()
        trace = collect(store)
    assert time.monotonic() - began < 5
    assert "did not answer in time" in sentence(trace, "connection")
    assert result(trace, "boot_replay") is Result.PASS


Made = Callable[..., tuple[ssl.SSLContext, Path]]


@pytest.fixture
def certified(tmp_path: Path) -> Made:
    """Makes a TLS server's context, and the file of the certificate that it shows."""

    def make(*, address: str = "127.0.0.1", begins: int = -1, ends: int = 90) -> tuple[ssl.SSLContext, Path]:
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "portal")])
        start, end = now + timedelta(days=begins), now + timedelta(days=ends)
        builder = x509.CertificateBuilder(name, name, key.public_key(), 1, start, end)
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        certificate = builder.add_extension(names, False).add_extension(constraints, True).sign(key, hashes.SHA256())
        shown, private = tmp_path / "portal.pem", tmp_path / "portal.key"
        shown.write_bytes(certificate.public_bytes(Encoding.PEM))
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(shown, private)
        return context, shown

    return make


def look(store: Store, portal: Portal, context: ssl.SSLContext, ca: str) -> Trace:
    with serving(portal, context):
        store.save_config(replace(store.config(), server=portal.url, ca=ca, attester="host"))
        return collect(store)


@pytest.fixture
def elsewhere() -> Portal:
    """A portal that is not served yet."""
    portal = Portal()
    portal.answer = Verifier().answer
    return portal


def test_a_portal_whose_certificate_is_by_nobody_whom_the_host_trusts_fails_and_hears_nothing(
    store: Store, elsewhere: Portal, certified: Made
) -> None:
    context, _ = certified()
    trace = look(store, elsewhere, context, "")
    assert failures(trace) == {"tls", "portal", "verdict"}
    assert "by nobody whom this host trusts" in sentence(trace, "tls")
    assert "--ca FILE" in sentence(trace, "tls")
    assert set(elsewhere.asked) == {"/attestation/v1/info"}
    assert elsewhere.seen == []
    assert diagnose(trace).status == "TransientError"


def test_a_portal_whose_certificate_is_trusted_passes_with_its_end(
    store: Store, elsewhere: Portal, certified: Made
) -> None:
    context, shown = certified()
    trace = look(store, elsewhere, context, str(shown))
    assert {"dns", "connection", "tls", "clock", "portal"}.isdisjoint(failures(trace))
    assert "holds until" in named(diagnose(trace))["tls"].what
    context, shown = certified(ends=3)
    assert "renew it" in named(diagnose(look(store, elsewhere, context, str(shown))))["tls"].what


def test_a_certificate_for_another_name_is_told_with_both_names(
    store: Store, elsewhere: Portal, certified: Made
) -> None:
    context, shown = certified(address="192.0.2.1")
    said = sentence(look(store, elsewhere, context, str(shown)), "tls")
    assert "for 192.0.2.1, not for 127.0.0.1" in said


@pytest.mark.parametrize(("begins", "ends"), [(-9, -2), (2, 9)])
def test_a_certificate_out_of_its_time_is_told_from_a_clock_that_is_wrong(
    store: Store, elsewhere: Portal, certified: Made, begins: int, ends: int
) -> None:
    context, shown = certified(begins=begins, ends=ends)
    trace = look(store, elsewhere, context, str(shown))
    assert "this host’s clock says" in sentence(trace, "tls")
    assert result(trace, "clock") is Result.PASS, "whoever answers has the same time"
    elsewhere.clock = lambda: datetime.now(UTC) + timedelta(days=(begins + ends) / 2)
    trace = look(store, elsewhere, context, str(shown))
    assert "which nobody vouches for" in sentence(trace, "clock")
    portal = trace.portal
    assert portal is not None
    assert "when the portal’s certificate does not hold" in sentence(
        replace(trace, portal=replace(portal, date=None)), "clock"
    )


def test_a_file_of_authorities_that_cannot_be_read_is_told(store: Store, elsewhere: Portal, certified: Made) -> None:
    context, _ = certified()
    assert "cannot be read" in sentence(look(store, elsewhere, context, "/nowhere/ca.pem"), "tls")


def test_what_speaks_no_tls_is_told(store: Store, portal: Portal) -> None:
    store.save_config(replace(store.config(), server=portal.url.replace("http:", "https:"), attester="host"))
    assert "TLS with 127.0.0.1 fails" in sentence(collect(store), "tls")


def test_a_mode_that_this_agent_does_not_speak_asks_for_its_own_checks(
    enrolled: Verifier, store: Store, portal: Portal
) -> None:
    portal.mode = "novel"
    trace = collect(store)
    assert failures(trace) == {"portal", "verdict"}
    assert "which this agent" in sentence(trace, "portal")
    assert result(trace, "boot_replay") is Result.PASS, "the host is registered for it all the same"
    assert diagnose(trace).status == "UnauthorizedHost"


# Host keys


@pytest.fixture
def by_key(tmp_path: Path, portal: Portal) -> Store:
    """A host without a TPM, registered by its key."""
    portal.mode, portal.answer = "hostkey", KeyVerifier(portal).answer
    store = Store(tmp_path / "bare")
    with agent.opened(store, replace(store.config(), server=portal.url, tcti="", name="nbg-k01")) as host:
        agent.register_host_key(host)
    return store


def away(store: Store) -> Trace:
    """A look at a host whose portal is away."""
    store.save_config(replace(store.config(), server="http://127.0.0.1:9"))
    return collect(store)


def test_a_host_without_a_tpm_is_asked_for_its_key_and_for_nothing_of_a_tpm(by_key: Store) -> None:
    fresh = collect(by_key)
    attest(by_key)
    for found in (fresh, collect(by_key)):
        assert (diagnose(found).status, failures(found)) == ("Passed", set())
        assert all(result(found, each) is Result.SKIPPED for each in ("tpm", "ak", "boot_log", "keytab"))
        assert "ECC, 256 bits, SHA-256" in named(diagnose(found))["host_key"].what
    assert "holds until" in named(diagnose(found))["certificate"].what
    lapsed = replace(found, at=found.at + timedelta(hours=9))
    assert "lapsed at" in sentence(lapsed, "certificate")


def test_no_private_key_is_in_the_bundle_of_a_host_that_has_one(by_key: Store) -> None:
    attest(by_key)
    bundle = zlib.decompress(write_bundle(collect(by_key)), 31)
    credential = by_key.credential()
    assert credential is not None
    for private in (credential.key.private, (by_key.folder / "host-key.pem").read_bytes()):
        key = serialization.load_pem_private_key(private, password=None)
        der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        for form in (private, der):
            assert to_b64u(form).encode() not in bundle
    assert b"PRIVATE KEY" not in bundle


@pytest.mark.parametrize("content", [None, b"no key"])
def test_a_host_key_that_is_gone_or_damaged_fails_and_is_left_so(by_key: Store, content: bytes | None) -> None:
    path = by_key.folder / "host-key.pem"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    trace = away(by_key)
    assert failures(trace) == {"connection", "portal", "host_key", "verdict"}
    assert path.exists() is (content is not None)


def test_a_host_key_of_a_kind_that_no_portal_takes_fails(by_key: Store) -> None:
    other = ec.generate_private_key(ec.SECP384R1())
    form = Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    (by_key.folder / "host-key.pem").write_bytes(other.private_bytes(*form))
    assert "or on P-256" in sentence(away(by_key), "host_key")


def test_a_host_that_is_not_registered_for_the_mode_in_force_is_told_how(
    enrolled: Verifier, store: Store, portal: Portal
) -> None:
    portal.mode = "hostkey"
    trace = collect(store)
    assert failures(trace) == {"enrolment", "host_key", "verdict"}
    assert "enrol --mode hostkey" in sentence(trace, "enrolment")
    assert diagnose(trace).status == "UnauthorizedHost"
    assert not (store.folder / "host-key.pem").exists()


# The portal's word


def test_what_the_portal_finds_is_shown_with_its_remedy(enrolled: Verifier, store: Store) -> None:
    attest(store)
    enrolled.passing = False
    for trace in (collect(store), collect(store)):
        diagnosis = diagnose(trace)
        assert (diagnosis.status, failures(trace)) == ("InsecureHostConfiguration", {"verdict"})
        assert [finding.remedy for finding in named(diagnosis)["verdict"].findings] == ["Reboot."]
    attest(store)
    again = collect(store)
    assert failures(again) == {"certificate", "last_attestation", "verdict"}
    assert named(diagnose(again))["last_attestation"].findings == ()
    silent = replace(again, answer=None)
    assert [finding.code for finding in named(diagnose(silent))["last_attestation"].findings] == ["pcr_mismatch"]


@pytest.mark.parametrize(("code", "status"), [("unauthorized_host", "UnauthorizedHost"), ("bad_signature", "TpmError")])
def test_a_refusal_is_told_with_its_code(
    enrolled: Verifier, store: Store, portal: Portal, code: str, status: str
) -> None:
    portal.answer = lambda path, body: (
        (403, {"code": code, "detail": "No."}) if path.endswith("/challenges") else enrolled.answer(path, body)
    )
    trace = collect(store)
    assert (diagnose(trace).status, failures(trace)) == (status, {"verdict"})
    assert f"No. ({code})" in sentence(trace, "verdict")


# What the agent keeps


def test_a_host_that_is_not_enrolled_is_told_what_to_do(store: Store) -> None:
    trace = collect(store)
    diagnosis = diagnose(trace)
    assert (diagnosis.status, failures(trace)) == ("NotConfigured", {"enrolment"})
    assert "guardhouse host enrol" in sentence(trace, "enrolment")
    assert all(result(trace, check) is Result.PASS for check in HERE)
    assert trace.answer is None


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    trace = collect(Store(tmp_path / "state"))
    assert {"enrolment", "tpm", "boot_log"} <= failures(trace)
    assert diagnose(trace).status == "NotConfigured"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_somebody_who_may_not_read_the_state_is_told_to_be_root(store: Store) -> None:
    os.seteuid(65534)
    try:
        trace = collect(store)
    finally:
        os.seteuid(0)
    assert {"enrolment", "tpm"} <= failures(trace)
    assert sentence(trace, "enrolment").endswith("Run this as root.")
    assert "Permission denied" in sentence(trace, "tpm")
    assert diagnose(trace).status == "NotConfigured"


def test_a_damaged_configuration_is_told(store: Store) -> None:
    (store.folder / "config.json").write_text("{")
    assert "damaged" in sentence(collect(store), "enrolment")


def test_a_state_folder_that_others_may_enter_fails(enrolled: Verifier, store: Store) -> None:
    store.folder.chmod(0o755)
    trace = collect(store)
    assert failures(trace) == {"state_folder"}
    assert "chmod" in sentence(trace, "state_folder")


def test_a_file_that_somebody_else_owns_fails(healthy: Trace) -> None:
    first, *rest = healthy.folder.files
    foreign = replace(rest[0], owner=healthy.folder.user + 1)
    trace = replace(healthy, folder=replace(healthy.folder, files=(first, foreign, *rest[1:])))
    assert foreign.name in sentence(trace, "state_folder")


def test_a_certificate_of_an_earlier_boot_fails(healthy: Trace, store: Store) -> None:
    lab.reboot(store.folder, boot_log=ON, ima_log=None)
    for trace in (collect(store), collect(store)):
        assert failures(trace) == {"certificate"}
        assert "of an earlier boot" in sentence(trace, "certificate")
    attest(store)
    assert failures(collect(store)) == set()


def test_a_certificate_that_lapsed_fails(enrolled: Verifier, store: Store) -> None:
    enrolled.lifetime = timedelta(seconds=-1)
    attest(store)
    enrolled.lifetime = timedelta(hours=8)
    trace = collect(store)
    assert failures(trace) == {"certificate"}
    assert "lapsed at" in sentence(trace, "certificate")


def test_a_certificate_whose_key_the_tpm_would_not_use_fails_and_so_does_the_log(healthy: Trace, store: Store) -> None:
    with store.locked(), Tpm(store.config().tcti) as tpm:
        tpm.extend(7, bytes(32))
    trace = collect(store)
    assert failures(trace) == {"boot_replay", "certificate"}
    assert "would not use the key of certificate abc" in sentence(trace, "certificate")
    assert result(trace, "secure_boot") is Result.SKIPPED


def test_a_certificate_of_another_fabric_fails(healthy: Trace) -> None:
    portal = healthy.portal
    assert portal is not None
    now = datetime.now(UTC)
    other = build_signer(
        ec.generate_private_key(ec.SECP256R1()), number=1, fabric="f", not_before=now, not_after=now + timedelta(1)
    )
    trace = replace(healthy, portal=replace(portal, signers=(other,)))
    assert "by nobody of this fabric" in sentence(trace, "certificate")


@pytest.mark.parametrize("hours", [-2, 9])
def test_a_certificate_is_held_against_the_clock(healthy: Trace, hours: int) -> None:
    assert "certificate" in failures(replace(healthy, at=healthy.at + timedelta(hours=hours)))


def test_an_agent_that_is_late_is_told(healthy: Trace) -> None:
    assert healthy.last is not None
    due = healthy.at - timedelta(minutes=11)
    trace = replace(healthy, last=replace(healthy.last, next_attestation_at=due))
    assert failures(trace) == {"last_attestation"}
    assert "systemctl status" in sentence(trace, "last_attestation")


def test_an_agent_that_holds_the_tpm_for_ever_is_told(
    enrolled: Verifier, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "_PATIENCE", 0.2)
    with store.locked():
        trace = collect(store)
    assert "Another process" in sentence(trace, "tpm")
    assert result(trace, "boot_log") is Result.PASS
    assert diagnose(trace).status == "TpmError"


# TPM and evidence


def test_a_tpm_that_is_off_fails_and_the_logs_are_read_all_the_same(enrolled: Verifier, store: Store) -> None:
    lab.stop(store.folder)
    trace = collect(store)
    assert failures(trace) == {"tpm", "verdict"}
    assert result(trace, "boot_log") is result(trace, "portal") is Result.PASS
    assert diagnose(trace).status == "TpmError"


def test_a_tpm_that_is_locked_is_told_with_how_long(enrolled: Verifier, store: Store) -> None:
    with Tpm(store.config().tcti) as tpm:
        tpm._esys.dictionary_attack_parameters(0, 1000, 1000)
    trace = collect(store)
    assert failures(trace) == {"tpm_lockout"}
    assert "one guess in 1000 seconds" in sentence(trace, "tpm_lockout")


def test_another_attestation_key_than_the_enrolled_one_fails(enrolled: Verifier, store: Store) -> None:
    assert store.config().ak.startswith("000b")
    store.save_config(replace(store.config(), ak="000b" + "00" * 32))
    trace = collect(store)
    assert failures(trace) == {"ak"}
    assert "not the one that was enrolled" in sentence(trace, "ak")
    store.save_config(replace(store.config(), ak=""))
    assert result(collect(store), "ak") is Result.PASS


def test_pcr_values_that_the_key_did_not_sign_prove_nothing(healthy: Trace) -> None:
    assert healthy.tpm.quote is not None
    quote = replace(healthy.tpm.quote, values={**healthy.tpm.quote.values, 7: bytes(32)})
    trace = replace(healthy, tpm=replace(healthy.tpm, quote=quote))
    assert failures(trace) == {"ak"}
    assert result(trace, "boot_replay") is result(trace, "secure_boot") is Result.SKIPPED


def test_a_tpm_without_an_ek_certificate_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "host"
    state = folder / "lab" / "tpm"
    state.mkdir(mode=0o700, parents=True)
    folder.chmod(0o700)
    setup = ["swtpm_setup", "--tpm2", "--tpm-state", f"dir://{state}", "--pcr-banks", "sha256"]
    subprocess.run(setup, check=True, capture_output=True)
    lab.make_host(folder, name="bare", boot_log=ON, ima_log=None, authority=None)
    try:
        trace = collect(Store(folder))
    finally:
        lab.stop(folder)
    assert failures(trace) == {"enrolment", "ek_certificate"}
    assert "no certificate for its endorsement key" in sentence(trace, "ek_certificate")
    assert result(trace, "ek") is Result.PASS


def test_an_ek_certificate_is_read_as_the_portal_does(healthy: Trace) -> None:
    tpm = healthy.tpm
    assert tpm.ek_certificate is not None
    padded = replace(healthy, tpm=replace(tpm, ek_certificate=tpm.ek_certificate + bytes(9)))
    assert "bytes behind the certificate" in named(diagnose(padded))["ek_certificate"].what
    cut = replace(healthy, tpm=replace(tpm, ek_certificate=tpm.ek_certificate[:-9]))
    assert failures(cut) == {"ek_certificate"}
    other = replace(healthy, tpm=replace(tpm, ek_public=tpm.ak_public))
    assert failures(other) == {"ek", "ek_certificate"}
    assert "for another key" in sentence(other, "ek_certificate")
    old = replace(healthy, at=healthy.at - timedelta(days=400))
    assert "ek_certificate" in failures(old)
    assert "swtpm-localca" in named(diagnose(healthy))["ek_chain"].what


def test_a_boot_log_that_does_not_replay_fails_and_names_the_pcrs(enrolled: Verifier, store: Store) -> None:
    store.save_config(replace(store.config(), event_log=str(DRIFT), server="http://127.0.0.1:9"))
    trace = collect(store)
    assert "PCR 8 (sha256) is not what the log leads to" in sentence(trace, "boot_replay")
    assert result(trace, "boot_log") is Result.PASS
    assert result(trace, "secure_boot") is Result.SKIPPED
    assert diagnose(trace).status == "InsecureHostConfiguration"


def test_a_host_without_a_boot_log_fails(enrolled: Verifier, store: Store) -> None:
    store.save_config(replace(store.config(), event_log="/nowhere/log"))
    trace = collect(store)
    assert failures(trace) == {"boot_log", "verdict"}
    assert diagnose(trace).status == "InsecureHostConfiguration"


@pytest.mark.parametrize("content", [b"", b"no log", ON.read_bytes()[:-3]])
def test_a_damaged_boot_log_fails(healthy: Trace, content: bytes) -> None:
    trace = replace(healthy, boot_log=replace(healthy.boot_log, content=content))
    assert failures(trace) == {"boot_log"}
    assert result(trace, "boot_replay") is Result.SKIPPED


def test_secure_boot_that_is_off_fails_unless_the_portal_accepts_it(enrolled: Verifier, store: Store) -> None:
    lab.reboot(store.folder, boot_log=OFF, ima_log=None)
    assert result(collect(store), "secure_boot") is Result.SKIPPED
    enrolled.passing = False
    assert "Secure Boot was off" in sentence(collect(store), "secure_boot")


def test_an_ima_list_is_held_against_pcr_10(enrolled: Verifier, store: Store, tmp_path: Path) -> None:
    lab.reboot(store.folder, boot_log=ON, ima_log=IMA)
    trace = collect(store)
    assert "The list leads to PCR 10" in named(diagnose(trace))["ima"].what
    whole = IMA.read_bytes()
    grown = replace(trace, ima_log=replace(trace.ima_log, content=whole + whole[:200]))
    assert result(grown, "ima") is Result.PASS, "what lies behind the quoted part is not looked at"
    for content in (whole[:-50], b"", whole[:200] + whole):
        assert failures(replace(trace, ima_log=replace(trace.ima_log, content=content))) == {"ima"}
    absent = replace(trace, ima_log=replace(trace.ima_log, content=None))
    assert result(absent, "ima") is Result.SKIPPED


def test_logs_that_cannot_be_read_are_told(healthy: Trace, store: Store) -> None:
    store.save_config(replace(store.config(), event_log=str(store.folder), ima_log=str(store.folder)))
    trace = collect(store)
    assert failures(trace) == {"boot_log", "ima", "verdict"}
    assert "Is a directory" in sentence(trace, "ima")
