"""What an owner changes with `guardhouse tenant …`: shown before it is signed, kept, and brought to the fabric."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from django.contrib.auth.models import User

from attestation.errors import Refusal
from cli.owner_file import write_owner
from cli.owner_secret import OwnerSecret
from cli.tenant import tenant
from kps import service
from kps.core.bundle import VmDescription, VmState, build_state, build_vm, parse_state, state_file
from kps.core.chain import VerifiedChain, sign_statement, succeed, verify_chain
from kps.core.guardian import Guardian, GuardianKeys, build_metadata, sign_succession
from kps.core.protector import create_protector, open_protector, verify_protector, wrap_again
from kps.core.release_policy import ReleasePolicy
from kps.core.secrets import VmSecrets, open_secrets, seal_secrets
from kps.models import KeyProtectorRecord, ReleaseApproval
from ledger import service as ledger
from tests.kps.conftest import Host
from tests.kps.parties import FABRIC, ID, KEY, OTHER_FABRIC, STRANGER
from tests.kps.serving import served

PASSPHRASE = "correct horse battery"
KONTOR = OwnerSecret("Kontor Nord", bytes(range(32)))
SECRETS = VmSecrets(vtpm_key="ab" * 32, disk_passphrase="c2VjcmV0" * 4)


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The owner's key file, its passphrase, and the metadata of two fabrics that exist on paper only."""
    folder = tmp_path_factory.mktemp("owner")
    write_owner(folder / "owner.key", KONTOR, PASSPHRASE)
    (folder / "passphrase").write_text(PASSPHRASE + "\n")
    for name, fabric in (("north", FABRIC), ("south", OTHER_FABRIC)):
        (folder / f"{name}.json").write_text(json.dumps({"metadata": build_metadata(fabric, now=now())}))
    return folder


def bundle_of(folder: Path, *guardians: Guardian, policy: ReleasePolicy | None = None) -> Path:
    """Make a bundle, all but its disk, which these commands do not touch."""
    document = create_protector(
        KONTOR.keys,
        guardians,
        protector_id=ID,
        level="shielded",
        key=KEY,
        now=now(),
        policy=policy or ReleasePolicy(),
    )
    folder.mkdir()
    state = VmState(document, seal_secrets(SECRETS, KEY, protector_id=ID, roll=0))
    (folder / "vm.json").write_bytes(build_vm(VmDescription("payroll", str(ID), "shielded", 64)))
    (folder / state_file(0)).write_bytes(build_state(state))
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return bundle_of(tmp_path / "payroll", FABRIC.guardian)


@pytest.fixture
def run(keys: Path) -> Callable[..., Result]:
    def call(command: str, *words: object, **how: Any) -> Result:
        how.setdefault("env", {"GUARDHOUSE_PASSPHRASE_FILE": str(keys / "passphrase")})
        owner = ["--owner", keys / "owner.key"]
        return CliRunner().invoke(tenant, [str(word) for word in (*command.split(), *words, *owner)], **how)

    return call


Run = Callable[..., Result]


def chain_in(bundle: Path) -> VerifiedChain:
    return verify_protector(newest_state(bundle).protector).chain


def newest_state(bundle: Path) -> VmState:
    newest = max(bundle.glob("state.*.json"), key=lambda path: int(path.name.split(".")[1]))
    return parse_state(newest.read_bytes())


def opens(bundle: Path, party: GuardianKeys) -> VmSecrets:
    state = newest_state(bundle)
    found = verify_protector(state.protector)
    key = open_protector(found, party.encryption)
    return open_secrets(state.secrets, key, protector_id=found.id, roll=found.roll)


# --- with the bundle in hand, and no fabric ------------------------------------------------------------------------


def test_a_granted_fabric_can_open_the_bundle_at_once(run: Run, bundle: Path, keys: Path) -> None:
    done = run("grant", bundle, "--guardian", keys / "south.json", "--yes")
    assert done.exit_code == 0, done.output
    assert f"- May run it: {OTHER_FABRIC.guardian.name} (" in done.output
    assert f"Its fingerprint is {OTHER_FABRIC.guardian.fingerprint}." in done.output
    chain = chain_in(bundle)
    assert (chain.statement.serial, [each.name for each in chain.guardians]) == (1, ["fabric", "other fabric"])
    assert opens(bundle, FABRIC) == opens(bundle, OTHER_FABRIC) == opens(bundle, KONTOR.keys) == SECRETS
    assert [path.name for path in bundle.glob("state.*")] == ["state.1.json"]


