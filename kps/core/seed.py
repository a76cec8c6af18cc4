"""The cloud-init seed of a new machine (NoCloud): user data with the places filled in, files, and who it is."""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from kps.core.shielding_content import CLOUD_CONFIG, Content, GuestFile
from kps.core.substitution import filled_in, require_values

USER_DATA: Final = "user-data"
META_DATA: Final = "meta-data"
NETWORK_CONFIG: Final = "network-config"
_HOST_KEYS: Final = "/etc/ssh/ssh_host_"
_BOUNDARY: Final = "=-guardhouse-="  # no line of base64 begins like that
# The owner's own part comes first; of what both have, lists are joined and the owner's word stays.
_JOINED: Final = "list(append)+dict(no_replace,recurse_list)+str()"


def build_seed(content: Content, values: Mapping[str, str], *, machine_id: UUID) -> dict[str, bytes]:
    """Return the files of the seed by name. Raises `SubstitutionRefused` when the values are not those asked for."""
    require_values(content.asks_for, values)
    user_data = filled_in(content.user_data, values, content.secrets)
    network_config = filled_in(content.network_config, values, content.secrets)
    meta_data = {"instance-id": str(machine_id)}
    if "HostName" in values:
        meta_data["local-hostname"] = values["HostName"]
    seed = {USER_DATA: _with_files(user_data, content.files), META_DATA: json.dumps(meta_data).encode()}
    if network_config:
        seed[NETWORK_CONFIG] = network_config.encode()
    return seed


def _with_files(user_data: str, files: Sequence[GuestFile]) -> bytes:
    if not files:
        return user_data.encode()
    config: dict[str, object] = {"write_files": [_written(each) for each in files]}
    if any(each.path.startswith(_HOST_KEYS) for each in files):
        config["ssh_deletekeys"] = False  # else cloud-init makes new ones in their place
        config["ssh_genkeytypes"] = []  # nor any beside them: a client could choose one that the owner does not know
    kind = "text/cloud-config" if user_data.startswith(CLOUD_CONFIG) else "text/x-shellscript"
    parts = [
        _part(kind, user_data.encode()),
        _part("text/cloud-config", (CLOUD_CONFIG + json.dumps(config)).encode(), f"Merge-Type: {_JOINED}\r\n"),
    ]
    head = f'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="{_BOUNDARY}"\r\n\r\n'
    return f"{head}{''.join(parts)}--{_BOUNDARY}--\r\n".encode()


def _part(kind: str, content: bytes, more: str = "") -> str:
    head = f'Content-Type: {kind}; charset="utf-8"\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: base64\r\n{more}'
    return f"--{_BOUNDARY}\r\n{head}\r\n{base64.encodebytes(content).decode()}\r\n"


def _written(file: GuestFile) -> dict[str, object]:
    return {
        "path": file.path,
        "permissions": f"{file.mode:04o}",
        "owner": "root:root",
        "encoding": "b64",
        "content": base64.b64encode(file.content).decode(),
    }
