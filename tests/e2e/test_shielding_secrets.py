"""A portal that keeps shielding data never has its secrets: not in its database, its files, its logs or its memory.

Neither while it rests there nor after a host got the file's key and made a machine, for which the portal had that key
for a moment. That key is looked for too: in its memory before, in what it writes for good.

Markers are planted in every part of a file that only its owner and healthy hosts open, and looked for in all forms in
which they could lie. A marker in the open part shows that the looking finds what is there.
"""

import base64
import json
import secrets
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
import requests

from deploy.localfabric import Portal, free_port
from guardedhost.jwe import open_jwe
from kps.core.chain import new_statement
from kps.core.guardian import parse_metadata
from kps.core.protector import verify_protector
from kps.core.release_policy import NO_POLICY
from kps.core.shielding_content import Content, GuestFile
from kps.core.wrap import parse_released
from tests.e2e.wire import Line, approve, attest, enrol, holder, must, portal_in
from tests.kps.parties import OWNER, OWNERS
from tests.kps.shielding import LABEL, content_in, head_of, whole_file
from tests.machines import booted
from tests.tpm_lab import Maker

pytestmark = pytest.mark.e2e
OPEN = "open-marker-of-the-description"


def marker(what: str) -> str:
    return f"planted-{what}-{secrets.token_hex(8)}"


SECRETS = {what: marker(what) for what in ("user-data", "network", "path", "file", "secret")}
CONTENT = Content(
    user_data=f"#cloud-config\n# {SECRETS['user-data']}\npassword: '@Secret-root@'\n",
    network_config=f"# {SECRETS['network']}\n",
    files=(GuestFile(f"/etc/{SECRETS['path']}", 0o600, SECRETS["file"].encode() * 100),),
    secrets={"root": SECRETS["secret"]},
)
KEY = secrets.token_bytes(32)


@pytest.fixture
def portal(tmp_path: Path) -> Iterator[Portal]:
    portal = portal_in(tmp_path / "portal", free_port(), {"GUARDHOUSE_LOG_LEVEL": "DEBUG"})
    yield portal
    portal.kill()


def asked(portal: Portal, path: str, token: str = "", form: dict[str, str] | None = None, file: bytes = b"") -> bytes:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    address = f"{portal.url}/{path}"
    if form is None:
        answer = requests.get(address, headers=headers, timeout=10)
    else:
        answer = requests.post(address, data=form, files={"file": file}, headers=headers, timeout=10)
    answer.raise_for_status()
    return answer.content


def forms(secret: bytes) -> list[bytes]:
    """Return a secret as it could lie somewhere: itself, in hexadecimal, and in base64 wherever it begins in there."""
    found = [secret, secret.hex().encode(), secret.decode("latin-1").encode("utf-16-le")]
    for offset in range(3):
        whole = base64.b64encode(bytes(offset) + secret)
        inside = whole[4 if offset else 0 : len(whole) - 4]  # what depends on nothing beside it
        found += [inside, inside.replace(b"+", b"-").replace(b"/", b"_")]
    return found


def processes(portal: Portal) -> list[int]:
    """Return every process of the portal: those in the group that it was started in."""
    assert portal.process is not None
    group = portal.process.pid
    stats = {int(each.parent.name): each for each in Path("/proc").glob("[0-9]*/stat")}
    return [pid for pid, stat in stats.items() if _group_of(stat) == group]


def _group_of(stat: Path) -> int:
    try:
        return int(stat.read_text().rpartition(")")[2].split()[2])
    except OSError:  # it has ended meanwhile
        return 0


def memory(pid: int) -> bytes:
    """Return all that a process has in memory and could write to."""
    found = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as source:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            where, rights, *_ = line.split()
            if not rights.startswith("rw"):
                continue
            first, end = (int(each, 16) for each in where.split("-"))
            try:
                source.seek(first)
                found.append(source.read(end - first))
            except (OSError, OverflowError):  # a mapping of a device, or one that is gone
                continue
    return b"".join(found)