def test_a_revoked_fabric_cannot_open_the_bundle_any_more(run: Run, keys: Path, tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "payroll", FABRIC.guardian, OTHER_FABRIC.guardian)
    before = newest_state(bundle)
    done = run("revoke", bundle, "--guardian", FABRIC.guardian.fingerprint[:12].upper(), "--yes")
    assert done.exit_code == 0, done.output
    assert "What they had they have" in done.output
    assert opens(bundle, OTHER_FABRIC) == SECRETS
    with pytest.raises(Refusal, match="not wrapped for this guardian"):
        opens(bundle, FABRIC)
    old_key = open_protector(verify_protector(before.protector), FABRIC.encryption)
    assert newest_state(bundle).secrets != before.secrets
    with pytest.raises(Refusal, match="another start"):
        open_secrets(newest_state(bundle).secrets, old_key, protector_id=ID, roll=0)
    with pytest.raises(Refusal, match="do not open"):
        open_secrets(newest_state(bundle).secrets, old_key, protector_id=ID, roll=1)


def test_new_keys_of_a_granted_fabric_take_the_place_of_the_old(run: Run, bundle: Path, keys: Path) -> None:
    signed = sign_succession(FABRIC, replace(OTHER_FABRIC, name="renamed").guardian, now=now())
    metadata = build_metadata(replace(OTHER_FABRIC, name="renamed"), now=now(), successions=[signed])
    (bundle.parent / "new.json").write_text(json.dumps({"metadata": metadata}))
    done = run("grant", bundle, "--guardian", bundle.parent / "new.json", "--yes")
    assert done.exit_code == 0, done.output
    assert "What they had they have" not in done.output
    assert f"fabric ({FABRIC.guardian.fingerprint[:16]}…). These keys count no more" in done.output
    [guardian] = chain_in(bundle).guardians
    assert (guardian.name, guardian.fingerprint) == ("fabric", OTHER_FABRIC.guardian.fingerprint)


def moved(bundle: Path) -> Path:
    """Let the bundle's fabric have put other keys in its own place, as its keys can, whoever has them."""
    chain = succeed(chain_in(bundle), FABRIC, replace(OTHER_FABRIC, name="fabric").guardian)
    document = wrap_again(chain, roll=1, key=KEY, signer=OTHER_FABRIC.signing)
    state = VmState(document, seal_secrets(SECRETS, KEY, protector_id=ID, roll=1))
    (bundle / state_file(1)).write_bytes(build_state(state))
    return bundle


def test_keys_that_a_fabric_has_put_in_its_place_are_shown_before_the_owner_signs_them(
    run: Run, tmp_path: Path
) -> None:
    bundle = moved(bundle_of(tmp_path / "payroll", FABRIC.guardian, policy=ReleasePolicy(successors=True)))
    old, new = FABRIC.guardian.fingerprint, OTHER_FABRIC.guardian.fingerprint
    shown = run("protector show", bundle).output
    assert f"- fabric, fingerprint {new}; its keys {old} have put these in their place" in shown
    declined = run("level", bundle, "--level", "encryption-supported", input="n\n").output
    assert f"May run it: fabric ({new[:16]}…). Its fingerprint is {new}." in declined
    assert f"You take over the keys {new} of fabric, which its keys {old} have put in their place." in declined
    assert chain_in(bundle).statement.serial == 0
    taken_out = run("revoke", bundle, "--guardian", new[:12], "--yes")
    assert "You take over" not in taken_out.output
    assert chain_in(bundle).guardians == ()


def test_without_a_yes_nothing_is_signed(run: Run, bundle: Path, keys: Path) -> None:
    done = run("grant", bundle, "--guardian", keys / "south.json", "--out", bundle.parent / "chain.json", input="n\n")
    assert done.exit_code == 1
    assert "May run it: other fabric" in done.output
    assert chain_in(bundle).statement.serial == 0
    assert not (bundle.parent / "chain.json").exists()


