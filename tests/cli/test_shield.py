"""Shielding data is prepared, looked into and tried as a tenant does it; no secret is shown or given in the open."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import ec

from cli.owner_file import read_owner
from cli.shield_recipe import RECIPE_LIMIT, parse_recipe
from cli.tenant import tenant
from kps.core.guardian import build_metadata
from kps.core.protector import open_protector
from kps.core.release_policy import ReleasePolicy
from kps.core.shielding_content import Content
from kps.errors import MalformedDocument
from tests.kps.parties import FABRIC, NOW, OTHER_FABRIC, OWNER
from tests.kps.shielding import CONTENT, FILES, NETWORK, RECIPE, USER_DATA, catalog_token, content_in, data_in

PASSPHRASE = "correct horse battery"


@pytest.fixture(scope="module")
def owner_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An owner's key file; stretching its passphrase takes a while, so there is one."""
    home = tmp_path_factory.mktemp("owner")
    (home / "passphrase").write_text(PASSPHRASE + "\n")
    assert run(home, "owner", "new", "--name", "Kontor Nord", "--out", home / "owner.key").exit_code == 0
    return home / "owner.key"


@pytest.fixture
def home(tmp_path: Path, owner_key: Path) -> Path:
    (tmp_path / "passphrase").write_text(PASSPHRASE + "\n")
    for name, keys in (("fabric", FABRIC), ("other", OTHER_FABRIC)):
        (tmp_path / name).write_text(json.dumps({"metadata": build_metadata(keys, now=NOW)}))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "user-data.yaml").write_text(USER_DATA)
    (tmp_path / "network.yaml").write_text(NETWORK)
    (tmp_path / "host_key").write_bytes(FILES[0].content)
    (tmp_path / "ca.pem").write_bytes(FILES[1].content)
    (tmp_path / "root").write_text(CONTENT.secrets["root"] + "\n")
    (tmp_path / "debian.catalog").write_text(catalog_token() + "\n")
    (tmp_path / "owner.key").symlink_to(owner_key)
    return tmp_path


def run(home: Path, *words: object, **how: Any) -> Result:
    how.setdefault("env", {"GUARDHOUSE_PASSPHRASE_FILE": str(home / "passphrase")})
    return CliRunner().invoke(tenant, [str(word) for word in words], **how)


def new(home: Path, **how: Any) -> Result:
    words = ["shield", "new", home / "recipe.toml", "--owner", home / "owner.key", "--guardian", home / "fabric"]
    return run(home, *words, "--guardian", home / "other", "--out", home / "web.shield", **how)


def opened_by(home: Path, key: ec.EllipticCurvePrivateKey) -> Content:
    file = (home / "web.shield").read_bytes()
    return content_in(file, open_protector(data_in(file).protector, key))


def changed(home: Path, *changes: tuple[str, str]) -> None:
    text = RECIPE
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    (home / "recipe.toml").write_text(text)


def test_what_the_recipe_says_is_sealed_for_the_owner_and_the_guardians(home: Path) -> None:
    done = new(home)
    assert done.exit_code == 0, done.output
    data = data_in((home / "web.shield").read_bytes())
    assert opened_by(home, OTHER_FABRIC.encryption) == CONTENT
    owner = read_owner(home / "owner.key", PASSPHRASE)
    assert opened_by(home, owner.encryption) == CONTENT
    assert data.protector.chain.statement.policy == ReleasePolicy(minimum_mode="tpm")
    assert (data.label.name, data.level, data.owner) == ("web servers", "shielded", owner.guardian)
    assert stat.S_IMODE((home / "web.shield").stat().st_mode) == 0o600


def test_nothing_secret_is_said_or_written_in_the_open(home: Path) -> None:
    done = new(home)
    shown = run(home, "shield", "inspect", home / "web.shield")
    for seen in (done.output, shown.output, (home / "web.shield").read_text()):
        assert "marker" not in seen
        assert "login" not in seen
        assert "ssh_host" not in seen


def test_anybody_sees_what_it_says_in_the_open(home: Path) -> None:
    new(home)
    shown = run(home, "shield", "inspect", home / "web.shield")
    assert shown.exit_code == 0
    data = data_in((home / "web.shield").read_bytes())
    for line in (
        "web servers, shielded",
        "for the shop",
        f"SHA-256 {data.digest}",
        "template debian-12, version 12.1 or later, signed by",
        "asks for @HostName@: a host name of letters, digits and dashes",
        "Only on hosts that attested in tpm mode",
        FABRIC.guardian.fingerprint[:4],
    ):
        assert line in shown.output


def test_the_owner_sees_all_and_secrets_when_asking_for_them(home: Path) -> None:
    new(home)
    words = ("shield", "inspect", home / "web.shield", "--owner", home / "owner.key")
    shown = run(home, *words)
    assert "login @Secret-root@" in shown.output
    assert "File /etc/ssh/ssh_host_ed25519_key, mode 0600, 22 bytes" in shown.output
    assert CONTENT.secrets["root"] not in shown.output
    assert f"Secret root: {CONTENT.secrets['root']}" in run(home, *words, "--secrets").output
    assert run(home, "shield", "inspect", home / "web.shield", "--secrets").exit_code == 2


