"""A second fabric for a test: a database of its own, which begins as a copy of the first one's."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from pytest_django import Settings


@dataclass
class Fabric:
    """A fabric's name and database. Inside of `here` all that the test does is done there."""

    name: str
    connection: BaseDatabaseWrapper
    settings: Settings

    @contextmanager
    def here(self) -> Iterator[None]:
        before, called = connections["default"], self.settings.FABRIC_NAME
        connections["default"], self.settings.FABRIC_NAME = self.connection, self.name
        try:
            yield
        finally:
            connections["default"], self.settings.FABRIC_NAME = before, called


@contextmanager
def copied(path: Path, *, name: str, settings: Settings) -> Iterator[Fabric]:
    """Make a fabric out of what the one at hand has by now: the same people and hosts, from here on each its own.

    A fabric makes its guardian keys when it is first asked for them, so these are not the same.
    """
    first = connections["default"]
    if first.vendor != "sqlite":
        pytest.skip("the second database is a copied file")
    path.write_bytes(first.connection.serialize())  # as this transaction sees it; a backup would wait for its end
    second = type(first)({**first.settings_dict, "NAME": str(path)}, alias="default")
    try:
        yield Fabric(name, second, settings)
    finally:
        second.close()
