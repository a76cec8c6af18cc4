"""SoftHSM tokens for tests, each test's in a folder of its own."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ledger.custody.token import TokenAddress

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
LABEL, PIN = "guardhouse test", "246813"


@dataclass(frozen=True)
class SoftHsm:
    """A folder with tokens, and the configuration that leads there."""

    folder: Path

    @property
    def configuration(self) -> Path:
        return self.folder / "softhsm2.conf"

    def new_token(self, label: str = LABEL) -> TokenAddress:
        (self.folder / "tokens").mkdir(exist_ok=True)
        lines = [f"directories.tokendir = {self.folder / 'tokens'}", "objectstore.backend = file", "log.level = ERROR"]
        self.configuration.write_text("\n".join(lines) + "\n")
        command = ["softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", "13572468", "--pin", PIN]
        environment = {**os.environ, "SOFTHSM2_CONF": str(self.configuration)}
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        return TokenAddress(MODULE, label, PIN)


@contextmanager
def softhsm(folder: Path) -> Iterator[SoftHsm]:
    """Lead this process's SoftHSM to a folder. The library reads where it is once, so it is initialised anew."""
    import pkcs11

    made = SoftHsm(folder)
    made.new_token()
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(made.configuration)
    pkcs11.lib(str(MODULE)).reinitialize()
    try:
        yield made
    finally:
        if before is None:
            del os.environ["SOFTHSM2_CONF"]
        else:
            os.environ["SOFTHSM2_CONF"] = before
