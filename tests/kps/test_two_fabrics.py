"""A tenant moves a VM from one fabric to another, which know nothing of each other."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pytest_django import Settings

from cli.tenant import tenant
from kps import service
from kps.core.guardian import Guardian, parse_metadata
from kps.core.protector import verify_protector
from kps.models import KeyProtectorRecord
from tests.attestation.conftest import Portal
from tests.kps.conftest import Host, holding
from tests.kps.serving import served
from tests.kps.test_owner_commands import bundle_of, keys, newest_state, run
from tests.kps.test_shield_commands import file_of, makes
from tests.kps.two_fabrics import Fabric, copied
from tests.machines import Machine

__all__ = ["keys", "run"]

Run = Callable[..., Result]


@pytest.fixture
def north(fabric: Portal, tmp_path: Path, settings: Settings) -> Iterator[Fabric]:
    with copied(tmp_path / "north.sqlite3", name="North", settings=settings) as other:
        yield other


def imported(path: Path) -> tuple[Path, Guardian]:
    """Take this fabric's guardian as a tenant does."""
    token = service.metadata(now=datetime.now(UTC))
    path.write_text(json.dumps({"metadata": token}))
    return path, parse_metadata(token)


def code_of(host: Host, protector: Any) -> str:
    return str(host.starts(protector)["code"])


def test_a_granted_fabric_starts_the_machine_and_a_revoked_one_does_not(
    fabric: Portal, north: Fabric, healthy: Machine, run: Run, tmp_path: Path
) -> None:
    """No key changes hands between the two, and the bundle is in nobody's hands but the fabrics'."""
    south_host = holding(fabric, healthy)
    _, south = imported(tmp_path / "south.json")
    bundle = bundle_of(tmp_path / "payroll", south)
    first = newest_state(bundle).protector
    second = south_host.starts(first)["key_protector"]
    with north.here():
        north_host = holding(fabric, healthy)
        north_file, _ = imported(tmp_path / "north.json")
        assert code_of(north_host, second) == "guardian_not_named"

    # Granted at the first fabric, with nothing but the owner's key: its next start wraps the key for both.
    with served() as address:
        words = ["--id", verify_protector(first).id, "--fabric", address, "--yes"]
        granted = run("grant", "--guardian", north_file, *words, "--out", tmp_path / "1.json")
        assert granted.exit_code == 0, granted.output
        assert "after its next start on a fabric that has its key" in granted.output
        third = south_host.starts(second)["key_protector"]
        with north.here():
            fourth = north_host.starts(third)["key_protector"]
            assert KeyProtectorRecord.objects.get().serial == 1

        # Revoked: the first refuses what it has, at once, and what it had.
        words[-1:] = ["--out", tmp_path / "2.json", "--yes"]
        revoked = run("revoke", "--guardian", south.fingerprint, *words)
        assert revoked.exit_code == 0, revoked.output
    for protector in (third, second, first):
        assert code_of(south_host, protector) == "guardian_revoked"
    with north.here():
        # It has not heard of that, and is concerned by nothing in it.
        fifth = north_host.starts(fourth)["key_protector"]
        assert north_host.starts(third)["key_protector"]
        with served() as address:
            brought = CliRunner().invoke(tenant, ["bring", str(tmp_path / "2.json"), "--fabric", address])
            assert "statement 2 is in force" in brought.output
        sixth = north_host.starts(fifth)["key_protector"]
    names = [[each.name for each in verify_protector(each_).guardians] for each_ in (fifth, sixth)]
    assert names == [[south.name, "North"], ["North"]]
    assert code_of(south_host, sixth) == "guardian_not_named"


def test_with_the_bundle_in_hand_the_grant_holds_at_once(
    fabric: Portal, north: Fabric, healthy: Machine, run: Run, tmp_path: Path
) -> None:
    _, south = imported(tmp_path / "south.json")
    bundle = bundle_of(tmp_path / "payroll", south)
    with north.here():
        north_file, _ = imported(tmp_path / "north.json")
    assert run("grant", bundle, "--guardian", north_file, "--yes").exit_code == 0
    assert run("revoke", bundle, "--guardian", south.fingerprint, "--yes").exit_code == 0
    with north.here():
        north_host = holding(fabric, healthy)
        assert north_host.starts(newest_state(bundle).protector)["key_protector"]
        assert north_host.opens(north_host.starts(newest_state(bundle).protector)["wrapped_keys"]).level == "shielded"
    assert code_of(holding(fabric, healthy), newest_state(bundle).protector) == "guardian_not_named"


def test_shielding_data_is_granted_to_a_second_fabric_and_taken_from_the_first(
    fabric: Portal, north: Fabric, healthy: Machine, run: Run, tmp_path: Path
) -> None:
    south_host = holding(fabric, healthy)
    _, south = imported(tmp_path / "south.json")
    file, old = file_of(tmp_path, south), tmp_path / "old.shield"
    old.write_bytes(file.read_bytes())
    here = makes(south_host, file)["key_protector"]
    with north.here():
        north_host = holding(fabric, healthy)
        north_file, _ = imported(tmp_path / "north.json")
        assert makes(north_host, old)["code"] == "guardian_not_named"
    with served() as address:
        assert run("grant", file, "--guardian", north_file, "--fabric", address, "--yes").exit_code == 0
        with north.here():
            there = makes(north_host, file)["key_protector"]
            assert makes(north_host, old)["code"] == "protector_not_rewrapped"
            assert code_of(north_host, here) == "guardian_not_named"  # it was made before the grant
        # What the one has made the other may run, as both are named; with the file from before too.
        assert south_host.starts(there)["key_protector"]
        both = makes(south_host, old)["key_protector"]
        with north.here():
            assert north_host.starts(both)["key_protector"]

        revoked = run("revoke", file, "--guardian", south.fingerprint, "--fabric", address, "--yes")
        assert revoked.exit_code == 0, revoked.output
    assert makes(south_host, file)["code"] == "guardian_not_named"  # the key in it is not wrapped for it any more
    assert makes(south_host, old)["code"] == "guardian_revoked"
    assert south_host.starts(here)["key_protector"]  # the machines are there, each under its own statement
    with north.here():
        last = verify_protector(makes(north_host, file)["key_protector"])
    assert [each.name for each in last.guardians] == ["North"]
