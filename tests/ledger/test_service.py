"""What was decided is written with the act itself, and stays as it was written."""

from datetime import UTC, datetime

import pytest
from django.db import connection, transaction
from django.db.utils import DatabaseError

from ledger import service
from ledger.models import Leaf

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def write(act: str = "host.approved", actor: str = "user:ada", subject: str = "host:1") -> Leaf:
    with transaction.atomic():
        return service.record(actor=actor, act=act, subject=subject, detail={"n": 1}, now=NOW)


@pytest.mark.django_db(transaction=False)
def test_a_leaf_read_back_from_the_database_is_intact() -> None:
    assert service.intact(Leaf.objects.get(pk=write().pk))


@pytest.mark.django_db
def test_an_act_that_fails_leaves_no_leaf() -> None:
    with transaction.atomic():
        service.record(actor="user:ada", act="x", subject="y", detail={}, now=NOW)
        transaction.set_rollback(True)
    assert not Leaf.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize("statement", ["UPDATE ledger_leaf SET actor = 'user:eve'", "DELETE FROM ledger_leaf"])
def test_the_database_refuses_to_change_a_leaf(statement: str) -> None:
    write()
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
    assert Leaf.objects.get().actor == "user:ada"


@pytest.mark.django_db
def test_a_leaf_that_was_changed_behind_the_database_is_seen() -> None:
    leaf = write()
    leaf.actor = "user:eve"
    assert not service.intact(leaf)


@pytest.mark.django_db
def test_leaves_are_found_by_act_actor_and_subject_newest_first() -> None:
    first, second = write(), write(act="host.revoked", actor="user:ben", subject="host:2")
    assert [leaf.pk for leaf in service.leaves()] == [second.pk, first.pk]
    assert [leaf.pk for leaf in service.leaves(act_prefix="host.rev")] == [second.pk]
    assert [leaf.pk for leaf in service.leaves(actor="user:ada")] == [first.pk]
    assert [leaf.pk for leaf in service.leaves(subject="host:2")] == [second.pk]
