"""Real machines under QEMU and swtpm, and every crash and lie on the way to them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from guardedhost import bundle as bundles
from guardedhost import qemu, vm
from guardedhost.errors import Refused, VmFailure
from guardedhost.machine import RULES, Firmware, Machine, UnlockedMachine, read_machine
from guardedhost.qemu import NetworkCard, Qemu, _command, _network, mac_of
from kps.core.bundle import VmState
from kps.core.chain import ENCRYPTION_SUPPORTED, SHIELDED
from tests.guardedhost.bundles import Fabric, make_bundle

QEMU = Qemu()


@pytest.fixture
def machine(bundle: Path) -> Iterator[Machine]:
    """A shielded machine, switched off afterwards."""
    machine = read_machine(bundle)
    yield machine
    QEMU.stop(machine, patience=0)


def start(machine: Machine, fabric: Fabric) -> UnlockedMachine:
    prepared = vm.prepare(machine, fabric.release)
    vm.launch(prepared, QEMU)
    return prepared.unlocked


def numbers(machine: Machine) -> list[int]:
    return [state.number for state in bundles.read_states(machine.folder)]


def processes(machine: Machine) -> dict[int, str]:
    """The programs that work on a bundle, with their command lines and environments."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            text = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
            inside = Path(os.readlink(folder / "cwd")) == machine.folder
        except OSError:
            continue
        if inside or str(machine.folder).encode() in text:
            found[int(folder.name)] = text.decode(errors="replace")
    return {pid: text for pid, text in found.items() if text.startswith(("qemu-system", "swtpm"))}


def gone(machine: Machine) -> bool:
    deadline = time.monotonic() + 5
    while processes(machine) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not processes(machine)


def test_a_shielded_machine_starts_stops_and_starts_again(machine: Machine, fabric: Fabric) -> None:
    for expected in ([1, 0], [2, 1], [3, 2]):
        assert start(machine, fabric).level == SHIELDED
        assert QEMU.state(machine) == "running"
        assert numbers(machine) == expected
        QEMU.stop(machine, patience=0)
        assert QEMU.state(machine) == "stopped"
        assert gone(machine)


def test_no_key_is_on_a_command_line_in_an_environment_or_in_a_file(machine: Machine, fabric: Fabric) -> None:
    unlocked = start(machine, fabric)
    keys = (unlocked.vtpm_key, unlocked.disk_passphrase, bytes.fromhex(unlocked.vtpm_key.decode()))
    running = processes(machine)
    assert {text.split("\0")[0] for text in running.values()} == {"qemu-system-x86_64", "swtpm"}
    for text in running.values():
        assert not any(key.decode(errors="replace") in text for key in keys)
    for path in filter(Path.is_file, machine.folder.rglob("*")):
        assert not any(key in path.read_bytes() for key in keys), path
    assert repr(unlocked) == "UnlockedMachine('web-1', shielded)"


