"""A wrong setting stops the start with a sentence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from fabric import environment

ROOT = Path(__file__).resolve().parent.parent

KERBEROS = {"KERBEROS_KEYTAB": "/a.keytab", "KERBEROS_SERVICE": "HTTP@a.example", "KERBEROS_REALM": "A.EXAMPLE"}

DIRECTORY = {"DIRECTORY": "ldap://dc1.a.example,ldap://dc2.a.example:3890", "DIRECTORY_ACCOUNT": "svc-guardhouse"}


def start(**settings: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GUARDHOUSE_")}
    return subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=ROOT,
        env=kept | {f"GUARDHOUSE_{name}": value for name, value in settings.items()},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_service_starts_with_a_secret_key_alone(tmp_path: Path) -> None:
    assert start(SECRET_KEY="k" * 50, STATE_DIR=str(tmp_path)).returncode == 0


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        pytest.param({}, "GUARDHOUSE_SECRET_KEY is not set", id="no secret key"),
        pytest.param({"DEBUG": "yes"}, "GUARDHOUSE_DEBUG is 'yes'; it must be 0 or 1", id="a flag that is none"),
        pytest.param({"CERTIFICATE_MINUTES": "481"}, "from 5 to 480", id="a certificate over eight hours"),
        pytest.param({"CERTIFICATE_MINUTES": "-5"}, "from 5 to 480", id="a negative lifetime"),
        pytest.param({"FABRIC_NAME": "x" * 65}, "1 to 64 printable", id="a name too long to be signed"),
        pytest.param(
            {"DATABASE_URL": "postgresql://u@h/d", "DATABASE_KEEP_SECONDS": "-1"}, "from 0 to 3600", id="kept for ever"
        ),
        pytest.param({"KERBEROS_REALM": "A.EXAMPLE"}, "belong together", id="a realm without a keytab"),
        pytest.param({**KERBEROS, "KERBEROS_KEYTAB": "a.keytab"}, "must look like /", id="a keytab somewhere"),
        pytest.param({**KERBEROS, "KERBEROS_SERVICE": "HTTP/a"}, "must look like HTTP@", id="a service of no host"),
        pytest.param({**KERBEROS, "KERBEROS_REALM": "a.example"}, "must look like EX", id="a realm in small letters"),
        pytest.param(DIRECTORY, "KERBEROS_KEYTAB must be set too", id="a directory without a keytab"),
        pytest.param({"CUSTODY": "none"}, "GUARDHOUSE_CUSTODY is 'none'", id="an unknown custody"),
        pytest.param({"DATABASE_URL": "mysql://x/y"}, "must look like postgresql://", id="another database"),
        pytest.param({"SECRET_KEY_FILE": "/nonexistent"}, "cannot be read", id="a secret file that is not there"),
        pytest.param({"SECRET_KEY_FILE": "/dev/null"}, "both set", id="a secret given twice"),
    ],
)
def test_a_wrong_setting_is_refused_with_a_sentence(settings: dict[str, str], sentence: str) -> None:
    key = {} if sentence.startswith("GUARDHOUSE_SECRET_KEY is not") else {"SECRET_KEY": "k" * 50}
    if "nonexistent" in settings.get("SECRET_KEY_FILE", ""):
        key = {}
    done = start(**key, **settings)
    assert done.returncode != 0
    assert sentence in done.stderr


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("dc1.a.example", id="a name"),
        pytest.param("ldaps://dc1.a.example", id="another protocol"),
        pytest.param("ldap://", id="nobody"),
        pytest.param("ldap://dc1.a.example:99999", id="a port that is none"),
        pytest.param("ldap://dc1.a.example:0389", id="a port written otherwise"),
        pytest.param("ldap://dc1.a.example/", id="a path"),
        pytest.param("ldap://dc1.a.example/??sub", id="a search"),
        pytest.param("ldap://eve@dc1.a.example", id="a person"),
        pytest.param("ldap://dc1.a.example.", id="a dot at the end"),
        pytest.param("ldap://dc1_.a.example", id="a name that no host has"),
        pytest.param("ldap://dc1.a.example,ldap:dc2", id="a second one that is none"),
        pytest.param("ldap://dc1.a.example ldap://dc2.a.example", id="no comma"),
        pytest.param(" , ", id="commas alone"),
    ],
)
def test_a_controller_is_named_and_nothing_else(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("GUARDHOUSE_DIRECTORY", value)
    with pytest.raises(ImproperlyConfigured, match=r"it must look like ldap://dc1\.example\.net"):
        environment.directory("DIRECTORY")


def test_controllers_are_asked_in_the_order_that_they_are_named_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDHOUSE_DIRECTORY", "ldap://dc2.a.example:3890, ldap://dc1")
    assert environment.directory("DIRECTORY") == ["ldap://dc2.a.example:3890", "ldap://dc1"]
    monkeypatch.delenv("GUARDHOUSE_DIRECTORY")
    assert environment.directory("DIRECTORY") == []


def test_a_directory_is_nothing_without_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDHOUSE_DIRECTORY", "ldap://dc1.a.example")
    with pytest.raises(ImproperlyConfigured, match="GUARDHOUSE_DIRECTORY_ACCOUNT must be set too"):
        environment.all_or_none("DIRECTORY", "DIRECTORY_ACCOUNT")
