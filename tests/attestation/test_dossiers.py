"""Whoever has a dossier and what it names comes to the verdict again; with anything changed, to another one."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from django.contrib.auth.models import User

from attestation import service
from attestation.core.document import to_json
from attestation.core.dossier import Again, Dossier, differences, judge_again, parse_dossier
from attestation.core.policy_record import parse_policy_record, policy_from
from attestation.core.tpm import parse_public
from attestation.errors import NotKept, ParseError, Refusal
from attestation.models import Attestation, HealthCertificate, PolicyVersion
from attestation.policy import base_document, policy_of
from ledger import service as ledger
from tests.attestation.conftest import Portal, approve_host
from tests.attestation.keys import TRANSPORT, spki
from tests.attestation.test_host_keys import KeyHost
from tests.attestation.test_ima_progress import resets
from tests.ci_policies import STRICT
from tests.ima_lists import ng
from tests.machines import Machine
from tests.measuring import FILES, Running, lines, named

pytestmark = pytest.mark.django_db


class Shelf:
    """What digests stand for, as an export carries it."""

    def __init__(self, *attestations: int) -> None:
        self.known: set[str] = set()
        self.contents: dict[str, bytes] = {}
        self.lists: dict[str, tuple[tuple[int, str], ...]] = {}
        for each in service.material(attestations, known=self.known):
            if isinstance(each, service.Material):
                self.contents[each.sha256] = each.content
            else:
                self.lists[each.dossier] = each.parts

    def __call__(self, digest: str) -> bytes:
        if digest not in self.contents:
            raise NotKept(digest)
        assert hashlib.sha256(self.contents[digest]).hexdigest() == digest
        return self.contents[digest]

    def ima_list(self, digest: str) -> bytes | None:
        parts = [(begins, self(part)) for begins, part in self.lists.get(digest, ())]
        ends = [begins for begins, _ in parts[1:]] + [None]
        whole = (part if end is None else part[: end - begins] for (begins, part), end in zip(parts, ends, strict=True))
        return b"".join(whole) if parts else None


def newest() -> Attestation:
    return Attestation.objects.filter(code="").latest("id")


def judged(row: Attestation) -> tuple[Dossier, Again]:
    shelf = Shelf(row.pk)
    dossier = parse_dossier(shelf(row.dossier_sha256))
    return dossier, judge_again(dossier, shelf, ima_list=shelf.ima_list(row.dossier_sha256))


def test_a_pass_is_come_to_again(fabric: Portal, healthy: Machine) -> None:
    fabric.attest(healthy)
    dossier, again = judged(newest())
    assert differences(dossier, again) == ()
    assert (again.status, again.baseline) == ("Passed", str(newest().baseline_id))
    assert again.transport_spki == parse_public(healthy.transport.public).spki


def test_a_failure_is_come_to_again(fabric: Portal, drifted: Machine, admin: User, approver: User) -> None:
    approve_host(fabric, drifted, admin, approver)
    fabric.attest(drifted)
    dossier, again = judged(newest())
    assert differences(dossier, again) == ()
    assert again.status == "InsecureHostConfiguration"
    assert again.codes


def test_a_waiting_host_is_judged_again_as_one_that_waits(portal: Portal, healthy: Machine) -> None:
    portal.enrol(healthy)
    portal.attest(healthy)
    dossier, again = judged(newest())
    assert differences(dossier, again) == ()
    assert (again.status, again.codes[0]) == ("UnauthorizedHost", "host_pending")


@pytest.mark.parametrize("accepted", [tuple(FILES), (b"/init", b"/bin/sh")], ids=["passes", "runs what nobody named"])
def test_a_list_of_files_that_came_in_parts_is_judged_again_whole(
    accepted: tuple[bytes, ...], watched: Portal, running: Running, admin: User, approver: User
) -> None:
    named(lines(*accepted), admin, approver)
    running.attest(watched)
    running.measure(ng(b"/init", FILES[b"/init"]))
    running.attest(watched, boot=resets(running.machine))
    row = newest()
    assert row.ima_from > 0
    dossier, again = judged(row)
    assert differences(dossier, again) == ()
    assert (again.status == "Passed") == (len(accepted) == len(FILES))


def test_a_host_key_is_judged_again_by_its_proof(portal: Portal, admin: User, approver: User) -> None:
    host = KeyHost(portal, "nbg-k01", ec.generate_private_key(ec.SECP256R1()))
    host.register()
    host.attest()
    dossier, again = judged(newest())
    assert differences(dossier, again) == ()
    assert again.transport_spki == spki(TRANSPORT)
    with pytest.raises(Refusal):
        judge_again(replace(dossier, nonce=bytes(32)), Shelf(), ima_list=None)


def test_the_ledger_binds_dossier_policy_and_certificate(fabric: Portal, healthy: Machine) -> None:
    fabric.attest(healthy)
    row, shelf = newest(), Shelf(newest().pk)
    detail = ledger.leaves(act_prefix="attestation.passed")[0].detail
    der = bytes(HealthCertificate.objects.get(attestation=row).der)
    assert detail["evidence"] == row.dossier_sha256
    assert detail["certificate_sha256"] == hashlib.sha256(der).hexdigest()
    assert detail["policy_sha256"] == hashlib.sha256(shelf(parse_dossier(shelf(row.dossier_sha256)).policy)).hexdigest()
    assert {*shelf.contents} >= {*service.signers(), row.event_log_id, detail["certificate_sha256"]}


def test_a_policy_that_was_written_down_is_the_one_that_judged(
    watched: Portal, running: Running, admin: User, approver: User
) -> None:
    """Every part of it: baselines with their events, files, code integrity policies, exceptions, parameters."""
    now = datetime.now(UTC)
    code_policy = service.add_code_policy(STRICT.binary, name="Hosts", file_name="SiPolicy.p7b", by=admin, now=now)
    files = named(lines(*FILES), admin, approver)
    document = to_json(base_document("default")[1]) | {
        "runtime": str(files.pk),
        "code_policies": [str(code_policy.pk)],
        "exceptions": [
            {
                "check": "baseline",
                "until": (now + timedelta(days=3)).isoformat(),
                "owner": "Ada",
                "reason": "while the racks move",
                "hosts": [running.machine.attester],
                "pcrs": [4],
                "accepts_fail": True,
            }
        ],
    }
    version = PolicyVersion.objects.create(
        version=99, document=document, effective_at=now, created_at=now, created_by="ada", reason="all of it"
    )
    running.attest(watched)
    shelf = Shelf(newest().pk)
    assert policy_from(parse_policy_record(shelf(newest().policy_sha256)), shelf) == policy_of(version)


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda said: said.update(nonce="00" * 32), id="another challenge"),
        pytest.param(lambda said: said["pcrs"].update({"7": "00" * 32}), id="another PCR value"),
        pytest.param(lambda said: said["evidence"].update(quote=said["evidence"]["quote"][:-2] + "00"), id="quote"),
        pytest.param(lambda said: said["evidence"].pop("signature"), id="no signature"),
        pytest.param(lambda said: said.update(event_log=""), id="no log"),
        pytest.param(lambda said: said.update(policy="0" * 64), id="a policy that nobody has"),
        pytest.param(lambda said: said.update(version=said["version"] + 1), id="another version"),
        pytest.param(lambda said: said.update(mode="wish"), id="a mode that nobody knows"),
        pytest.param(lambda said: said.update(at="2026-11-26T12:00:00"), id="a moment of no zone"),
        pytest.param(lambda said: said.update(more=1), id="a member that nobody knows"),
    ],
)
def test_a_dossier_with_other_grounds_is_refused(change: Change, fabric: Portal, healthy: Machine) -> None:
    fabric.attest(healthy)
    shelf = Shelf(newest().pk)
    said = json.loads(shelf(newest().dossier_sha256))
    change(said)
    with pytest.raises(Refusal):
        judge_again(parse_dossier(json.dumps(said).encode()), shelf, ima_list=None)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        pytest.param({"status": "InsecureHostConfiguration"}, "status", id="status"),
        pytest.param({"codes": ("secure_boot",)}, "findings", id="findings"),
        pytest.param({"excepted": ("secure_boot",)}, "findings that exceptions covered", id="exceptions"),
        pytest.param({"baseline": ""}, "baseline", id="baseline"),
        pytest.param({"policy": "", "version": 0}, "status", id="no policy"),
        pytest.param({"approved": False}, "status", id="standing"),
    ],
)
def test_another_verdict_than_the_grounds_give_is_named(
    change: dict[str, Any], named: str, fabric: Portal, healthy: Machine
) -> None:
    fabric.attest(healthy)
    shelf = Shelf(newest().pk)
    dossier = replace(parse_dossier(shelf(newest().dossier_sha256)), **change)
    found = differences(dossier, judge_again(dossier, shelf, ima_list=None))
    assert any(each.startswith(f"The {named}: ") for each in found), found


def test_a_policy_record_that_lacks_what_it_names_is_refused(fabric: Portal, healthy: Machine) -> None:
    fabric.attest(healthy)
    shelf = Shelf(newest().pk)
    record = parse_policy_record(shelf(newest().policy_sha256))
    (baseline,) = record.baselines.values()
    event_log = json.loads(shelf(baseline))["event_log"]
    for digest in (baseline, event_log):
        kept = shelf.contents.pop(digest)
        with pytest.raises(NotKept):
            policy_from(record, shelf)
        shelf.contents[digest] = kept


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"version": 1}', b"\xff"])
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(ParseError):
        parse_policy_record(data)
    with pytest.raises(ParseError):
        parse_dossier(data)
