"""A pytest plugin that gives the tests their environment before Django reads its settings.

Every `GUARDHOUSE_*` variable of the caller is dropped, so that a test means the same everywhere; secrets and state are
fresh for each run. With `GUARDHOUSE_TEST_SERVICES=1` the tests run on a private PostgreSQL cluster and a private Redis,
which this process starts and which the kernel stops when it dies, however it dies.
"""

import atexit
import ctypes
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from deploy.localfabric import free_port

WITH_SERVICES = "GUARDHOUSE_TEST_SERVICES"
START_SECONDS = 30
PR_SET_PDEATHSIG = 1


def pytest_report_header() -> str:
    """Say on which database and channel layer the tests of this run stand."""
    if os.environ.get(WITH_SERVICES) == "1":
        return "guardhouse: tests run on PostgreSQL and Redis"
    return "guardhouse: tests run on SQLite and the in-process channel layer"


def program(name: str, package: str) -> str:
    """Return where a server program is; Debian keeps PostgreSQL's out of the PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    found = str(debian[-1]) if debian else shutil.which(name)
    if found is None:
        raise pytest.UsageError(f"{WITH_SERVICES}=1 needs {name}: run `make setup`, or install the package {package}.")
    return found


def server_user() -> pwd.struct_passwd | None:
    """Return whom PostgreSQL runs as when it is not us: it refuses root, so Debian's `postgres` stands in."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        raise pytest.UsageError("PostgreSQL does not run as root and there is no user `postgres`.") from None


def start(
    command: list[str], folder: Path, *, user: pwd.struct_passwd | None, stop: signal.Signals
) -> "subprocess.Popen[bytes]":
    """Start a server that gets the signal `stop` when this process ends or is killed."""
    libc = ctypes.CDLL(None)

    def die_with_parent() -> None:
        libc.prctl(PR_SET_PDEATHSIG, stop)

    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is pytest's to handle: the tests clean up while the servers still run
            preexec_fn=die_with_parent,
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            extra_groups=[] if user else None,
        )

    def end() -> None:
        server.send_signal(stop)
        server.wait(timeout=START_SECONDS)

    atexit.register(end)
    return server


def wait_until(ready: Callable[[], bool], server: "subprocess.Popen[bytes]", folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if server.poll() is not None or time.monotonic() > deadline:
            log = (folder / "log").read_text(encoding="utf-8", errors="replace")
            raise pytest.UsageError(f"{server.args!r} did not start:\n{log}")
        time.sleep(0.05)


def state_folder() -> Path:
    """Make a folder that goes away with this process."""
    folder = Path(tempfile.mkdtemp(prefix="guardhouse-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def make_cluster(folder: Path, password: str, *, user: pwd.struct_passwd | None) -> Path:
    """Run `initdb` as `user` and return the data folder."""
    data, word = folder / "data", folder / "password"
    word.write_text(password, encoding="ascii")
    if user:
        for path in (folder, word):
            os.chown(path, user.pw_uid, user.pw_gid)
    command = [program("initdb", "postgresql"), "--pgdata", str(data), "--username=guardhouse", "--pwfile", str(word)]
    made = subprocess.run(
        [*command, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"],
        cwd=folder,
        user=user.pw_uid if user else None,
        group=user.pw_gid if user else None,
        extra_groups=[] if user else None,
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        raise pytest.UsageError(f"initdb failed:\n{made.stderr}")
    return data


def start_postgresql() -> str:
    """Start a cluster as Debian sets it up (fsync and synchronous_commit stay on) and return its URL."""
    user, password, port, folder = server_user(), secrets.token_hex(16), free_port(), state_folder()
    data = make_cluster(folder, password, user=user)
    options = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": ""}
    command = [program("postgres", "postgresql"), "-D", str(data)]
    command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    server = start(command, folder, user=user, stop=signal.SIGINT)  # SIGINT is PostgreSQL's fast shutdown
    address = f"postgresql://guardhouse:{password}@127.0.0.1:{port}"

    def answers() -> bool:
        try:
            psycopg.connect(f"{address}/postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    wait_until(answers, server, folder)
    return f"{address}/guardhouse"


def start_redis() -> str:
    """Start a Redis that keeps nothing and return its URL."""
    port = free_port()
    folder = state_folder()
    command = [program("redis-server", "redis-server"), "--bind", "127.0.0.1", "--port", str(port), "--save", ""]
    server = start(command, folder, user=None, stop=signal.SIGTERM)

    def answers() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
        return True

    wait_until(answers, server, folder)
    return f"redis://127.0.0.1:{port}/0"


@pytest.fixture(autouse=True)
def fresh_log_key() -> None:
    """Open the log's key anew in each test: a process keeps it, and each test has a database of its own."""
    from ledger.log_key import forget

    forget()


def set_environment() -> None:
    with_services = os.environ.get(WITH_SERVICES, "0")
    if with_services not in {"0", "1"}:
        raise pytest.UsageError(f"{WITH_SERVICES} is {with_services!r}; it must be 0 or 1.")
    for name in [name for name in os.environ if name.startswith("GUARDHOUSE_")]:
        del os.environ[name]
    state = state_folder()
    os.environ.update(
        GUARDHOUSE_SECRET_KEY=secrets.token_urlsafe(48),
        GUARDHOUSE_STATE_DIR=str(state),
        GUARDHOUSE_CUSTODY_FILE=str(state / "custody.key"),
        GUARDHOUSE_LOOPBACK_ONLY="1",
        GUARDHOUSE_HASHED_STATIC="0",
    )
    os.environ[WITH_SERVICES] = with_services
    if with_services == "1":
        os.environ["GUARDHOUSE_DATABASE_URL"] = start_postgresql()
        os.environ["GUARDHOUSE_REDIS_URL"] = start_redis()


if "PYTEST_XDIST_WORKER" not in os.environ:  # a worker has the environment of the process that started it
    set_environment()
