"""Lab hosts with real software TPMs, a portal of ten lines, and bundles made by the tenant's own code."""

import json
import shutil
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from attestation.core.base64url import to_b64u
from guardedhost import agent, lab
from guardedhost.diagnosis.collect import collect
from guardedhost.diagnosis.trace import Trace
from guardedhost.errors import AgentError
from guardedhost.store import Store
from tests.guardedhost.bundles import Fabric, make_bundle
from tests.guardedhost.verifier import Verifier, signer

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
    """Answers each POST by the function a test gives and remembers what came; what it is, it says to every GET."""

    url: str = ""
    mode: str = "tpm"
    answer: Callable[[str, Any], Answer] = lambda path, body: (404, {})
    seen: list[tuple[str, Any]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    about: Callable[[str], Answer] | None = None
    asked: list[str] = field(default_factory=list)

    def get(self, path: str) -> Answer:
        self.asked.append(path)
        if self.about is not None:
            return self.about(path)
        if path.endswith("/signing-certificates"):
            return 200, {"certificates": [{"der": to_b64u(signer(datetime.now(UTC)))}]}
        return 200, {"fabric": "Nuremberg", "mode": self.mode, "version": "0.1.0"}


@pytest.fixture
def portal() -> Iterator[Portal]:
    """An HTTP server on a loopback address."""
    state = Portal()
    with serving(state):
        yield state


@contextmanager
def serving(state: Portal, context: ssl.SSLContext | None = None) -> Iterator[None]:
    """Answer for `state` on a loopback address, by HTTPS where there is a context."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(*state.get(self.path))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.seen.append((self.path, body))
            self._send(*state.answer(self.path, body))

        def _send(self, status: int, answer: Any) -> None:
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **state.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return format_datetime(state.clock(), usegmt=True)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that hangs up during the handshake is what some tests are about."""

    with Server(("127.0.0.1", 0), Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        state.url = f"http{'s' if context else ''}://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield
        finally:
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


@pytest.fixture
def enrolled(portal: Portal, store: Store) -> Verifier:
    """A portal at which the lab host is enrolled."""
    verifier = Verifier()
    portal.answer = verifier.answer
    with agent.opened(store, replace(store.config(), server=portal.url)) as host:
        agent.enrol(host)
    return verifier


@pytest.fixture
def healthy(enrolled: Verifier, store: Store) -> Trace:
    """A look at a host that has attested and passes."""
    with agent.opened(store) as host:
        agent.attest(host)
    return collect(store)
