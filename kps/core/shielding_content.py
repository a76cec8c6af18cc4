"""What shielding data keeps from everybody but its owner and healthy hosts: cloud-init data, files and secrets.

As a stream: a line of JSON with all but the files' bytes, which follow it one after the other.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from kps.core import jose
from kps.core.substitution import MOST_NAMES, SECRET_NAME, places_in
from kps.errors import MalformedDocument, MalformedShieldingData

FILE_LIMIT: Final = 384 * 1024  # each; in the Host Guardian Service it is all of them
FILES_LIMIT: Final = 2 * 1024 * 1024  # all together
MOST_FILES: Final = 64
MOST_SECRETS: Final = 32
USER_DATA_LIMIT: Final = 64 * 1024  # characters
NETWORK_LIMIT: Final = 16 * 1024
OPENING_LIMIT: Final = 1024 * 1024  # bytes of the line before the files
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


def build_content(content: Content) -> Iterator[bytes]:
    """Return the stream that is sealed; what `parse_content` would refuse is refused here, on the owner's machine."""
    document = {
        "user_data": content.user_data,
        "network_config": content.network_config,
        "files": [{"path": each.path, "mode": each.mode, "size": len(each.content)} for each in content.files],
        "secrets": dict(content.secrets),
    }
    opening = jose.canonical(document) + b"\n"
    parse_content([opening, *(each.content for each in content.files)])
    return iter([opening, *(each.content for each in content.files)])


def parse_content(stream: Iterable[bytes]) -> Content:
    """Read what was sealed. Raises `MalformedShieldingData`, and what reading the stream raises."""
    try:
        return _read(_Stream(stream))
    except MalformedShieldingData:
        raise
    except MalformedDocument as error:
        raise MalformedShieldingData(str(error)) from error


class _Stream:
    """Takes bytes off a stream, and never holds more than was asked for and what came with it."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._parts, self._held = iter(parts), bytearray()

    def line(self) -> bytes:
        searched = 0
        while (end := self._held.find(b"\n", searched)) < 0:
            searched = len(self._held)
            if searched > OPENING_LIMIT or not self._more():
                raise MalformedShieldingData(
                    f"The content does not begin with a line of at most {OPENING_LIMIT} bytes."
                )
        return self._taken(end + 1)[:-1]

    def exactly(self, size: int) -> bytes:
        while len(self._held) < size:
            if not self._more():
                raise MalformedShieldingData("The content ends within a file.")
        return self._taken(size)

    def require_end(self) -> None:
        while not self._held:
            if not self._more():
                return
        raise MalformedShieldingData("More follows the files in the content than there should.")

    def _more(self) -> bool:
        part = next(self._parts, None)
        self._held += part or b""
        return part is not None

    def _taken(self, size: int) -> bytes:
        taken = bytes(self._held[:size])
        del self._held[:size]
        return taken


def _read(stream: _Stream) -> Content:
    names = {"user_data", "network_config", "files", "secrets"}
    opening = jose.read_json(stream.line(), limit=OPENING_LIMIT)
    fields = jose.members(opening, names, what="The content of shielding data")
    content = Content(
        user_data=_user_data(fields["user_data"]),
        network_config=_text(fields["network_config"], what="The network configuration", most=NETWORK_LIMIT),
        files=tuple(GuestFile(path, mode, stream.exactly(size)) for path, mode, size in _files(fields["files"])),
        secrets=_secrets(fields["secrets"]),
    )
    stream.require_end()
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


def _files(value: object) -> list[tuple[str, int, int]]:
    """Return path, mode and size of each file."""
    if not isinstance(value, list) or len(value) > MOST_FILES:
        raise MalformedShieldingData(f"Shielding data has at most {MOST_FILES} files.")
    files = [_file(each) for each in value]
    if len({path for path, _, _ in files}) != len(files):
        raise MalformedShieldingData("Shielding data has two files for one path.")
    if sum(size for _, _, size in files) > FILES_LIMIT:
        raise MalformedShieldingData(f"The files are larger than {FILES_LIMIT // 1024} KiB together.")
    return files


def _file(value: object) -> tuple[str, int, int]:
    fields = jose.members(value, {"path", "mode", "size"}, what="A file of shielding data")
    path = jose.text(fields["path"], what="A file's path", longest=_LONGEST_PATH)
    steps = path.split("/")
    if steps[0] or not all(step and step not in (".", "..") for step in steps[1:]):
        raise MalformedShieldingData(f"{path} is not the whole path of a file in the guest.")
    size = jose.whole_number(fields["size"], what="A file's size", most=2**40)
    if size > FILE_LIMIT:
        raise MalformedShieldingData(f"The file {path} is larger than {FILE_LIMIT // 1024} KiB.")
    return path, jose.whole_number(fields["mode"], what="A file's mode", most=0o7777), size


def _secrets(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > MOST_SECRETS:
        raise MalformedShieldingData(f"Shielding data has at most {MOST_SECRETS} secrets.")
    if not all(SECRET_NAME.fullmatch(name) for name in value):
        raise MalformedShieldingData("A secret's name is 1 to 32 small letters, digits, dashes.")
    return {name: jose.text(each, what=f"The secret {name}", longest=_LONGEST_SECRET) for name, each in value.items()}
