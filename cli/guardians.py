"""The guardians that a tenant trusts: signed metadata in a local folder, each compared by its fingerprint once."""

import json
from pathlib import Path
from typing import Final

import click
import requests

from guardedhost.client import portal_url
from guardedhost.files import write_atomically
from kps.core import jose
from kps.core.guardian import METADATA_LIMIT, Guardian, Metadata, verify_metadata
from kps.errors import GuardianRefused, MalformedDocument

_PATH: Final = "kps/v1/metadata"
_TIMEOUT: Final = (5.0, 20.0)  # connect, read


def default_folder() -> Path:
    return Path(click.get_app_dir("guardhouse")) / "guardians"


def read_guardian(content: bytes) -> tuple[Guardian, str]:
    """Return the guardian and its metadata from a file; see `read_metadata`."""
    metadata, token = read_metadata(content)
    return metadata.guardian, token


def read_metadata(content: bytes) -> tuple[Metadata, str]:
    """Return what a guardian says of itself, from a file: the bare token, or the JSON that a fabric answers."""
    if len(content) > METADATA_LIMIT:
        raise MalformedDocument(f"Guardian metadata is larger than {METADATA_LIMIT} bytes.")
    token: object
    if content.lstrip().startswith(b"{"):
        token = jose.members(jose.read_json(content, limit=METADATA_LIMIT), {"metadata"}, what="The file")["metadata"]
    else:
        token = content.decode(errors="replace").strip()
    return verify_metadata(token), str(token)


def fetch(url: str) -> bytes:
    """Return what the fabric at this address publishes. Who it is, the fingerprint has to show."""
    address = f"{portal_url(url).removesuffix(f'/{_PATH}')}/{_PATH}"
    try:
        with requests.get(address, timeout=_TIMEOUT, allow_redirects=False, stream=True) as answer:
            if answer.status_code != requests.codes.ok:
                raise GuardianRefused(f"{address} answered {answer.status_code}.")
            return _bounded(answer)
    except requests.RequestException as error:
        raise GuardianRefused(f"{address} cannot be reached: {type(error).__name__}.") from error


def _bounded(answer: requests.Response) -> bytes:
    """Return the body; of one that is too large only as much as shows that it is."""
    content = b""
    for chunk in answer.iter_content(METADATA_LIMIT):
        content += chunk
        if len(content) > METADATA_LIMIT:
            break
    return content


def require_fingerprint(guardian: Guardian, expected: str) -> None:
    """Refuse another guardian than the one whose fingerprint was told; spaces and colons do not matter."""
    if same_fingerprint(expected) != guardian.fingerprint:
        raise GuardianRefused(f"The fingerprint of {guardian.name} is {guardian.fingerprint}, not the expected one.")


def followed(metadata: Metadata, folder: Path) -> Guardian | None:
    """Return the guardian in the folder whose own keys have led to this one, step by step, or that is this one.

    It was compared once, so its word about its successor needs no second comparing.
    """
    known = {path.stem for path in folder.glob("*.json")}
    if metadata.guardian.fingerprint in known:
        return metadata.guardian
    return metadata.follows(known)


def same_fingerprint(written: str) -> str:
    """Return a fingerprint as it is compared, however a person has written it."""
    return written.replace(":", "").replace(" ", "").lower()


def store(guardian: Guardian, token: str, folder: Path) -> Path:
    """Keep the metadata under its fingerprint; return the file."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{guardian.fingerprint}.json"
    write_atomically(path, json.dumps({"metadata": token}).encode() + b"\n")
    return path