def test_a_machine_leaves_no_core_and_its_monitor_is_private(machine: Machine, fabric: Fabric) -> None:
    start(machine, fabric)
    for pid in processes(machine):
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert [line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core")] == [["0", "0"]]
    assert machine.run_folder.stat().st_mode & 0o777 == 0o700


def test_a_running_machine_is_not_started_twice(machine: Machine, fabric: Fabric) -> None:
    unlocked = start(machine, fabric)
    with pytest.raises(VmFailure, match="already running"):
        QEMU.start(unlocked)
    assert QEMU.state(machine) == "running"


@pytest.mark.parametrize("key", ["disk_passphrase", "vtpm_key"])
def test_a_wrong_key_starts_nothing_and_loses_nothing(machine: Machine, fabric: Fabric, key: str) -> None:
    QEMU.start(vm.prepare(machine, fabric.release).unlocked)  # the vTPM is made now
    QEMU.stop(machine, patience=0)
    prepared = vm.prepare(machine, fabric.release)
    other = os.urandom(32).hex().encode()
    changed = {"disk_passphrase": prepared.unlocked.disk_passphrase, "vtpm_key": prepared.unlocked.vtpm_key, key: other}
    wrong = UnlockedMachine(machine, SHIELDED, changed["vtpm_key"], changed["disk_passphrase"])
    with pytest.raises(VmFailure, match="web-1 did not start"):
        vm.launch(replace(prepared, unlocked=wrong), QEMU)
    assert gone(machine)
    assert numbers(machine) == [2, 1, 0]
    start(machine, fabric)


def kill_at(step: str, machine: Machine, fabric: Fabric) -> None:
    """Start the machine in a forked agent that kills itself at a step, as SIGKILL from outside would."""
    child = os.fork()
    if child == 0:
        try:
            prepared = vm.prepare(machine, fabric.release)
            if step == "after the state is written":
                os.kill(os.getpid(), signal.SIGKILL)
            _killed_in(step, prepared.unlocked)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def _killed_in(step: str, unlocked: UnlockedMachine) -> None:
    machine = unlocked.machine
    if step == "while the vTPM is made":
        (machine.folder / "vtpm.new").mkdir()
        (machine.folder / "vtpm.new" / "tpm2-00.permall").write_bytes(b"half")
    elif step == "between vTPM and QEMU":
        machine.run_folder.mkdir(exist_ok=True)
        qemu._make_vtpm(unlocked)
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        qemu._start_vtpm(unlocked, theirs.fileno())
        assert ours.fileno()
    else:
        QEMU.start(unlocked)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("step", ["after the state is written", "while the vTPM is made", "between vTPM and QEMU"])
def test_a_machine_whose_agent_was_killed_starts(machine: Machine, fabric: Fabric, step: str) -> None:
    kill_at(step, machine, fabric)
    start(machine, fabric)
    assert QEMU.state(machine) == "running"
    assert numbers(machine) == [2, 1]


def test_a_machine_whose_agent_was_killed_after_the_start_runs_on(machine: Machine, fabric: Fabric) -> None:
    kill_at("after QEMU", machine, fabric)
    assert QEMU.state(machine) == "running"
    QEMU.stop(machine, patience=0)
    start(machine, fabric)
    assert numbers(machine) == [2, 1]


def test_an_unfinished_state_is_passed_over_and_swept_up(machine: Machine, fabric: Fabric) -> None:
    (machine.folder / ".state.1.json.4711").write_bytes(b'{"protector": {')
    start(machine, fabric)
    assert numbers(machine) == [1, 0]
    assert not list(machine.folder.glob(".state*"))


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"protector": {}}', b'{"protector": {}, "secrets": "a.b.c.d.e"}']
)
def test_the_last_known_good_state_opens_when_the_newest_is_damaged(
    machine: Machine, fabric: Fabric, damage: bytes
) -> None:
    (machine.folder / "state.7.json").write_bytes(damage)
    prepared = vm.prepare(machine, lambda state: fabric.release(state) if state.protector else released_never(state))
    assert prepared.keep == {0, 8}


def released_never(state: VmState) -> vm.Released:
    raise vm.StateUnusable("The portal cannot read this protector.")


def test_secrets_under_another_key_are_passed_over(machine: Machine, fabric: Fabric) -> None:
    good = bundles.read_states(machine.folder)[0].content
    rolled = fabric.release(good).protector
    bundles.add_state(machine.folder, VmState(rolled, good.secrets))
    assert vm.prepare(machine, fabric.release).keep == {0, 2}


def test_a_bundle_without_a_complete_state_is_refused(machine: Machine, fabric: Fabric) -> None:
    (machine.folder / "state.0.json").write_bytes(b"{")
    with pytest.raises(VmFailure, match="no complete state"):
        vm.prepare(machine, fabric.release)


def test_a_refusal_of_the_host_is_final_and_writes_nothing(machine: Machine) -> None:
    asked = []

    def refuse(state: VmState) -> vm.Released:
        asked.append(state)
        raise Refused("protector_denied", "This fabric has denied all releases.")

    bundles.add_state(machine.folder, bundles.read_states(machine.folder)[0].content)
    with pytest.raises(Refused, match="denied all releases"):
        vm.prepare(machine, refuse)
    assert (len(asked), numbers(machine)) == (1, [1, 0])


def test_a_portal_that_lowers_the_level_is_not_obeyed(machine: Machine, fabric: Fabric) -> None:
    def lowered(state: VmState) -> vm.Released:
        released = fabric.release(state)
        return replace(released, keys=replace(released.keys, level=ENCRYPTION_SUPPORTED))

    with pytest.raises(VmFailure, match="not for this key protector"):
        vm.prepare(machine, lowered)
    assert numbers(machine) == [0]


def test_a_successor_of_another_machine_is_not_kept(machine: Machine, fabric: Fabric, tmp_path: Path) -> None:
    other = read_machine(make_bundle(tmp_path / "other", fabric, level=SHIELDED))
    foreign = fabric.release(bundles.read_states(other.folder)[0].content)
    with pytest.raises(VmFailure, match="not for this key protector"):
        vm.prepare(machine, lambda state: replace(fabric.release(state), protector=foreign.protector))
    assert numbers(machine) == [0]


def test_the_description_cannot_lower_the_level(machine: Machine, fabric: Fabric) -> None:
    description = machine.folder / "vm.json"
    description.write_text(description.read_text().replace(SHIELDED, ENCRYPTION_SUPPORTED))
    assert vm.prepare(read_machine(machine.folder), fabric.release).unlocked.level == SHIELDED