REFUSED: list[tuple[str, list[str], int, str]] = [
    ("grant", ["--guardian", "north.json"], 1, "says that already"),
    ("revoke", ["--guardian", "south"], 1, "is no guardian of this VM. Its guardians are: fabric ("),
    ("revoke", ["--guardian", "abcdef"], 1, "is no guardian"),
    ("level", ["--level", "shielded"], 1, "says that already"),
    ("level", ["--level", "open"], 2, "Invalid value"),
    ("policy", [], 2, "Say what is to be another"),
    ("policy", ["--hours", "25:00-26:00"], 1, "hours of a release policy"),
    ("policy", ["--offline", "3"], 2, "like 3/48"),
    ("policy", ["--offline", "0/48"], 1, "at least 1"),
    ("policy", ["--simultaneous-hosts", "0"], 2, "Invalid value"),
    ("policy", ["--not-before", "2027-01-02", "--not-after", "2027-01-01"], 1, "not before the last"),
    ("policy", ["--without", "hours"], 1, "says that already"),
    ("policy", ["--none", "--file", "policy.toml"], 2, "either --file or --none"),
]


@pytest.mark.parametrize(
    ("command", "words", "code", "why"), REFUSED, ids=[" ".join(row[1]) or row[0] for row in REFUSED]
)
def test_what_changes_nothing_or_makes_no_sense_is_not_signed(
    run: Run, bundle: Path, keys: Path, command: str, words: list[str], code: int, why: str
) -> None:
    (keys / "policy.toml").write_text("")
    paths = [str(keys / word) if "." in word else word for word in words]
    done = run(command, bundle, *paths, "--yes")
    assert (done.exit_code, why in done.output) == (code, True), done.output
    assert chain_in(bundle).statement.serial == 0


def test_another_s_machine_is_not_changed(run: Run, tmp_path: Path) -> None:
    document = create_protector(STRANGER, [FABRIC.guardian], protector_id=ID, level="shielded", key=KEY, now=now())
    (tmp_path / "protector.json").write_text(json.dumps(document))
    done = run(
        "level", tmp_path / "protector.json", "--level", "encryption-supported", "--out", tmp_path / "x", "--yes"
    )
    assert (done.exit_code, "of another owner" in done.output) == (1, True)
    assert not (tmp_path / "x").exists()


def test_a_statement_without_a_place_to_stay_is_not_signed(run: Run, bundle: Path) -> None:
    done = run("level", bundle / "state.0.json", "--level", "encryption-supported", "--yes")
    assert (done.exit_code, "needs a file" in done.output) == (2, True)


def test_a_file_that_is_there_is_not_written_over(run: Run, bundle: Path, keys: Path) -> None:
    done = run("level", bundle, "--level", "encryption-supported", "--yes", "--out", keys / "owner.key")
    assert (done.exit_code, "exists already" in done.output) == (2, True)
    assert chain_in(bundle).statement.serial == 0


def test_the_loss_that_a_level_means_is_said(run: Run, bundle: Path) -> None:
    done = run("level", bundle, "--level", "encryption-supported", "--yes")
    assert "LOST: from its next start the host’s people may have its console" in done.output
    assert chain_in(bundle).statement.level == "encryption-supported"
    assert opens(bundle, FABRIC) == SECRETS


def test_taking_the_last_fabric_away_is_said_to_be_that(run: Run, bundle: Path) -> None:
    done = run("revoke", bundle, "--guardian", "fabric", "--yes")
    assert "NO FABRIC may run it then" in done.output
    assert chain_in(bundle).guardians == ()
    assert opens(bundle, KONTOR.keys) == SECRETS


