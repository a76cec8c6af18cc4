"""A host whose portal is away starts what the owner allows, in this boot state only, and tells of it afterwards."""

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestation.core.base64url import from_b64u, to_b64u
from guardedhost import agent, bundle, lab, offline, vm
from guardedhost.errors import AgentError, Refused, Unreachable, VmFailure
from guardedhost.machine import Machine, UnlockedMachine, read_machine
from guardedhost.store import Store
from guardedhost.tpm import Tpm
from kps.core import jose
from kps.core.bundle import VmState, build_state
from kps.core.chain import sign_statement
from kps.core.offline import Account, parse_account, verify_account
from kps.core.protector import open_protector, verify_protector, wrap_again
from kps.core.release_policy import NO_POLICY, Offline, ReleasePolicy
from kps.core.secrets import open_secrets, seal_secrets
from kps.core.wrap import wrap
from tests.guardedhost.bundles import Fabric
from tests.guardedhost.conftest import DRIFT, ON, Portal
from tests.guardedhost.verifier import SECRET, Verifier

TWICE = ReleasePolicy(offline=Offline(starts=2, hours=1))
AWAY = "http://127.0.0.1:9"  # nobody answers there


@dataclass
class Rack:
    """A hypervisor that only remembers what it was given."""

    running: UnlockedMachine | None = None

    def start(self, unlocked: UnlockedMachine) -> None:
        self.running = unlocked

    def stop(self, machine: Machine, *, patience: float) -> None:
        self.running = None

    def state(self, machine: Machine) -> str:
        return "stopped" if self.running is None else "running"


@dataclass
class Site:
    """An enrolled host with one machine, and a portal that releases keys and takes accounts."""

    store: Store
    machine: Machine
    fabric: Fabric
    verifier: Verifier
    url: str
    rack: Rack = field(default_factory=Rack)
    accounts: list[Account] = field(default_factory=list)
    refusal: tuple[int, Any] | None = None
    receipt: str = "the log's promise"

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        if path.endswith("/releases"):
            return self.refusal or (200, self._release(body["request"]))
        if path.endswith("/offline-starts"):
            self.accounts.append(verify_account(parse_account(body["message"]), SECRET))
            return 200, {"exceeded": False}
        return self.verifier.answer(path, body)

    def _release(self, token: str) -> dict[str, Any]:
        asked = jose.parse_jws(token, limit=200_000).untrusted_payload
        released = self.fabric.release(VmState(asked["key_protector"], ""))
        key = x509.load_der_x509_certificate(from_b64u(asked["certificate"])).public_key()
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        wrapped = wrap(released.keys, transport_spki=spki)
        return {"wrapped_keys": wrapped, "key_protector": released.protector, "receipt": self.receipt}

    def start(self) -> vm.Started:
        started = vm.start(self.store, self.machine, self.rack)
        self.rack.running = None
        return started

    def goes_away(self) -> None:
        self.store.save_config(replace(self.store.config(), server=AWAY))

    def comes_back(self) -> None:
        self.store.save_config(replace(self.store.config(), server=self.url))

    def signs(self, policy: ReleasePolicy) -> None:
        """Let the owner sign another policy into the machine's newest state."""
        newest = bundle.read_states(self.machine.folder)[0]
        protector = verify_protector(newest.content.protector)
        key = open_protector(protector, self.fabric.owner.encryption)
        plain = open_secrets(newest.content.secrets, key, protector_id=protector.id, roll=protector.roll)
        said = replace(protector.chain.statement, policy=policy, serial=protector.chain.statement.serial + 1)
        signed = sign_statement(said, self.fabric.owner)
        wrapped = wrap_again(signed, roll=protector.roll, key=key, signer=self.fabric.owner.signing)
        secrets = seal_secrets(plain, key, protector_id=protector.id, roll=protector.roll)
        file = self.machine.folder / f"state.{newest.number}.json"
        file.write_bytes(build_state(VmState(wrapped, secrets)))


@pytest.fixture
def site(enrolled: Verifier, portal: Portal, store: Store, bundle: Path, fabric: Fabric) -> Site:
    site = Site(store, read_machine(bundle), fabric, enrolled, portal.url)
    portal.answer = site.answer
    site.signs(TWICE)
    return site


def test_a_machine_starts_as_often_as_its_owner_allows_and_no_more(site: Site) -> None:
    secrets = []
    for away in (False, True, True):
        if away:
            site.goes_away()
        assert vm.start(site.store, site.machine, site.rack).offline is away
        assert site.rack.running is not None
        secrets.append((site.rack.running.level, site.rack.running.disk_passphrase, site.rack.running.vtpm_key))
        site.rack.running = None
    assert len(set(secrets)) == 1
    with pytest.raises(Unreachable, match="used up"):
        site.start()


def test_the_newest_release_leaves_its_receipt_beside_the_machine(site: Site) -> None:
    site.start()
    kept = site.machine.folder / "receipt"
    assert kept.read_text() == site.receipt
    site.receipt = "x" * 100_000
    site.start()
    assert kept.read_text() == "the log's promise"


def test_nothing_starts_without_the_portal_where_the_owner_says_nothing_of_it(site: Site) -> None:
    site.signs(NO_POLICY)
    site.start()
    site.goes_away()
    with pytest.raises(Unreachable, match="without it"):
        site.start()


def test_nothing_starts_without_the_portal_that_it_has_never_released(site: Site) -> None:
    site.goes_away()
    with pytest.raises(Unreachable, match="without it"):
        site.start()