def test_another_owner_s_key_opens_nothing(home: Path, tmp_path: Path) -> None:
    new(home)
    run(home, "owner", "new", "--name", "Another", "--out", tmp_path / "another.key")
    shown = run(home, "shield", "inspect", home / "web.shield", "--owner", tmp_path / "another.key")
    assert shown.exit_code == 1
    assert "belongs to another owner: Kontor Nord" in shown.output
    assert "login" not in shown.output


def test_a_file_that_was_altered_shows_nothing(home: Path) -> None:
    new(home)
    before, _, tag = (home / "web.shield").read_text().rpartition(".")
    (home / "web.shield").write_text(f"{before}.{tag.strip()[::-1]}\n")
    shown = run(home, "shield", "inspect", home / "web.shield")
    assert shown.exit_code == 1
    assert "not as the owner has signed it" in shown.output


def test_a_secret_is_asked_for_twice_where_the_recipe_says_so(home: Path) -> None:
    changed(home, ('root = {from = "root"}', "root = {ask = true}"))
    assert new(home, input="one\nother\n").exit_code == 1
    done = new(home, input="typed\ntyped\n")
    assert done.exit_code == 0, done.output
    assert "typed" not in done.output
    assert opened_by(home, FABRIC.encryption).secrets == {"root": "typed"}


def test_a_file_that_is_there_is_not_replaced(home: Path) -> None:
    new(home)
    before = (home / "web.shield").read_bytes()
    assert new(home).exit_code == 1
    assert (home / "web.shield").read_bytes() == before


def test_a_template_can_be_named_by_its_catalog(home: Path) -> None:
    changed(home, ('name = "debian-12"\nversion = "12.1"', 'catalog = "debian.catalog"'))
    assert new(home).exit_code == 0
    (volume,) = data_in((home / "web.shield").read_bytes()).label.volumes
    assert str(volume) == "debian-12, version 12.1 or later"


def test_a_catalog_of_another_signer_than_the_recipe_trusts_is_refused(home: Path) -> None:
    changed(home, ('name = "debian-12"\nversion = "12.1"', 'catalog = "debian.catalog"'))
    (home / "debian.catalog").write_text(catalog_token(signer=OWNER))
    done = new(home)
    assert done.exit_code == 1
    assert "told you by another way" in done.output
    assert not (home / "web.shield").exists()


def test_a_template_is_tried(home: Path) -> None:
    new(home)
    done = run(home, "shield", "test", home / "web.shield", home / "debian.catalog")
    assert (done.exit_code, done.output) == (0, "debian-12 12.1: applies\n")
    (home / "old.catalog").write_text(catalog_token("12.0"))
    done = run(home, "shield", "test", home / "web.shield", home / "debian.catalog", home / "old.catalog")
    assert done.exit_code == 1
    assert done.output.splitlines()[:3] == [
        "debian-12 12.1: applies",
        "debian-12 12.0: does not apply",
        "  The shielding data accepts debian-12, version 12.1 or later; this is version 12.0.",
    ]
    assert "Choose another template, or make shielding data" in done.output


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ('level = "shielded"', 'level = "open"', "level"),
        ('name = "web servers"', "", "no other word"),
        ('description = "for the shop"', 'password = "x"', "no other word"),
        ('root = {from = "root"}', 'root = "hunter2"', "never a text"),
        ('root = {from = "root"}', "root = {ask = false}", "never a text"),
        ('root = {from = "root"}', 'other = {from = "root"}', "There is no secret root"),
        ('mode = "0644"', 'mode = "0999"', "mode"),
        ('mode = "0644"', "mode = 420", "mode"),
        ('rule = "at-least"', 'rule = "newer"', "rule"),
        ('version = "12.1"', "", "name and a version"),
        ('version = "12.1"', 'version = "12.x"', "whole numbers"),
        ("[[template]]", "[template]", "two brackets"),
        ('minimum_mode = "tpm"', 'minimum_mode = "sgx"', "minimum mode"),
        ('minimum_mode = "tpm"', "wishes = 1", "no other members"),
        ('from = "ca.pem"', 'from = "nowhere"', "nowhere"),
        ('path = "/etc/app/ca.pem"', 'path = "etc/app"', "whole path"),
        ('user_data = "user-data.yaml"', 'user_data = "ca.pem"', "UTF-8"),
        ('user_data = "user-data.yaml"', 'user_data = "network.yaml"', "begins with"),
        ("name =", "name ", "not TOML"),
    ],
)
def test_a_recipe_that_cannot_be_followed_makes_no_file(home: Path, before: str, after: str, says: str) -> None:
    changed(home, (before, after))
    done = new(home)
    assert done.exit_code == 1, done.output
    assert says in done.output
    assert "hunter2" not in done.output
    assert not (home / "web.shield").exists()


def test_a_recipe_is_bounded() -> None:
    with pytest.raises(MalformedDocument):
        parse_recipe(b"#" * (RECIPE_LIMIT + 1))