def token_of_owner(portal: Portal) -> str:
    portal.manage("add_tenant", "Brandt", OWNERS)
    portal.add_person("tim", "owner", tenant="brandt")
    made = portal.manage("api_token", "make", "upload", "--by", "tim", "--reason", "to upload shielding data")
    return next(word for word in made.split() if word.startswith("guard_"))


def a_file(portal: Portal) -> bytes:
    fabric = parse_metadata(json.loads(asked(portal, "kps/v1/metadata"))["metadata"])
    now = datetime.now(UTC)
    statement = new_statement(
        OWNER.guardian, [fabric], protector_id=uuid4(), level="shielded", policy=NO_POLICY, now=now
    )
    return whole_file(OWNER, statement, CONTENT, label=replace(LABEL, description=OPEN), key=KEY, now=now)


def made_by_a_host(portal: Portal, folder: Path, file: bytes) -> None:
    """Let a host prove itself, get the file's key and the protector of a new machine, and open the file."""
    maker = Maker(folder / "maker")
    with booted(maker, folder, name="nbg-a01", capture="secureboot-on") as machine, closing(Line(portal.port)) as line:
        enrol(line, machine)
        attest(line, machine)
        approve(portal, maker, machine)
        host = replace(holder(line, machine), protector=head_of(file)["protector"])
        answer = must(line.post("/kps/v1/releases", host.request(secrets.token_bytes(32))))
        released = parse_released(open_jwe(answer["wrapped_keys"], machine.unwrap))
        assert verify_protector(answer["key_protector"]).chain.made_from == verify_protector(host.protector).id
        assert content_in(file, released.ingress) == CONTENT


def at_rest(portal: Portal) -> dict[str, bytes]:
    """Return what is in the portal's folder: its database, its logs, whatever else it writes."""
    files = {str(each): each.read_bytes() for each in portal.folder.rglob("*") if each.is_file()}
    found = [name for name, content in files.items() if OPEN.encode() in content]
    assert any("sqlite" in name for name in found), f"the looking finds nothing in {sorted(files)}"
    return files


def in_memory(portal: Portal) -> dict[str, bytes]:
    dumps = {f"memory of {pid}": memory(pid) for pid in processes(portal)}
    assert any(OPEN.encode() in dump for dump in dumps.values()), "the looking finds nothing"
    encoded = forms(OPEN.encode())[3:]  # it is in the owner's signed words, which are base64url
    assert any(form in dump for dump in dumps.values() for form in encoded), "the looking finds nothing in base64"
    return dumps


def require_absent(places: dict[str, bytes], *, key: bool) -> None:
    wanted = [(what, text.encode()) for what, text in SECRETS.items()] + ([("key", KEY)] if key else [])
    for place, content in places.items():
        for what, secret in wanted:
            for form in forms(secret):
                assert form not in content, f"{what} is in {place}"


def test_a_portal_has_none_of_the_secrets_that_it_keeps_and_gives_the_key_of(portal: Portal, tmp_path: Path) -> None:
    token, file = token_of_owner(portal), a_file(portal)
    kept = json.loads(
        asked(
            portal, "api/v1/shielding-data", token, {"tenant": "brandt", "name": "web", "description": OPEN}, file=file
        )
    )
    asked(portal, f"api/v1/shielding-data/{kept['id']}", token)
    assert asked(portal, f"api/v1/shielding-data/{kept['id']}/file", token) == file
    require_absent(at_rest(portal) | in_memory(portal), key=True)

    made_by_a_host(portal, tmp_path, file)
    used = json.loads(asked(portal, f"api/v1/shielding-data/{kept['id']}", token))["used_by"]
    assert len(used) == 1
    require_absent(at_rest(portal), key=True)
    require_absent(in_memory(portal), key=False)  # the key was there for a moment, and nobody wipes Python's memory
