"""A wrong setting stops the start with a sentence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

KERBEROS = {"KERBEROS_KEYTAB": "/a.keytab", "KERBEROS_SERVICE": "HTTP@a.example", "KERBEROS_REALM": "A.EXAMPLE"}


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
