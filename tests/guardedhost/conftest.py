"""Lab hosts with real software TPMs, a portal of ten lines, and bundles made by the tenant's own code."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from guardedhost import lab
from guardedhost.errors import AgentError
from guardedhost.store import Store
from tests.guardedhost.bundles import Fabric, make_bundle

CAPTURES = Path(__file__).parents[1] / "vectors" / "qemu-ovmf"
ON, DRIFT = CAPTURES / "secureboot-on" / "eventlog.bin", CAPTURES / "cmdline-drift" / "eventlog.bin"


@pytest.fixture(scope="session")
def manufactured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One lab host, switched off; copies of it are other folders with the same TPM."""
    folder = tmp_path_factory.mktemp("manufactured") / "host"
    lab.make_host(folder, name="nbg-a01", boot_log=ON, ima_log=None, authority=folder.parent / "maker")
    lab.stop(folder)
    return folder


@pytest.fixture
def lab_host(manufactured: Path, tmp_path: Path) -> Iterator[Path]:
    """The folder of a lab host that is switched on, having booted `secureboot-on`."""
    folder = tmp_path / "host"
    shutil.copytree(manufactured, folder, ignore=shutil.ignore_patterns("socket*", "swtpm.pid"))
    lab.make_host(folder, name="nbg-a01", boot_log=ON, ima_log=None, authority=None)
    yield folder
    with suppress(AgentError):
        lab.stop(folder)


@pytest.fixture
def store(lab_host: Path) -> Store:
    return Store(lab_host)


Answer = tuple[int, Any]


@dataclass
class Portal:
    """Answers each request by the function a test gives, and remembers what came."""

    url: str = ""
    mode: str = "tpm"
    answer: Callable[[str, Any], Answer] = lambda path, body: (404, {})
    seen: list[tuple[str, Any]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)


@pytest.fixture
def portal() -> Iterator[Portal]:
    """An HTTP server on a loopback address."""
    state = Portal()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.seen.append((self.path, body))
            status, answer = state.answer(self.path, body)
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **state.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            content = json.dumps({"mode": state.mode}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield state
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def fabric() -> Fabric:
    return Fabric.new()


@pytest.fixture(scope="session")
def shielded_bundle(fabric: Fabric, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("tenant") / "web-1", fabric, level="shielded")


@pytest.fixture
def bundle(shielded_bundle: Path, tmp_path: Path) -> Path:
    """A fresh copy of a shielded machine's bundle."""
    return Path(shutil.copytree(shielded_bundle, tmp_path / "web-1"))
