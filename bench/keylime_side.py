"""The other side of the comparison: Keylime's own verifier on the same Evidence, in its own Python and its own process.

`make bench-keylime` makes the environment that this runs in; nothing of it is imported by Guardhouse. For each line on
standard input, "first" or "again", it verifies once and prints a line of JSON: the CPU that it and the programs it
starts have used, and what Keylime objects to. "first" is an agent's first attestation: measured boot policy and whole
IMA list. "again" is the next one of the same boot: Keylime parses the log anew, skips its policy, and gets no new IMA
entries. Its log output is switched off, its quickest setting.
"""

import argparse
import base64
import contextlib
import json
import logging
import os
import resource
import sys
import tempfile
import types
from importlib.metadata import version
from pathlib import Path

CONFIGURATION = """[verifier]
measured_boot_imports = []
measured_boot_evaluate = once
severity_labels = ["info", "critical"]
severity_policy = [{"event_id": ".*", "severity_label": "critical"}]
"""
FIRST, AGAIN = 0, 1  # Keylime's count of attestations before this one


def prepare(folder: Path) -> None:
    """Give Keylime what its packages on distributions bring: a configuration, and the name of a module for PGP.

    gpg is used only for policies signed with PGP, of which there is none here.
    """
    configuration = folder / "verifier.conf"
    configuration.write_text(CONFIGURATION, encoding="ascii")
    os.environ["KEYLIME_VERIFIER_CONFIG"] = str(configuration)
    module = types.ModuleType("gpg")
    module.Context = object  # type: ignore[attr-defined]
    sys.modules["gpg"] = module


class Verifier:
    """Keylime's verifier with the policies that a person would have made of this very host."""

    def __init__(self, folder: Path) -> None:
        from keylime.mba import mba
        from keylime.tpm.tpm_main import Tpm

        logging.disable(logging.CRITICAL)
        mba.load_imports()
        self.told = json.loads((folder / "evidence.json").read_text(encoding="ascii"))
        self.log = base64.b64encode((folder / "log.bin").read_bytes()).decode("ascii")
        self.list = (folder / "ima.txt").read_text(encoding="utf-8")
        self.boot_policy = boot_policy(folder / "log.bin")
        self.runtime_policy = runtime_policy(self.list)
        self.tpm = Tpm()

    def check(self, count: int) -> list[str]:
        """Verify once and return the ids of all objections."""
        from keylime.agentstates import AgentAttestState
        from keylime.common.algorithms import Hash
        from keylime.ima.file_signatures import ImaKeyrings

        state = AgentAttestState("bench")
        again = count == AGAIN
        if again:
            state.tpm_state.pcrs[10] = bytes.fromhex(self.told["pcr_10"])
            state.tpm_state.hash_alg[10] = Hash.SHA256
        failure = self.tpm.check_quote(
            state,
            self.told["nonce"],
            None,
            self.told["quote"],
            self.told["ak"],
            {},
            "" if again else self.list,
            self.runtime_policy,
            Hash.SHA256,
            ImaKeyrings(),
            self.log,
            self.boot_policy,
            "example",
            False,
            count,
            skip_data_pcr_check=True,
        )
        return [event.event_id for event in failure.events]


def boot_policy(log: Path) -> str:
    """Let Keylime make the reference state of this log for its example policy, which is the only one it ships."""
    from keylime.policy.create_mb_policy import create_mb_refstate

    words = argparse.Namespace(eventlog_file=str(log), without_secureboot=True, output=os.devnull)
    with contextlib.redirect_stdout(sys.stderr):
        made = create_mb_refstate(words)
    if made is None:
        raise SystemExit("Keylime cannot read this log: is tpm2_eventlog installed?")
    return json.dumps(made)


def runtime_policy(ima_list: str) -> dict[str, object]:
    """Accept every file of the list."""
    from keylime.ima import ima

    digests: dict[str, list[str]] = {}
    for line in ima_list.splitlines():
        _, _, _, digest, path = line.split(" ", 4)
        digests.setdefault(path, []).append(digest.partition(":")[2])
    policy: dict[str, object] = ima.empty_policy()
    return {**policy, "digests": digests}


def cpu_ms() -> float:
    """Return the CPU time of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used) * 1000


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="guardhouse-keylime-") as name:
        prepare(Path(name))
        verifier = Verifier(Path(sys.argv[1]))
        print(json.dumps({"version": version("keylime")}), flush=True)
        for line in sys.stdin:
            count = {"first": FIRST, "again": AGAIN}[line.strip()]
            before = cpu_ms()
            objections = verifier.check(count)
            print(json.dumps({"cpu_ms": cpu_ms() - before, "objections": objections}), flush=True)


if __name__ == "__main__":
    main()
