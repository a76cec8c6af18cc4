"""`make demo` and `make demo-check`: the whole power-on flow on this machine, in a browser or without a person.

A portal, persons of every role, three lab hosts that run the shipped agent over software TPMs (one healthy, one that
booted a changed kernel command line, one of a TPM maker that nobody trusts), a tenant and one shielded VM.
"""

import argparse
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from deploy.democast import FOLDER, GROUP, VM, Demo, running, status_of, until
from deploy.democheck import check
from deploy.localfabric import DidNotWork, LabHost, free_port

USUAL_PORT = 8000
MODES = {"hostkey": "Host key", "kerberos": "Kerberos"}  # that prove less than TPMs, as people type them


def show(demo: Demo, *, approved: bool, mode: str) -> int:
    """Leave the fabric to a person at a browser, and start the VM as soon as a host may have its key."""
    if mode != "tpm":
        demo.switch(mode, MODES[mode])
    if mode == "kerberos" and approved:
        demo.admit_group()
    demo.enrol_hosts()
    demo.hand_over_vm()
    if mode != "kerberos":
        until(lambda: status_of(demo.drifted) == "UnauthorizedHost", f"{demo.drifted.name} attests")
    known_by = {"tpm", mode} - {"kerberos"}  # of whose hosts the directory knows
    for each in known_by:
        demo.admit(demo.drifted, mode=each)
    if approved:
        for each in known_by:
            demo.admit(demo.healthy, mode=each)
        until(lambda: _has_shown_its_boot(demo), f"{demo.healthy.name} shows what it booted")
        demo.admit_baseline(demo.healthy)
    print(f"\nThe portal is at {demo.portal.url}\n")
    for name, (role, password) in demo.persons.items():
        print(f"  {name:5} {password:22} {role}")
    if not approved:
        if mode == "kerberos":
            print(f"\nAs ada: put the group “{GROUP}” forward under Groups of the directory; its SID is")
            print(f"{demo.group_sid}. As ben: approve it under Proposals.")
        print(f"\nAs ada: put {demo.healthy.name} forward on its page, and capture its baseline there.")
        print("As ben: approve both under Proposals.")
    print(f"\n{demo.healthy.name} is healthy, {demo.drifted.name} booted a changed kernel command line,")
    print(f"{demo.unknown.name} has a TPM of an unknown maker. Ctrl-C ends the demo.\n", flush=True)
    if mode != "tpm":
        print(
            f"The fabric is in {MODES[mode]} mode, which says nothing of what a host booted: watch {demo.drifted.name}."
        )
    started = False
    while True:
        if not started and status_of(demo.healthy) == "Passed":
            started = tell(demo, demo.healthy, demo.bundle)
            refused = demo.copied_vm("on-changed-host")
            tell(demo, demo.drifted, refused)
        time.sleep(1)


def _has_shown_its_boot(demo: Demo) -> bool:
    """In another mode the agent tries its TPM too; what it shows then can be captured."""
    if demo.mode != "tpm":
        demo.healthy.rehearse()
    return status_of(demo.healthy) != "not attested"


def tell(demo: Demo, host: LabHost, bundle: Path) -> bool:
    """Try to start the VM on a host, print what came of it, and return whether it runs."""
    done = host.vm("start", bundle)
    said = (done.stdout + done.stderr).strip()
    print(f"{VM} on {host.name}: {'started' if done.returncode == 0 else 'refused'}. {said}", flush=True)
    return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="walk through the demo without a person")
    parser.add_argument("--approved", action="store_true", help="start with host and baseline approved already")
    parser.add_argument("--mode", choices=["tpm", *MODES], default="tpm", help="how hosts attest at first")
    parser.add_argument("--port", type=int, default=None)
    options = parser.parse_args()
    port = options.port or (free_port() if options.check else USUAL_PORT)
    folder = FOLDER.with_name("demo-check") if options.check else FOLDER
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # also when the terminal is closed
        signal.signal(ending, signal.default_int_handler)
    print("Setting up the fabric; this takes some ten seconds.", flush=True)
    try:
        with running(folder, port, directory=options.mode == "kerberos") as demo:
            return check(demo) if options.check else show(demo, approved=options.approved, mode=options.mode)
    except KeyboardInterrupt:
        return 0
    except DidNotWork as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
