"""A portal that keeps shielding data never has its secrets: not in its database, its files, its logs or its memory.

Markers are planted in every part of a file that only its owner and healthy hosts open, and looked for in all forms in
which they could lie. A marker in the open part shows that the looking finds what is there.
"""

import base64
import json
import secrets
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
import requests

from deploy.localfabric import Portal, free_port
from kps.core.chain import new_statement
from kps.core.guardian import parse_metadata
from kps.core.release_policy import NO_POLICY
from kps.core.shielding_content import Content, GuestFile
from kps.core.shielding_data import build_shielding_data
from tests.e2e.wire import portal_in
from tests.kps.parties import OWNER, OWNERS
from tests.kps.shielding import LABEL

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


def asked(portal: Portal, path: str, token: str = "", body: object = None) -> bytes:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    verb = "GET" if body is None else "POST"
    answer = requests.request(verb, f"{portal.url}/{path}", json=body, headers=headers, timeout=10)
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


def test_a_portal_that_keeps_shielding_data_has_none_of_its_secrets(portal: Portal) -> None:
    portal.manage("add_tenant", "Brandt", OWNERS)
    portal.add_person("tim", "owner", tenant="brandt")
    made = portal.manage("api_token", "make", "upload", "--by", "tim", "--reason", "to upload shielding data")
    token = next(word for word in made.split() if word.startswith("guard_"))
    fabric = parse_metadata(json.loads(asked(portal, "kps/v1/metadata"))["metadata"])
    now = datetime.now(UTC)
    statement = new_statement(
        OWNER.guardian, [fabric], protector_id=uuid4(), level="shielded", policy=NO_POLICY, now=now
    )
    label = replace(LABEL, description=OPEN)
    file = build_shielding_data(OWNER, statement, CONTENT, label=label, key=KEY, now=now).decode()

    body = {"tenant": "brandt", "name": "web", "description": OPEN, "file": file}
    kept = json.loads(asked(portal, "api/v1/shielding-data", token, body))
    asked(portal, f"api/v1/shielding-data/{kept['id']}", token)
    assert asked(portal, f"api/v1/shielding-data/{kept['id']}/file", token).decode() == file

    pids = processes(portal)
    assert len(pids) >= 1
    places = {f"memory of {pid}": memory(pid) for pid in pids}
    dumps = list(places.values())
    assert any(OPEN.encode() in dump for dump in dumps), "the looking finds nothing"
    encoded = forms(OPEN.encode())[3:]  # it is in the owner's signed words, which are base64url
    assert any(form in dump for dump in dumps for form in encoded), "the looking finds nothing in base64"
    files = [each for each in portal.folder.rglob("*") if each.is_file()]
    places |= {str(each): each.read_bytes() for each in files}
    assert any(OPEN.encode() in content for name, content in places.items() if "sqlite" in name or ".db" in name), files
    for place, content in places.items():
        for what, secret in [*((what, text.encode()) for what, text in SECRETS.items()), ("key", KEY)]:
            for form in forms(secret):
                assert form not in content, f"{what} is in {place}"
