"""A new machine out of a template disk and shielding data: its owner is not there, and its host is no one's word alone.

The disk is copied under a new key and hashed as it then lies there, so that no other disk can be put in its place
between looking and copying. Only then is the portal asked for the shielding data's key; with it comes the first key
protector of the machine, under its owner's signature. What is half done is a hidden folder beside the machine's.
"""

import base64
import io
import logging
import secrets
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pycdlib import PyCdlib

from attestation.errors import Refusal
from guardedhost import agent, vm
from guardedhost.errors import AgentError, VmFailure
from guardedhost.files import sync_folder, write_new
from guardedhost.image import Progress, opened
from guardedhost.luks import encrypt, encrypt_bytes
from guardedhost.machine import Firmware, Machine
from guardedhost.store import Store
from guardedhost.vm import Released
from kps.core.bundle import (
    DISK_FILE,
    SEED_FILE,
    VM_FILE,
    VmDescription,
    VmState,
    build_state,
    build_vm,
    state_file,
)
from kps.core.catalog import Catalog
from kps.core.protector import VerifiedProtector, verify_protector
from kps.core.secrets import VmSecrets, seal_secrets
from kps.core.seed import build_seed
from kps.core.shielding_content import Content
from kps.core.shielding_data import ShieldingData, open_content, require_applicable, sealed_pieces
from kps.core.substitution import require_values
from kps.core.volume import differing

LABEL: Final = "CIDATA"  # by which cloud-init knows its seed (NoCloud)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a machine is made of. `catalog` and `data` are verified by their signers; who these are, the data says.

    `data` is the head of the file `shielding_data`; what follows it is read when it is opened.
    """

    name: str
    memory: int
    template: Path
    catalog: Catalog
    shielding_data: Path
    data: ShieldingData = field(repr=False)
    values: Mapping[str, str]


def provision(store: Store, wanted: Wanted, folder: Path, progress: Progress) -> Machine:
    """Make the machine's bundle in `folder`, which must not exist, as this host with its health certificate.

    Until the machine is started and stopped here, or the daemon says that it does not run, no other host starts it
    where its owner wants it on one at a time.
    """

    def release_for(machine: Machine, state: VmState) -> Released:
        with agent.opened(store) as host:
            return vm.release(host, machine, state)

    machine = make(wanted, folder, release_for, progress)
    store.remember_held(machine.folder)  # as the portal counts it: the host that made a machine is its first holder
    return machine


def make(
    wanted: Wanted, folder: Path, release_for: Callable[[Machine, VmState], Released], progress: Progress
) -> Machine:
    """Make the bundle in one step: after any failure there is none, and a machine that the portal made stays unused."""
    folder = folder.resolve()
    if folder.exists():
        raise VmFailure(f"{folder} exists already.")
    try:
        require_applicable(wanted.data, wanted.catalog)
        require_values(wanted.data.label.asks_for, wanted.values)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
            building = Path(temporary) / "bundle"
            building.mkdir(mode=0o700)
            description = _fill(building, wanted, release_for, progress)
            building.rename(folder)
    except Refusal as error:
        raise VmFailure(str(error)) from error
    sync_folder(folder.parent)
    log.info("made: vm=%s protector=%s shielding data=%s", description.name, description.id, wanted.data.id)
    return Machine(folder, description, Firmware.SECURE_BOOT)


def _fill(
    building: Path, wanted: Wanted, release_for: Callable[[Machine, VmState], Released], progress: Progress
) -> VmDescription:
    plain = VmSecrets(secrets.token_hex(32), base64.b64encode(secrets.token_bytes(32)).decode())
    passphrase = plain.disk_passphrase.encode()
    encrypt(wanted.template, building / DISK_FILE, passphrase)
    _require_described(building / DISK_FILE, passphrase, wanted.catalog, progress)
    asked_as = VmDescription(wanted.name, str(wanted.data.id), wanted.data.level, wanted.memory)
    released = release_for(
        Machine(building, asked_as, Firmware.SECURE_BOOT), VmState(wanted.data.document["protector"], "")
    )
    first = first_protector(wanted.data, released)
    content = _opened(wanted, released.keys.ingress)
    seed = build_seed(content, wanted.values, machine_id=first.id)
    encrypt_bytes(seed_image(seed), building / SEED_FILE, passphrase)
    sealed = seal_secrets(plain, released.keys.egress, protector_id=first.id, roll=first.roll)
    description = VmDescription(wanted.name, str(first.id), first.level, wanted.memory)
    write_new(building / VM_FILE, build_vm(description))
    write_new(building / state_file(0), build_state(VmState(released.protector, sealed)))
    sync_folder(building)
    return description


def _opened(wanted: Wanted, key: bytes) -> Content:
    with wanted.shielding_data.open("rb") as file:
        file.readline()  # the head, as it is by now; what follows is held against the one that was verified
        return open_content(wanted.data, sealed_pieces(wanted.data, file), key)


def _require_described(disk: Path, passphrase: bytes, catalog: Catalog, progress: Progress) -> None:
    """Refuse a copy that is not, byte for byte as a guest will see it, what the template's signer has signed."""
    with opened(disk, passphrase=passphrase) as image:
        if image.size != catalog.volume.size:
            raise VmFailure(
                f"The template disk has {image.size} bytes, and the catalog of {catalog.name} {catalog.version}"
                f" describes one of {catalog.volume.size}. Get the disk that belongs to the catalog."
            )
        volume = image.volume(progress)
    if volume.root != catalog.volume.root:
        first = differing(catalog.volume, volume)[0]
        raise VmFailure(
            f"The template disk is not what the catalog of {catalog.name} {catalog.version} describes: it differs from"
            f" byte {first.first} on. Nothing secret was opened. Get the disk anew."
        )


def first_protector(data: ShieldingData, released: Released) -> VerifiedProtector:
    """Return the new machine's protector, when it is one of the data's owner and was made from this data.

    A portal that answers with anything else could have this host put the owner's secrets into another's machine.
    """
    keys = released.keys
    try:
        first = verify_protector(released.protector)
    except Refusal as error:
        raise AgentError(f"The portal's answer holds no key protector that verifies: {error}") from error
    before = data.protector.chain.statement.serial
    same = first.owner == data.owner and first.chain.made_from == data.id and first.id == keys.protector
    if not same or first.roll != keys.roll or first.level != keys.level or first.chain.statement.serial < before:
        raise AgentError("The portal's answer is not the first key protector of a machine made from this data.")
    return first


def seed_image(files: Mapping[str, bytes]) -> bytes:
    """Return an ISO 9660 image with these files, under the label and the names that cloud-init looks for."""
    image, target = PyCdlib(), io.BytesIO()
    image.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=LABEL)
    for number, (name, content) in enumerate(sorted(files.items())):
        image.add_fp(io.BytesIO(content), len(content), f"/FILE{number}.;1", rr_name=name, joliet_path=f"/{name}")
    image.write_fp(target)
    image.close()
    return target.getvalue()
