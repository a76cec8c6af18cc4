"""What an owner changes about shielding data: in the file, at the fabric that has it, for machines made from then."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from django.contrib.auth.models import User

from cli.tenant import tenant
from kps import errors, service
from kps.core.chain import VerifiedChain, make_machine, sign_statement, verify_chain
from kps.core.guardian import Guardian, GuardianKeys
from kps.core.protector import open_protector, roll_protector, verify_protector
from kps.core.release_policy import ReleasePolicy
from kps.core.shielding_content import Content
from kps.core.shielding_data import (
    ShieldingData,
    restated,
)
from kps.models import KeyProtectorRecord
from tests.kps import shielding
from tests.kps.conftest import Host
from tests.kps.parties import FABRIC, ID, OTHER_FABRIC, STRANGER
from tests.kps.serving import served
from tests.kps.shielding import CONTENT, FILE_ID, content_in, statement, whole_file
from tests.kps.test_owner_commands import KONTOR, bundle_of, keys, run

__all__ = ["keys", "run"]
Run = Callable[..., Result]


def now() -> datetime:
    return datetime.now(UTC)


def file_of(folder: Path, *guardians: Guardian, owner: GuardianKeys = KONTOR.keys, **changes: Any) -> Path:
    """Make a shielding data file of the owner whose key the commands have."""
    said = replace(statement(owner=owner), guardians=guardians, **changes)
    path = folder / "web.shield"
    path.write_bytes(whole_file(owner, said, now=now()))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return file_of(tmp_path, FABRIC.guardian)


def data_in(file: Path) -> ShieldingData:
    return shielding.data_in(file.read_bytes())


def opens(file: Path, party: GuardianKeys) -> Content:
    return content_in(file.read_bytes(), open_protector(data_in(file).protector, party.encryption))


# --- with the file alone -----------------------------------------------------------------------------------------


def test_a_granted_fabric_opens_the_file_and_makes_machines_for_both(run: Run, file: Path, keys: Path) -> None:
    before = data_in(file)
    done = run("grant", file, "--guardian", keys / "south.json", "--yes")
    assert done.exit_code == 0, done.output
    assert "May make machines from it: other fabric (" in done.output
    assert f"Its fingerprint is {OTHER_FABRIC.guardian.fingerprint}." in done.output
    after = data_in(file)
    assert (after.protector.chain.statement.serial, after.protector.roll) == (1, 0)
    assert after.protector.chain.statement.makes_machines
    assert (after.label, after.made_at, after.pieces) == (before.label, before.made_at, before.pieces)
    assert opens(file, FABRIC) == opens(file, OTHER_FABRIC) == opens(file, KONTOR.keys) == CONTENT
    machine = make_machine(after.protector.chain, OTHER_FABRIC, nonce=bytes(16), now=now())
    born = verify_protector(roll_protector(after.protector, machine, key=bytes(32), signer=OTHER_FABRIC.signing))
    assert open_protector(born, FABRIC.encryption) == open_protector(born, KONTOR.keys.encryption) == bytes(32)


def test_a_revoked_fabric_does_not_open_the_next_file(run: Run, tmp_path: Path) -> None:
    file = file_of(tmp_path, FABRIC.guardian, OTHER_FABRIC.guardian)
    done = run("revoke", file, "--guardian", "fabric", "--yes")
    assert done.exit_code == 0, done.output
    assert "whoever kept a copy and the key can read what is sealed in it" in done.output
    assert opens(file, OTHER_FABRIC) == CONTENT
    with pytest.raises(errors.Refusal, match="not wrapped for this guardian"):
        opens(file, FABRIC)


def test_a_file_that_is_taken_back_is_its_owner_s_alone(run: Run, file: Path, keys: Path) -> None:
    done = run("revoke", file, "--guardian", "fabric", "--yes")
    assert "NO FABRIC makes machines from it then" in done.output
    assert opens(file, KONTOR.keys) == CONTENT
    assert run("grant", file, "--guardian", keys / "south.json", "--yes").exit_code == 0
    assert opens(file, OTHER_FABRIC) == CONTENT
    assert data_in(file).protector.chain.statement.serial == 2


def test_level_and_policy_are_of_machines_made_from_then_on(run: Run, file: Path) -> None:
    done = run("level", file, "--level", "encryption-supported", "--yes")
    assert "Those that are there stay as they are." in done.output
    assert run("policy", file, "--minimum-mode", "tpm", "--simultaneous-hosts", "1", "--yes").exit_code == 0
    said = data_in(file).protector.chain.statement
    assert (said.serial, said.level) == (2, "encryption-supported")
    assert said.policy.document == {"minimum_mode": "tpm", "simultaneous_hosts": 1}
    assert opens(file, FABRIC) == CONTENT


def test_the_file_says_which_statement_it_is_under(run: Run, file: Path, keys: Path) -> None:
    run("grant", file, "--guardian", keys / "south.json", "--yes")
    shown = CliRunner().invoke(tenant, ["shield", "inspect", str(file)]).output
    assert "statement 1, signed" in shown
    assert OTHER_FABRIC.guardian.name in shown
    told = CliRunner().invoke(tenant, ["protector", "show", str(file)]).output
    for words in ("It is shielding data", "Statement 1", "- other fabric, fingerprint"):
        assert words in told


def test_the_statement_alone_goes_into_a_file_too(run: Run, file: Path, tmp_path: Path) -> None:
    done = run("level", file, "--level", "encryption-supported", "--yes", "--out", tmp_path / "web.1.json")
    assert done.exit_code == 0, done.output
    written = verify_chain(json.loads((tmp_path / "web.1.json").read_text())["chain"])
    assert written == data_in(file).protector.chain
    # And it is what the next is signed after, where the file is not at hand.
    words = ["--level", "shielded", "--yes", "--out", tmp_path / "web.2.json"]
    assert run("level", tmp_path / "web.1.json", *words).exit_code == 0
    following = verify_chain(json.loads((tmp_path / "web.2.json").read_text())["chain"]).statement
    assert (following.serial, following.makes_machines) == (2, True)


REFUSED = [
    (["grant", "--guardian", "north.json"], 1, "says that already"),
    (["revoke", "--guardian", "south"], 1, "is no guardian"),
    (["level", "--level", "shielded"], 1, "says that already"),
    (["policy"], 2, "Say what is to be another"),
    (["policy", "--hours", "25:00-26:00"], 1, "hours of a release policy"),
    (["grant", "--guardian", "south.json", "--id", str(ID)], 1, "about another key protector"),
]


@pytest.mark.parametrize(("words", "code", "why"), REFUSED, ids=[" ".join(row[0]) for row in REFUSED])
def test_what_makes_no_sense_leaves_the_file_as_it_was(
    run: Run, file: Path, keys: Path, words: list[str], code: int, why: str
) -> None:
    before = file.read_bytes()
    done = run(words[0], file, *(str(keys / word) if word.endswith(".json") else word for word in words[1:]), "--yes")
    assert (done.exit_code, why in done.output) == (code, True), done.output
    assert file.read_bytes() == before


def test_without_a_yes_the_file_stays_as_it_was(run: Run, file: Path, keys: Path) -> None:
    before = file.read_bytes()
    assert run("grant", file, "--guardian", keys / "south.json", input="n\n").exit_code == 1
    assert file.read_bytes() == before


def test_another_owner_s_file_is_not_changed(run: Run, tmp_path: Path) -> None:
    file = file_of(tmp_path, FABRIC.guardian, owner=STRANGER)
    before = file.read_bytes()
    done = run("level", file, "--level", "encryption-supported", "--yes")
    assert (done.exit_code, "of another owner" in done.output) == (1, True)
    assert file.read_bytes() == before


@pytest.mark.parametrize("harm", ["content", "protector", "truncated"])
def test_an_altered_file_is_neither_shown_nor_changed(run: Run, file: Path, tmp_path: Path, harm: str) -> None:
    head, *pieces = file.read_text().splitlines(keepends=True)
    other = json.loads(bundle_of(tmp_path / "vm", FABRIC.guardian).joinpath("state.0.json").read_text())["protector"]
    harmed = {
        "content": head + pieces[0][:-5] + "AAAA\n",
        "protector": json.dumps(json.loads(head) | {"protector": other}) + "\n" + pieces[0],
        "truncated": file.read_text()[:-9],
    }[harm]
    file.write_text(harmed)
    for done in (run("level", file, "--level", "encryption-supported", "--yes"), run("protector show", file)):
        assert (done.exit_code, "Error: " in done.output) == (1, True), done.output
    assert file.read_text() == harmed


def other_chain(**changes: Any) -> VerifiedChain:
    return sign_statement(replace(statement(owner=KONTOR.keys), **changes), KONTOR.keys)


@pytest.mark.parametrize("changes", [{"id": ID}, {"makes_machines": False}])
def test_no_statement_but_the_file_s_own_is_put_into_it(file: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(errors.ShieldingDataRefused):
        restated(data_in(file), other_chain(**changes), KONTOR.keys)


def test_nobody_but_the_owner_puts_a_statement_into_a_file(file: Path) -> None:
    """A guardian has the file's key, and the owner's next statement once that was brought; and seals neither."""
    stolen = other_chain(serial=1)
    with pytest.raises(errors.ProtectorSeal):
        restated(data_in(file), stolen, FABRIC)


def test_shielding_data_is_not_recovered_as_a_machine(run: Run, file: Path, tmp_path: Path) -> None:
    done = run("recover", file, "--out", tmp_path / "anew", "--disk", file)
    assert (done.exit_code, "is shielding data and no VM" in done.output) == (1, True), done.output
    assert not (tmp_path / "anew").exists()


# --- with the fabric that has it ---------------------------------------------------------------------------------


@pytest.fixture
def address(db: None) -> Iterator[str]:
    with served() as url:
        yield url


@pytest.fixture
def here(tmp_path: Path, guardian: Guardian, admin: User) -> Path:
    """A file that names the fabric of the test, which knows it."""
    file = file_of(tmp_path, guardian)
    service.know_protector(data_in(file).protector.chain, by=admin, now=now())
    return file


def makes(host: Host, file: Path, vm: str = "web1") -> Any:
    return host.starts(data_in(file).document["protector"], vm=vm)


def test_a_change_is_brought_and_binds_copies_from_before(
    run: Run, host: Host, here: Path, address: str, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.shield"
    copy.write_bytes(here.read_bytes())
    first = verify_protector(makes(host, copy)["key_protector"])
    done = run("level", here, "--level", "encryption-supported", "--fabric", address, "--yes")
    assert "statement 1 is in force" in done.output, done.output
    second = verify_protector(makes(host, copy, "web2")["key_protector"])
    third = verify_protector(makes(host, here, "web3")["key_protector"])
    assert [each.level for each in (first, second, third)] == ["shielded", *2 * ["encryption-supported"]]
    assert run("policy", here, "--host-group", "vault", "--fabric", address, "--yes").exit_code == 0
    assert makes(host, copy)["code"] == makes(host, here)["code"] == "host_group_not_allowed"
    assert KeyProtectorRecord.objects.get(protector_id=FILE_ID).serial == 2


def test_a_machine_that_is_there_goes_on_when_its_file_is_taken_back(
    run: Run, host: Host, here: Path, address: str, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.shield"
    copy.write_bytes(here.read_bytes())
    born = makes(host, here)["key_protector"]
    done = run("revoke", here, "--guardian", service.guardian_fingerprint(now=now()), "--fabric", address, "--yes")
    assert done.exit_code == 0, done.output
    assert makes(host, here)["code"] == "guardian_not_named"
    assert makes(host, copy)["code"] == "guardian_revoked"
    assert "wrapped_keys" in host.starts(born, vm="web1")


def test_the_file_need_not_be_at_hand(
    run: Run, host: Host, here: Path, address: str, keys: Path, tmp_path: Path
) -> None:
    words = ["--id", FILE_ID, "--fabric", address, "--out", tmp_path / "1.json", "--yes"]
    done = run("grant", "--guardian", keys / "south.json", *words)
    assert done.exit_code == 0, done.output
    assert "give this command the file" in done.output
    born = verify_protector(makes(host, here)["key_protector"])
    assert "other fabric" in [each.name for each in born.guardians]  # it may run the machine, and not open this copy
    with pytest.raises(errors.Refusal):
        opens(here, OTHER_FABRIC)


def test_a_fabric_that_does_not_know_the_file_says_how_it_gets_to_know_it(
    run: Run, file: Path, address: str, keys: Path
) -> None:
    done = run("grant", file, "--guardian", keys / "south.json", "--fabric", address, "--yes")
    assert done.exit_code == 0, done.output
    assert "Uploading the file there brings it" in done.output


def test_a_newer_word_at_the_fabric_is_what_the_next_is_signed_after(
    run: Run, here: Path, address: str, tmp_path: Path
) -> None:
    words = ["--id", FILE_ID, "--fabric", address, "--out", tmp_path / "1.json", "--yes"]
    assert run("policy", "--minimum-mode", "tpm", *words).exit_code == 0
    assert run("level", here, "--level", "encryption-supported", "--fabric", address, "--yes").exit_code == 0
    said = data_in(here).protector.chain.statement
    assert (said.serial, said.policy, said.level) == (2, ReleasePolicy(minimum_mode="tpm"), "encryption-supported")


def test_a_making_that_waits_is_approved_by_the_file(
    run: Run, host: Host, guardian: Guardian, address: str, tmp_path: Path
) -> None:
    file = file_of(tmp_path, guardian, policy=ReleasePolicy(approval="key"))
    assert makes(host, file)["code"] == "approval_required"
    assert run("approve", file, "--fabric", address, "--yes").exit_code == 0
    assert "wrapped_keys" in makes(host, file)


def test_a_statement_is_brought_out_of_the_file_without_any_key(
    run: Run, here: Path, address: str, tmp_path: Path
) -> None:
    assert run("level", here, "--level", "encryption-supported", "--yes").exit_code == 0
    words = ["bring", str(here), "--fabric", address]
    assert "statement 1 is in force" in CliRunner().invoke(tenant, words).output
    assert CliRunner().invoke(tenant, words).exit_code == 1
