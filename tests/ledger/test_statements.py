"""Changes and rows that belong together are written together or not at all, on both databases, in the same words."""

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import Group, User
from django.contrib.sessions.models import Session
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from ledger import service
from ledger.core.leaf import Act
from ledger.models import Leaf
from ledger.statements import Change, New, Part, change_and_read, insert_and_read, read_beside, worded, write

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
SESSION = Part(Session, "changed", "session_key", "session_data", "expire_date")
GROUP = Part(Group, "beside", "id", "name")
SELECT = worded(
    "SELECT {number}, :session, :group FROM changed LEFT JOIN auth_group AS beside ON beside.name = %s",
    session=SESSION,
    group=GROUP,
)


@pytest.fixture
def ada(db: None) -> User:
    return User.objects.create_user("ada", email="ada@old.example")


def renamed(user: User, *, seen: str) -> Change:
    user.email = "ada@new.example"
    return Change(user, ["email"], seen={"email": seen, "last_login": None})


def leaf(act: str = "user.changed") -> Leaf:
    return service.new_leaf(actor="system", act=act, subject="user:ada", detail={"n": 1}, now=NOW)


def test_a_change_and_its_rows_are_written_together(ada: User) -> None:
    assert service.record_with(
        renamed(ada, seen="ada@old.example"), [New(Group(name="a")), New(Group(name="b"))], leaf()
    )
    assert User.objects.get().email == "ada@new.example"
    assert {group.name for group in Group.objects.filter(name__in="ab")} == {"a", "b"}
    written = Leaf.objects.get()
    assert (written.act, service.intact(written)) == ("user.changed", True)


def test_they_are_one_statement_on_postgresql(ada: User) -> None:
    with CaptureQueriesContext(connection) as captured:
        service.record_with(renamed(ada, seen="ada@old.example"), [New(Group(name="a"))], leaf())
    begun = [query["sql"].split()[0] for query in captured]
    assert begun == (
        ["WITH"] if connection.vendor == "postgresql" else ["SAVEPOINT", "UPDATE", "INSERT", "INSERT", "RELEASE"]
    )


def test_nothing_is_written_when_the_row_is_not_any_more_what_it_was_seen_to_be(ada: User) -> None:
    told: list[Act] = []

    def hear(sender: object, act: Act, **kwargs: object) -> None:
        told.append(act)

    service.recorded.connect(hear)
    try:
        assert not service.record_with(renamed(ada, seen="ada@other.example"), [New(Group(name="a"))], leaf())
        assert not told
        assert service.record_with(renamed(ada, seen="ada@old.example"), [New(Group(name="b"))], leaf())
    finally:
        service.recorded.disconnect(hear)
    assert [act.act for act in told] == ["user.changed"]
    assert [group.name for group in Group.objects.filter(name__in="ab")] == ["b"]


@pytest.mark.parametrize("place", [0, 1])
def test_one_row_that_cannot_be_written_undoes_them_all(ada: User, place: int) -> None:
    Group.objects.create(name="taken")
    rows = [New(Group(name="free"))]
    rows.insert(place, New(Group(name="taken")))
    with pytest.raises(IntegrityError), transaction.atomic():
        service.record_with(renamed(ada, seen="ada@old.example"), rows, leaf())
    assert User.objects.get().email == "ada@old.example"
    assert not Group.objects.filter(name="free").exists()
    assert not Leaf.objects.exists()


def test_a_row_that_is_there_is_kept_or_replaced_as_asked(ada: User) -> None:
    for known, data in (("refuse", "first"), ("keep", "second"), ("replace", "third")):
        change = Change(ada, ["email"])
        assert write(change, [New(Session(session_key="k", session_data=data, expire_date=NOW), known)])  # type: ignore[arg-type]  # the words of `Known`
        assert Session.objects.get().session_data == {"keep": "first"}.get(known, data)


def test_what_is_none_was_seen_to_be_none(ada: User) -> None:
    User.objects.update(last_login=NOW)
    assert not write(Change(ada, ["email"], seen={"last_login": None}), [])
    assert write(Change(ada, ["email"], seen={"last_login": NOW}), [])


def test_a_change_is_made_once_and_read_with_what_stands_beside_it() -> None:
    group = Group.objects.create(name="beside")
    Session.objects.create(session_key="k", session_data="old", expire_date=NOW)
    changed, earlier = Session(session_key="k", session_data="new"), NOW - timedelta(seconds=1)
    change = Change(changed, ["session_data"], seen={"session_data": "old"}, later={"expire_date": earlier})
    values = change_and_read(change, SESSION, SELECT, ["beside"], number_of=Group)
    assert values is not None
    number, session, beside = next(values), SESSION.take(values), GROUP.read(values)
    assert (session.session_data, session.expire_date, beside) == ("new", NOW, group)
    assert Group.objects.create(name="next").pk > number > group.pk
    assert change_and_read(change, SESSION, SELECT, ["beside"], number_of=Group) is None
    again = read_beside(SESSION, "k", SELECT, ["nowhere"], number=7)
    assert (next(again), SESSION.take(again), GROUP.read(again)) == (7, session, None)
    with pytest.raises(Session.DoesNotExist):
        read_beside(SESSION, "other", SELECT, ["nowhere"], number=7)


@pytest.mark.parametrize("bound", [NOW, NOW + timedelta(microseconds=1)])
def test_a_change_does_not_apply_once_its_time_has_come(bound: datetime) -> None:
    Session.objects.create(session_key="k", session_data="old", expire_date=NOW)
    change = Change(Session(session_key="k", session_data="new"), ["session_data"], later={"expire_date": bound})
    assert change_and_read(change, SESSION, SELECT, [""], number_of=Group) is None
    assert Session.objects.get().session_data == "old"


def test_a_column_that_was_not_read_is_loaded_when_it_is_asked_for(ada: User) -> None:
    part = Part(User, "auth_user", "id", "username")
    with connection.cursor() as cursor:
        cursor.execute(worded("SELECT :part FROM auth_user", part=part))
        user = part.take(iter(cursor.fetchone()))
    assert "email" in user.get_deferred_fields()
    assert (user.username, user.email) == ("ada", "ada@old.example")


def test_a_row_that_selects_nothing_is_not_inserted() -> None:
    part = Part(Group, "auth_group", "id", "name")
    statement = worded(
        "INSERT INTO auth_group (name) SELECT username FROM auth_user WHERE username = %s RETURNING :part", part=part
    )
    assert insert_and_read(part, statement, ["ada"]) is None
    User.objects.create_user("ada")
    made = insert_and_read(part, statement, ["ada"])
    assert made is not None
    assert (made.name, made.pk) == ("ada", Group.objects.get(name="ada").pk)


def test_a_place_that_no_part_was_given_for_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        worded("SELECT :session, :other FROM changed", session=SESSION)
    assert worded("SELECT 'a'::text, :group", group=GROUP) == 'SELECT \'a\'::text, beside."id", beside."name"'