@pytest.mark.parametrize("firmware", list(Firmware))
def test_a_shielded_machine_has_secure_boot_and_no_way_to_look_in(machine: Machine, firmware: Firmware) -> None:
    unlocked = UnlockedMachine(replace(machine, firmware=firmware), SHIELDED, b"", b"")
    command = " ".join(_command(unlocked, "tcg", disk_key=3, vtpm=4))
    for wanted in ("secure,value=on", "smm=on", "-serial none", "-display none", "dump-guest-core=off", "spawn=deny"):
        assert wanted in command
    for unwanted in ("console.log", "guest_agent", "virtio-serial", "vnc", "spice"):
        assert unwanted not in command


def test_a_machine_has_no_network_unless_it_is_given_one(machine: Machine) -> None:
    command = _command(UnlockedMachine(machine, SHIELDED, b"", b""), "tcg", disk_key=3, vtpm=4)
    assert command[command.index("-nic") + 1] == "none"
    assert not any("netdev" in word for word in command)


def test_a_network_card_runs_no_script_boots_nothing_and_keeps_its_address(machine: Machine) -> None:
    told = " ".join(_network(NetworkCard("tap0"), machine))
    for wanted in ("ifname=tap0,", "script=no,downscript=no", "romfile=", f"mac={mac_of(machine)}"):
        assert wanted in f"{told},"
    other = replace(machine, description=replace(machine.description, id="another"))
    assert mac_of(machine) == mac_of(machine) != mac_of(other)
    assert mac_of(machine).startswith("52:54:00:")
    assert "mac=52:54:00:12:34:56," in " ".join(_network(NetworkCard("tap0", "52:54:00:12:34:56"), machine))


def test_a_tap_device_that_is_not_there_starts_nothing(machine: Machine, fabric: Fabric) -> None:
    prepared = vm.prepare(machine, fabric.release)
    with pytest.raises(VmFailure, match="web-1 did not start"):
        vm.launch(prepared, Qemu(card=NetworkCard("none,there=1")))
    assert gone(machine)


def test_an_encryption_supported_machine_may_have_console_and_guest_agent(fabric: Fabric, tmp_path: Path) -> None:
    machine = read_machine(make_bundle(tmp_path / "es", fabric, level=ENCRYPTION_SUPPORTED))
    machine = replace(machine, firmware=Firmware.BIOS)
    try:
        assert start(machine, fabric).level == ENCRYPTION_SUPPORTED
        assert (machine.run_folder / "console.log").exists()
        assert (machine.run_folder / "guest-agent").is_socket()
    finally:
        QEMU.stop(machine, patience=0)


def test_a_bundle_may_lie_deep(bundle: Path, fabric: Fabric, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / "web-1"
    deep.parent.mkdir()
    machine = read_machine(bundle.rename(deep))
    try:
        start(machine, fabric)
        assert QEMU.state(machine) == "running"
    finally:
        QEMU.stop(machine, patience=0)


def test_each_level_has_its_rules() -> None:
    assert set(RULES) == {SHIELDED, ENCRYPTION_SUPPORTED}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"name": "a", "id": "no UUID", "level": "shielded", "memory": 64, "disk": "d"}',
        '{"name": "a,b", "id": "ID", "level": "shielded", "memory": 64, "disk": "d"}',
        '{"name": "a", "id": "ID", "level": "shielded", "memory": 64, "disk": "../d"}',
        '{"name": "a", "id": "ID", "level": "shielded", "memory": 1, "disk": "d"}',
        '{"name": "a", "id": "ID", "level": "shielded", "memory": 64, "disk": "d", "firmware": "coreboot"}',
        '{"name": "a", "id": "ID", "level": "shielded", "memory": 64, "disk": "d", "firmware": ["bios"]}',
        '{"name": "a", "name": "b", "id": "ID", "level": "shielded", "memory": 64, "disk": "d"}',
        '{"name": ' + "[" * 100_000,
        '{"name": ' + "[" * 1_500,
    ],
)
def test_a_description_that_could_mislead_qemu_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "vm.json").write_text(text.replace("ID", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"))
    with pytest.raises(VmFailure):
        read_machine(tmp_path)


def test_a_folder_without_a_description_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(VmFailure, match="not a bundle"):
        read_machine(tmp_path)


def test_the_agent_may_not_be_traced_once_it_keeps_its_secrets() -> None:
    program = (
        "import ctypes, resource; from guardedhost.process import keep_secrets_in; keep_secrets_in();"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "0 (0, 0)"
