"""The seed of a new machine is what cloud-init reads, with the owner's part first."""

import json
from dataclasses import replace
from email import message_from_bytes
from email.message import Message

import pytest
import yaml

from kps.core.seed import build_seed
from kps.errors import SubstitutionRefused
from tests.kps.parties import ID
from tests.kps.shielding import CONTENT, FILES, USER_DATA, VALUES

SEED = build_seed(CONTENT, VALUES, machine_id=ID)


def _parts(user_data: bytes) -> list[Message]:
    message = message_from_bytes(user_data)
    assert message.is_multipart()
    return [part for part in message.walk() if not part.is_multipart()]


def _text(part: Message) -> str:
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content.decode()


def test_the_places_are_filled_in() -> None:
    own = _text(_parts(SEED["user-data"])[0])
    assert own == USER_DATA.replace("@HostName@", "web1").replace("@Secret-root@", CONTENT.secrets["root"])
    assert yaml.safe_load(SEED["network-config"])["ethernets"]["eth0"]["addresses"] == ["10.1.2.3/24"]


def test_files_come_after_the_owner_s_own_part_and_join_its_lists() -> None:
    first, second = _parts(SEED["user-data"])
    assert [part.get_content_type() for part in (first, second)] == ["text/cloud-config"] * 2
    assert second["Merge-Type"] == "list(append)+dict(no_replace,recurse_list)+str()"
    config = yaml.safe_load(_text(second))
    assert [(each["path"], each["permissions"]) for each in config["write_files"]] == [
        ("/etc/ssh/ssh_host_ed25519_key", "0600"),
        ("/etc/app/ca.pem", "0644"),
    ]
    assert (config["ssh_deletekeys"], config["ssh_genkeytypes"]) == (False, [])


def test_host_keys_alone_are_kept_from_being_made_anew() -> None:
    seed = build_seed(replace(CONTENT, files=FILES[1:]), VALUES, machine_id=ID)
    config = yaml.safe_load(_text(_parts(seed["user-data"])[1]))
    assert not {"ssh_deletekeys", "ssh_genkeytypes"} & config.keys()


def test_user_data_without_files_is_left_as_it_is() -> None:
    script = "#!/bin/sh\necho @HostName@\n"
    content = replace(CONTENT, user_data=script, network_config="", files=(), secrets={})
    seed = build_seed(content, {"HostName": "web1"}, machine_id=ID)
    assert seed["user-data"] == b"#!/bin/sh\necho web1\n"
    assert "network-config" not in seed


def test_a_script_stays_a_script() -> None:
    content = replace(CONTENT, user_data="#!/bin/sh\n", network_config="", secrets={})
    first, _ = _parts(build_seed(content, {}, machine_id=ID)["user-data"])
    assert (first.get_content_type(), _text(first)) == ("text/x-shellscript", "#!/bin/sh\n")


def test_the_guest_knows_which_machine_it_is() -> None:
    assert json.loads(SEED["meta-data"]) == {"instance-id": str(ID), "local-hostname": "web1"}
    nameless = replace(CONTENT, user_data="#!/bin/sh\n", secrets={})
    assert json.loads(build_seed(nameless, {"IP4Addr-1": "10.1.2.3"}, machine_id=ID)["meta-data"]) == {
        "instance-id": str(ID)
    }


@pytest.mark.parametrize("values", [{}, {"HostName": "web1"}, VALUES | {"TimeZone": "UTC"}, VALUES | {"HostName": "-"}])
def test_no_seed_is_made_with_a_value_missing_or_too_many(values: dict[str, str]) -> None:
    with pytest.raises(SubstitutionRefused):
        build_seed(CONTENT, values, machine_id=ID)
