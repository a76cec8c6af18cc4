"""Strict readers of the environment: a wrong value stops the start with a sentence, never with a default."""

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

PREFIX = "GUARDHOUSE_"
PREPARED_AFTER = 5  # uses of a statement
LAST_PORT = 65_535
_CONTROLLER = re.compile(r"ldap://[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*(:(?P<port>[1-9][0-9]{0,4}))?")


def text(name: str, default: str) -> str:
    return os.environ.get(PREFIX + name, default)


def label(name: str, default: str) -> str:
    """Read a name that people see and that signed documents carry."""
    value = text(name, default)
    if not 1 <= len(value) <= 64 or not value.isprintable():
        raise ImproperlyConfigured(f"{PREFIX}{name} is {value!r}; it must be 1 to 64 printable characters.")
    return value


def flag(name: str, default: bool) -> bool:
    value = os.environ.get(PREFIX + name)
    if value is None:
        return default
    if value not in {"0", "1"}:
        raise ImproperlyConfigured(f"{PREFIX}{name} is {value!r}; it must be 0 or 1.")
    return value == "1"


def whole_number(name: str, default: int, *, least: int, most: int) -> int:
    value = os.environ.get(PREFIX + name)
    if value is None:
        return default
    if not value.isascii() or not value.isdigit() or not least <= int(value) <= most:
        raise ImproperlyConfigured(f"{PREFIX}{name} is {value!r}; it must be a whole number from {least} to {most}.")
    return int(value)


def words(name: str, default: list[str]) -> list[str]:
    value = os.environ.get(PREFIX + name)
    if value is None:
        return default
    return [word.strip() for word in value.split(",") if word.strip()]


def numbers(name: str, default: list[int], *, of: Collection[int]) -> list[int]:
    """Read a list of numbers out of some; an empty one is a mistake."""
    value = words(name, [str(number) for number in default])
    if not value or not all(word.isascii() and word.isdigit() and int(word) in of for word in value):
        known = ", ".join(str(number) for number in sorted(of))
        raise ImproperlyConfigured(f"{PREFIX}{name} is {','.join(value)!r}; it must list some of {known}.")
    return sorted({int(word) for word in value})


def choice(name: str, default: str, choices: set[str]) -> str:
    value = text(name, default)
    if value not in choices:
        raise ImproperlyConfigured(f"{PREFIX}{name} is {value!r}; it must be one of {', '.join(sorted(choices))}.")
    return value


def shaped(name: str, form: str, *, like: str) -> str:
    """Read a text of a given form, or nothing."""
    value = text(name, "")
    if value and not re.fullmatch(form, value):
        raise ImproperlyConfigured(f"{PREFIX}{name} is {value!r}; it must look like {like}.")
    return value


def directory(name: str) -> list[str]:
    """Read domain controllers by name, and port if it is another one: who logs in, and how, is no part of a URL."""
    value = text(name, "")
    found = [word.strip() for word in value.split(",")] if value else []
    for each in found:
        parts = _CONTROLLER.fullmatch(each)
        if parts is None or int(parts["port"] or 1) > LAST_PORT:
            raise ImproperlyConfigured(f"{PREFIX}{name} has {each!r}; it must look like ldap://dc1.example.net.")
    return found


def all_or_none(*names: str) -> None:
    """Refuse settings that mean nothing without each other."""
    missing = [PREFIX + name for name in names if not text(name, "")]
    if 0 < len(missing) < len(names):
        raise ImproperlyConfigured(f"{', '.join(missing)} must be set too: {', '.join(names)} belong together.")


def needs(name: str, other: str) -> None:
    """Refuse a setting that means nothing without another one."""
    if text(name, "") and not text(other, ""):
        raise ImproperlyConfigured(f"{PREFIX}{other} must be set too: {PREFIX}{name} means nothing without it.")


def together(values: Mapping[str, str], *, needed: bool) -> None:
    """Refuse settings that mean nothing without each other; all may be missing unless they are `needed`."""
    missing = [PREFIX + name for name, value in values.items() if not value]
    if missing and (needed or len(missing) < len(values)):
        raise ImproperlyConfigured(f"{', '.join(missing)} must be set too: {', '.join(values)} belong together.")


def secret(name: str, default: str) -> str:
    """Read a secret from NAME, or from the file that NAME_FILE names, but never from both."""
    path = os.environ.get(PREFIX + name + "_FILE")
    if path is None:
        return text(name, default)
    if PREFIX + name in os.environ:
        raise ImproperlyConfigured(f"{PREFIX}{name} and {PREFIX}{name}_FILE are both set; set one.")
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ImproperlyConfigured(f"{PREFIX}{name}_FILE names {path}, which cannot be read: {error}.") from error


def database(default_path: Path) -> dict[str, object]:
    """Return Django's settings for PostgreSQL when DATABASE_URL names it, else for a SQLite file.

    SQLite: write-ahead log so that readers do not wait; FULL so that what was acknowledged survives a power cut;
    IMMEDIATE so that two writers queue at the start of a transaction instead of failing in its middle.
    """
    url = secret("DATABASE_URL", "")
    if not url:
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(default_path),
            # Tests use a file too: a database in memory has no write-ahead log and other rules for two writers.
            "TEST": {"NAME": str(default_path.with_name("test.sqlite3"))},
            "OPTIONS": {
                "timeout": 20,
                "transaction_mode": "IMMEDIATE",
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
            },
        }
    parts = urlsplit(url)
    if parts.scheme != "postgresql" or not parts.path.strip("/"):
        raise ImproperlyConfigured(f"{PREFIX}DATABASE_URL must look like postgresql://user:password@host:port/name.")
    return {
        "ENGINE": "fabric.postgresql",
        "NAME": unquote(parts.path.strip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": unquote(parts.hostname or ""),
        "PORT": str(parts.port or ""),
        # Behind ASGI each request has a thread of its own, so a connection kept for the next one is never used again:
        # under load the kept ones would take every place that PostgreSQL has. Behind WSGI threads keep theirs.
        "CONN_MAX_AGE": whole_number("DATABASE_KEEP_SECONDS", 0, least=0, most=3600),
        "CONN_HEALTH_CHECKS": True,
        # The server parses and plans a statement once for each connection, not each time.
        "OPTIONS": {
            "server_side_binding": True,
            "prepare_threshold": PREPARED_AFTER if flag("DATABASE_PREPARED", default=True) else None,
        },
    }
