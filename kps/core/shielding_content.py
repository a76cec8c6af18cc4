"""What shielding data keeps from everybody but its owner and healthy hosts: cloud-init data, files and secrets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from attestation.core.base64url import to_b64u
from kps.core import jose
from kps.core.substitution import MOST_NAMES, SECRET_NAME, places_in
from kps.errors import MalformedDocument, MalformedShieldingData

FILES_LIMIT: Final = 384 * 1024  # all together, as in the Host Guardian Service
MOST_FILES: Final = 64
MOST_SECRETS: Final = 32
USER_DATA_LIMIT: Final = 64 * 1024  # characters
NETWORK_LIMIT: Final = 16 * 1024
CONTENT_LIMIT: Final = 1024 * 1024
CLOUD_CONFIG: Final = "#cloud-config\n"
SCRIPT: Final = "#!"
_LONGEST_SECRET: Final = 1024
_LONGEST_PATH: Final = 255


@dataclass(frozen=True, slots=True)
class GuestFile:
    """A file that the guest finds when it starts for the first time."""

    path: str
    mode: int
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Content:
    """The user data (cloud-init: #cloud-config or a script), the network configuration, files, and secrets by name."""

    user_data: str = field(repr=False)
    network_config: str = field(repr=False)
    files: tuple[GuestFile, ...] = field(repr=False)
    secrets: Mapping[str, str] = field(repr=False)

    @property
    def asks_for(self) -> frozenset[str]:
        """Return the names of the values that whoever makes a machine has to give."""
        return places_in(self.user_data)[0] | places_in(self.network_config)[0]


def build_content(content: Content) -> bytes:
    """Return the bytes that are sealed; what `parse_content` would refuse is refused here, on the owner's machine."""
    document = {
        "user_data": content.user_data,
        "network_config": content.network_config,
        "files": [{"path": each.path, "mode": each.mode, "content": to_b64u(each.content)} for each in content.files],
        "secrets": dict(content.secrets),
    }
    sealed = jose.canonical(document)
    parse_content(sealed)
    return sealed


def parse_content(data: bytes) -> Content:
    """Read what was sealed. Raises `MalformedShieldingData` and nothing else."""
    try:
        return _read(data)
    except MalformedShieldingData:
        raise
    except MalformedDocument as error:
        raise MalformedShieldingData(str(error)) from error


def _read(data: bytes) -> Content:
    names = {"user_data", "network_config", "files", "secrets"}
    fields = jose.members(jose.read_json(data, limit=CONTENT_LIMIT), names, what="The content of shielding data")
    content = Content(
        user_data=_user_data(fields["user_data"]),
        network_config=_text(fields["network_config"], what="The network configuration", most=NETWORK_LIMIT),
        files=_files(fields["files"]),
        secrets=_secrets(fields["secrets"]),
    )
    if len(content.asks_for) > MOST_NAMES:
        raise MalformedShieldingData(f"Shielding data asks for more than {MOST_NAMES} values.")
    asked = places_in(content.user_data)[1] | places_in(content.network_config)[1]
    if missing := asked - content.secrets.keys():
        raise MalformedShieldingData(f"There is no secret {', '.join(sorted(missing))}, and the user data asks for it.")
    if unused := content.secrets.keys() - asked:
        raise MalformedShieldingData(
            f"Nothing asks for the secret {', '.join(sorted(unused))}: write @Secret-{min(unused)}@ where it belongs."
        )
    return content


def _user_data(value: object) -> str:
    text = _text(value, what="The user data", most=USER_DATA_LIMIT)
    if not text.startswith((CLOUD_CONFIG, SCRIPT)):
        raise MalformedShieldingData("User data begins with “#cloud-config” on a line of its own, or with “#!”.")
    return text


def _text(value: object, *, what: str, most: int) -> str:
    if not isinstance(value, str) or len(value) > most or "\0" in value:
        raise MalformedShieldingData(f"{what} is not a text of at most {most} characters.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise MalformedShieldingData(f"{what} has half of a character.") from error
    return value


def _files(value: object) -> tuple[GuestFile, ...]:
    if not isinstance(value, list) or len(value) > MOST_FILES:
        raise MalformedShieldingData(f"Shielding data has at most {MOST_FILES} files.")
    files = tuple(_file(each) for each in value)
    if len({each.path for each in files}) != len(files):
        raise MalformedShieldingData("Shielding data has two files for one path.")
    if sum(len(each.content) for each in files) > FILES_LIMIT:
        raise MalformedShieldingData(f"The files are larger than {FILES_LIMIT // 1024} KiB together.")
    return files


def _file(value: object) -> GuestFile:
    fields = jose.members(value, {"path", "mode", "content"}, what="A file of shielding data")
    path = jose.text(fields["path"], what="A file's path", longest=_LONGEST_PATH)
    steps = path.split("/")
    if steps[0] or not all(step and step not in (".", "..") for step in steps[1:]):
        raise MalformedShieldingData(f"{path} is not the whole path of a file in the guest.")
    mode = jose.whole_number(fields["mode"], what="A file's mode", most=0o7777)
    return GuestFile(path, mode, jose.from_b64u(fields["content"]))


def _secrets(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > MOST_SECRETS:
        raise MalformedShieldingData(f"Shielding data has at most {MOST_SECRETS} secrets.")
    if not all(SECRET_NAME.fullmatch(name) for name in value):
        raise MalformedShieldingData("A secret's name is 1 to 32 small letters, digits, dashes.")
    return {name: jose.text(each, what=f"The secret {name}", longest=_LONGEST_SECRET) for name, each in value.items()}