def test_a_portal_that_says_no_is_not_one_that_is_away(site: Site) -> None:
    site.start()
    site.refusal = (403, {"code": "protector_denied", "detail": "This fabric has denied all releases."})
    with pytest.raises(Refused, match="denied all releases"):
        site.start()
    assert site.store.tickets()[site.machine.folder].spent == ()


def test_a_host_that_booted_the_same_again_starts_it(site: Site, lab_host: Path) -> None:
    site.start()
    lab.reboot(lab_host, boot_log=ON, ima_log=None)
    site.goes_away()
    assert site.start().offline


def test_a_host_that_booted_something_else_does_not(site: Site, lab_host: Path) -> None:
    site.start()
    lab.reboot(lab_host, boot_log=DRIFT, ima_log=None)
    site.goes_away()
    with pytest.raises(VmFailure, match="boot state"):
        site.start()
    assert len(site.store.tickets()[site.machine.folder].spent) == 1, "the attempt is told all the same"


def test_a_ticket_that_was_put_back_as_it_was_starts_nothing_more(site: Site) -> None:
    """Whoever restores the host's files does not turn the TPM back."""
    site.start()
    site.goes_away()
    file = site.store.folder / "offline.json"
    fresh = file.read_bytes()
    for _ in range(2):
        site.start()
    file.write_bytes(fresh)
    with pytest.raises(VmFailure, match="bound of the counter"):
        site.start()


def test_a_ticket_that_was_kept_aside_dies_with_the_next_release(site: Site) -> None:
    site.start()
    file = site.store.folder / "offline.json"
    aside, states = file.read_bytes(), bundle.read_states(site.machine.folder)
    site.start()
    file.write_bytes(aside)
    for state in states:
        bundle.add_state(site.machine.folder, state.content)
    site.goes_away()
    with pytest.raises(VmFailure, match="bound of the counter"):
        site.start()


@pytest.mark.parametrize("change", [{"until": 0}, {"roll": 7}], ids=["its time is over", "another roll"])
def test_a_ticket_that_does_not_fit_starts_nothing(site: Site, change: dict[str, int]) -> None:
    site.start()
    site.goes_away()
    ticket = site.store.tickets()[site.machine.folder]
    site.store.save_ticket(site.machine.folder, replace(ticket, **change))  # type: ignore[arg-type]  # both are int
    with pytest.raises(AgentError, match=r"its time is over|has not the state"):
        site.start()


def test_the_owners_hours_hold_without_the_portal_too(site: Site) -> None:
    now = datetime.now(UTC)
    hours = f"{(now.hour + 2) % 24:02}:00-{(now.hour + 3) % 24:02}:00"
    site.signs(replace(TWICE, hours=hours))
    site.start()
    site.goes_away()
    with pytest.raises(Unreachable, match="starts only at"):
        site.start()


def test_no_key_is_in_what_is_kept(site: Site) -> None:
    site.start()
    state = bundle.read_states(site.machine.folder)[0].content
    key = open_protector(verify_protector(state.protector), site.fabric.owner.encryption)
    for path in filter(Path.is_file, site.store.folder.glob("*.json")):
        assert not any(form in path.read_bytes() for form in (key, to_b64u(key).encode(), key.hex().encode()))


# --- the account -------------------------------------------------------------------------------------------------


def test_the_portal_is_told_before_it_is_asked_for_the_next_key(site: Site) -> None:
    site.start()
    site.goes_away()
    site.start()
    site.comes_back()
    assert not site.start().offline
    (account,) = site.accounts
    assert (len(account.starts), account.counted, account.roll, account.vm) == (1, 1, 1, "web-1")
    assert account.owner_fingerprint == site.fabric.owner.guardian.fingerprint
    site.start()
    assert len(site.accounts) == 1, "what was told is not told again"


def test_the_daemon_tells_too_and_again_until_it_is_heard(site: Site) -> None:
    site.start()
    site.goes_away()
    site.start()
    offline.settle(site.store)
    assert site.accounts == []
    site.comes_back()
    offline.settle(site.store)
    offline.settle(site.store)
    assert [account.counted for account in site.accounts] == [1]


def test_a_start_that_a_crash_kept_out_of_the_file_is_in_the_count(site: Site) -> None:
    site.start()
    site.goes_away()
    ticket = site.store.tickets()[site.machine.folder]
    with Tpm(site.store.config().tcti) as tpm:
        tpm.count(ticket.allowance.index)
    site.start()
    site.comes_back()
    site.start()
    assert [(len(account.starts), account.counted) for account in site.accounts] == [(1, 2)]


def test_a_damaged_file_is_as_none(site: Site) -> None:
    site.start()
    (site.store.folder / "offline.json").write_bytes(json.dumps({"/srv/web-1": {"roll": 1}}).encode())
    site.goes_away()
    with pytest.raises(Unreachable, match="without it"):
        site.start()


def test_the_counter_of_a_machine_is_used_again(site: Site) -> None:
    indices = set()
    for _ in range(3):
        site.start()
        indices.add(site.store.tickets()[site.machine.folder].allowance.index)
    assert len(indices) == 1


def test_an_owner_who_allows_it_no_more_ends_it(site: Site) -> None:
    site.start()
    index = site.store.tickets()[site.machine.folder].allowance.index
    site.signs(NO_POLICY)
    site.start()
    assert site.store.tickets() == {}
    with agent.opened(site.store) as host:
        assert host.tpm.new_counter() == index, "the TPM has room again"