def test_a_policy_comes_from_a_file_and_options_change_it(run: Run, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(
        'host_groups = ["vault"]\nminimum_mode = "tpm"\nnot_after = 2030-01-01T00:00:00Z\n'
        "successors = true\n[offline]\nstarts = 3\nhours = 48\n"
    )
    words = ["--file", tmp_path / "policy.toml", "--approval", "key", "--without", "successors", "--yes"]
    done = run("policy", bundle, *words)
    assert done.exit_code == 0, done.output
    for sentence in ("Only on hosts of the group vault.", "approved by the owner, with the owner's key"):
        assert sentence in done.output
    assert "New keys of a fabric" not in done.output
    assert chain_in(bundle).statement.policy.document == {
        "host_groups": ["vault"],
        "minimum_mode": "tpm",
        "not_after": 1893456000,
        "approval": "key",
        "offline": {"starts": 3, "hours": 48},
    }
    done = run("policy", bundle, "--hours", "22:00-04:00", "--without", "offline", "--yes")
    assert "Offline starts, no longer: Offline, a host may start it 3 times within 48 hours." in done.output
    assert set(chain_in(bundle).statement.policy.document) >= {"hours", "host_groups", "approval"}
    assert chain_in(bundle).statement.serial == 2
    assert run("policy", bundle, "--none", "--yes").exit_code == 0
    assert chain_in(bundle).statement.policy == ReleasePolicy()


@pytest.mark.parametrize(
    "content",
    [
        "x = [",
        "[" * 9000,
        "nobody_knows = 1",
        "not_before = 2030-01-01T00:00:00",
        "not_before = 2030-01-01",
        "simultaneous_hosts = 1.5",
        "#" * 20_000,
        "\ud800",
    ],
    ids=range(8),
)
def test_a_policy_that_cannot_be_read_is_a_sentence(run: Run, bundle: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "policy.toml").write_bytes(content.encode(errors="surrogatepass"))
    done = run("policy", bundle, "--file", tmp_path / "policy.toml", "--yes")
    assert (done.exit_code, "Error: " in done.output) == (1, True), done.output
    assert chain_in(bundle).statement.serial == 0


def test_a_policy_in_json_is_read_as_strictly(run: Run, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text('{"approval": "key", "approval": "portal"}')
    assert run("policy", bundle, "--file", tmp_path / "policy.json", "--yes").exit_code == 1
    (tmp_path / "policy.json").write_text('{"approval": "portal"}')
    assert run("policy", bundle, "--file", tmp_path / "policy.json", "--yes").exit_code == 0
    assert chain_in(bundle).statement.policy.approval == "portal"


def test_the_protector_is_shown_in_plain_words(run: Run, keys: Path, tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "payroll", FABRIC.guardian, policy=ReleasePolicy(hours="22:00-04:00"))
    shown = CliRunner().invoke(tenant, ["protector", "show", str(bundle)]).output
    for words in (
        "Kontor Nord",
        "shielded: the fabric's people see neither",
        "- fabric, fingerprint",
        "22:00-04:00 UTC",
    ):
        assert words in shown
    assert "Statement 0" in shown
    assert "Nobody has started it yet." in shown


def test_an_altered_bundle_is_neither_shown_nor_changed(run: Run, bundle: Path) -> None:
    state = json.loads((bundle / "state.0.json").read_text())
    state["protector"]["chain"][0] = state["protector"]["chain"][0][:-8] + "AAAAAAAA"
    (bundle / "state.0.json").write_text(json.dumps(state))
    for done in (run("level", bundle, "--level", "encryption-supported", "--yes"), run("protector show", bundle)):
        assert (done.exit_code, "was altered" in done.output) == (1, True), done.output


# --- with fabrics --------------------------------------------------------------------------------------------------


@pytest.fixture
def address(db: None) -> Iterator[str]:
    with served() as url:
        yield url


@pytest.fixture
def registered(bundle_here: Path, admin: User) -> Path:
    service.know_protector(chain_in(bundle_here), by=admin, now=now())
    return bundle_here


@pytest.fixture
def bundle_here(guardian: Guardian, tmp_path: Path) -> Path:
    """A bundle that names the fabric of the test."""
    return bundle_of(tmp_path / "payroll", guardian)


def record() -> KeyProtectorRecord:
    return KeyProtectorRecord.objects.get()


def test_a_change_needs_no_file_of_the_machine(run: Run, registered: Path, address: str, tmp_path: Path) -> None:
    words = ["--id", ID, "--fabric", address, "--out", tmp_path / "chain.json", "--yes"]
    done = run("policy", "--approval", "key", *words)
    assert done.exit_code == 0, done.output
    assert f"{address}: statement 1 is in force." in done.output
    assert record().serial == 1
    kept = verify_chain(json.loads((tmp_path / "chain.json").read_text())["chain"])
    assert kept.statement_sha256 == record().statement_sha256
    assert ledger.leaves(act_prefix="chain.taken").get().detail["owner"] == KONTOR.keys.guardian.fingerprint


def test_the_newest_statement_is_found_wherever_it_is(run: Run, registered: Path, address: str, tmp_path: Path) -> None:
    """The bundle in hand has serial 0, the fabric has 1: the next one is 2, and keeps what 1 said."""
    run("policy", "--approval", "key", "--id", ID, "--fabric", address, "--out", tmp_path / "1.json", "--yes")
    done = run("level", registered, "--level", "encryption-supported", "--fabric", address, "--yes")
    assert done.exit_code == 0, done.output
    statement = chain_in(registered).statement
    assert (statement.serial, statement.policy.approval, statement.level) == (2, "key", "encryption-supported")
    assert record().serial == 2


def test_two_statements_with_one_serial_are_not_chosen_between(run: Run, registered: Path, address: str) -> None:
    statement = chain_in(registered).statement
    rival = sign_statement(replace(statement, serial=1, level="encryption-supported"), KONTOR.keys)
    service.take_chain(rival.document, now=now())
    run("policy", registered, "--approval", "key", "--yes")
    done = run("policy", registered, "--hours", "22:00-04:00", "--fabric", address, "--yes")
    assert (done.exit_code, "two different statements 1" in done.output) == (1, True), done.output
    assert record().serial == chain_in(registered).statement.serial == 1


def test_a_fabric_that_cannot_be_asked_stops_the_change(run: Run, registered: Path) -> None:
    """It may have a newer statement; one that was made without looking could say the opposite by mistake."""
    done = run("policy", registered, "--approval", "key", "--fabric", "http://127.0.0.1:1", "--yes")
    assert (done.exit_code, "cannot be reached" in done.output) == (1, True)
    assert chain_in(registered).statement.serial == 0


def test_a_fabric_that_does_not_know_the_machine_yet_is_no_obstacle(run: Run, bundle_here: Path, address: str) -> None:
    done = run("policy", bundle_here, "--approval", "key", "--fabric", address, "--yes")
    assert done.exit_code == 0, done.output
    assert "does not know this VM yet" in done.output
    assert chain_in(bundle_here).statement.serial == 1


def test_a_signed_statement_is_brought_by_anybody_later(
    run: Run, registered: Path, address: str, tmp_path: Path
) -> None:
    run("level", registered, "--level", "encryption-supported", "--out", tmp_path / "chain.json", "--yes")
    assert record().serial == 0
    words = ["bring", str(tmp_path / "chain.json"), "--fabric", address]
    done = CliRunner().invoke(tenant, words)
    assert (done.exit_code, record().level) == (0, "encryption-supported"), done.output
    again = CliRunner().invoke(tenant, words)
    assert (again.exit_code, "chain_not_newer" in again.output) == (1, True)


def test_the_fabric_s_own_word_of_a_machine_is_compared(run: Run, registered: Path, address: str, admin: User) -> None:
    run("level", registered, "--level", "encryption-supported", "--yes")
    service.deny_protector(record().owner_fingerprint, ID, by=deny_by(admin), reason="court order", now=now())
    shown = run("protector show", registered, "--fabric", address).output
    assert "goes by statement 0, and not by this one" in shown
    assert "denies every start" in shown


def deny_by(person: User) -> User:
    from django.contrib.auth.models import Permission

    person.user_permissions.add(Permission.objects.get(content_type__app_label="kps", codename="deny"))
    return User.objects.get(pk=person.pk)


def test_a_start_that_waits_is_listed_and_approved_by_key(
    run: Run, host: Host, guardian: Guardian, address: str, tmp_path: Path
) -> None:
    bundle = bundle_of(tmp_path / "payroll", guardian, policy=ReleasePolicy(approval="key"))
    words = [bundle, "--fabric", address]
    assert "No start of it waits" in run("approve", bundle, "--fabric", address).output
    assert host.starts(newest_state(bundle).protector)["code"] == "approval_required"
    declined = run("approve", *words, input="n\n")
    assert (declined.exit_code, ReleaseApproval.objects.get().state) == (0, "pending")
    for shown in ("payroll on host nbg-a01", "tpm mode, policy v", str(ReleaseApproval.objects.get().attester_id)):
        assert shown in declined.output
    done = run("approve", *words, "--yes")
    assert done.exit_code == 0, done.output
    assert "may start on host nbg-a01 once, until" in done.output
    assert "wrapped_keys" in host.starts(newest_state(bundle).protector)
    assert ledger.leaves(act_prefix="approval.given").get().detail["signed"].count(".") == 2
    assert run("approve", "--fabric", address, "--yes").exit_code == 2
    assert run("approve", bundle, "--yes").exit_code == 2
