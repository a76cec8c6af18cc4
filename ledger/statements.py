"""Statements written once for both databases: wide reads, a change with what is read beside it, and one with rows.

PostgreSQL does either in a single statement, which is its own transaction. SQLite has no such statement; there the
same parts follow one another in a transaction. Tables, columns and values are those of the models, so that there is no
second description of a row. The text of a statement holds names of the models only; every value is a parameter.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS, connection, connections, transaction
from django.db.models import CharField, Field, Model, TextField
from django.db.models.base import ModelState

Row = TypeVar("Row", bound=Model)
Column: TypeAlias = "Field[Any, Any]"
Columns: TypeAlias = "tuple[Field[Any, Any], ...]"
Converters = Sequence[tuple[int, Callable[[Any], Any]]]
Known = Literal["refuse", "keep", "replace"]


@dataclass(frozen=True, slots=True)
class Change:
    """Some `fields` of a row as they shall be, provided that others still are as they were `seen`, or later."""

    row: Model
    fields: Sequence[str]
    seen: Mapping[str, object] = field(default_factory=dict)
    later: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class New:
    """A row to be written; `known` says what becomes of it when its key is there already."""

    row: Model
    known: Known = "refuse"


class Part(Generic[Row]):
    """Some columns of one table in a wider SELECT; what is left out is loaded when somebody asks for it."""

    def __init__(self, model: type[Row], alias: str, *names: str) -> None:
        self.model, self._alias = model, alias
        self.fields: Columns = tuple(each for each in model._meta.concrete_fields if each.attname in names)
        self._names = [each.attname for each in self.fields]
        self._key = self._names.index(_key(model).attname)

    def __str__(self) -> str:
        return ", ".join(f'{self._alias}."{each.column}"' for each in self.fields)

    def read(self, values: Iterator[Any]) -> Row | None:
        """Take this part off a row that was fetched; None where an outer join found nothing."""
        mine = [next(values) for _ in self._names]
        if mine[self._key] is None:
            return None
        for place, convert in _converters(self.fields, connection.vendor):
            mine[place] = convert(mine[place])
        return self._row(mine)

    def _row(self, values: Sequence[Any]) -> Row:
        """Make what `Model.from_db` makes, without signals, which nobody hears, and without a call for each field."""
        row = self.model.__new__(self.model)
        row._state = ModelState()
        row._state.adding, row._state.db = False, DEFAULT_DB_ALIAS
        row.__dict__.update(zip(self._names, values, strict=True))
        return row

    def take(self, values: Iterator[Any]) -> Row:
        """Take this part off a row that was fetched and has it."""
        found = self.read(values)
        if found is None:
            raise self.model.DoesNotExist  # type: ignore[attr-defined]  # every model has it
        return found


def worded(text: str, **parts: Part[Any]) -> str:
    """Return a statement in which each `:name` has become that part's columns; nothing but parts can be put in.

    Raises `KeyError` for a name that no part was given for.
    """
    return _PLACE.sub(lambda place: str(parts[place[1]]), text)


_PLACE: Final = re.compile(r"(?<!:):([a-z]+)")


def change_and_read(
    change: Change, part: Part[Row], select: str, values: Sequence[Any], *, number_of: type[Model]
) -> Iterator[Any] | None:
    """Make the change and read a row beside it; None, with nothing changed, when the change does not apply.

    `select` reads the `part` of the changed row from a table called `changed`. Its first column, `{number}`, is the key
    for a new row of `number_of`; one that is not used leaves a gap.
    """
    if connection.vendor == "postgresql":
        given = _Values()
        update = _update(change, given)
        source = f"{update} RETURNING {_list(part.fields)}"
        statement = f"WITH changed AS ({source}) {select.format(number=_next_value(number_of))}"
        return _fetched(statement, [*given.taken, *_adapted(values)])
    with transaction.atomic():
        if not _changed(change):
            return None
        return read_beside(part, change.row.pk, select, values, number=_next_number(number_of))


def read_beside(part: Part[Row], key: object, select: str, values: Sequence[Any], *, number: int) -> Iterator[Any]:
    """Read what `change_and_read` reads of a row, which has to be there; `number` was taken before."""
    given = _Values()
    column = _key(part.model)
    condition = f'"{column.column}" = {given.add(column, key)}'
    source = f'SELECT {_list(part.fields)} FROM "{part.model._meta.db_table}" WHERE {condition}'  # noqa: S608  names of models; see above
    statement = f"WITH changed AS ({source}) {select.format(number='%s')}"
    found = _fetched(statement, [*given.taken, number, *_adapted(values)])
    if found is None:
        raise part.model.DoesNotExist  # type: ignore[attr-defined]  # every model has it
    return found


def read(select: str, values: Sequence[Any]) -> Iterator[Any] | None:
    """Read the first row of a SELECT of parts; None when there is none."""
    return _fetched(select, _adapted(values))


def read_numbered(select: str, values: Sequence[Any], *, number_of: type[Model]) -> list[Iterator[Any]]:
    """Read the rows of a SELECT of parts from `numbered`, a table of one row.

    Its column `number` is the key for a new row of `number_of`; one that is not used leaves a gap.
    """
    number = f"SELECT {_next_value(number_of)} AS number"
    given: Sequence[Any] = _adapted(values)
    if connection.vendor != "postgresql":
        number, given = "SELECT %s AS number", [_next_number(number_of), *given]
    with connection.cursor() as cursor:
        cursor.execute(f"WITH numbered AS ({number}) {select}", given)
        return [iter(row) for row in cursor.fetchall()]


def locking(alias: str) -> str:
    """Return what ends a SELECT whose rows of one table are to be held until the transaction ends.

    Nothing where transactions wait for one another by themselves.
    """
    return f" FOR UPDATE OF {alias}" if connection.features.has_select_for_update_of else ""


def insert_and_read(part: Part[Row], statement: str, values: Sequence[Any]) -> Row | None:
    """Insert what an `INSERT … SELECT … RETURNING` of that part selects; None when it selects nothing."""
    found = _fetched(statement, _adapted(values))
    return None if found is None else part.take(found)


def write(change: Change | None, rows: Sequence[New], *, then: Callable[[], object] | None = None) -> bool:
    """Make the change, if there is one, and write the rows, all or nothing.

    False, with nothing written, when the change does not apply.

    `then` is called once everything is written: inside the transaction where there is one, else after the commit.
    """
    if connection.vendor == "postgresql":
        written = _in_one(change, rows)
        if written and then is not None:
            then()
        return written
    with transaction.atomic():
        if change is not None and not _changed(change):
            return False
        for new in rows:
            given = _Values()
            _execute(_insert(new, "VALUES ({given})", given), given.taken)
        if then is not None:
            then()
        return True


def _in_one(change: Change | None, rows: Sequence[New]) -> bool:
    given = _Values()
    begin = "SELECT 1 AS one" if change is None else f"{_update(change, given)} RETURNING 1 AS one"
    parts = [f"WITH changed AS ({begin})"]
    for number, new in enumerate(rows):
        insert = _insert(new, "SELECT {given} FROM changed", given)
        parts.append(f", row{number} AS ({insert})")
    return _fetched("".join([*parts, " SELECT one FROM changed"]), given.taken) is not None


def _changed(change: Change) -> bool:
    given = _Values()
    return _execute(_update(change, given), given.taken) == 1


def _execute(statement: str, values: Sequence[Any]) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return int(cursor.rowcount)


def _adapted(values: Sequence[Any]) -> list[object]:
    """Return values that belong to no column as the database takes them."""
    hexadecimal = not connection.features.has_native_uuid_field
    return [
        value.hex if hexadecimal and isinstance(value, UUID) else connection.ops.adapt_unknown_value(value)
        for value in values
    ]


def _fetched(statement: str, values: Sequence[Any]) -> Iterator[Any] | None:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        found = cursor.fetchone()
    return None if found is None else iter(found)


class _Values:
    """The values of one statement as the database takes them, in the order in which the text speaks of them."""

    def __init__(self) -> None:
        self.taken: list[object] = []
        self._database = connections[DEFAULT_DB_ALIAS]  # `connection` would be looked up anew for each value

    def add(self, column: Column, value: object) -> str:
        """Take a value and return what stands for it in the text."""
        if type(value) is str and isinstance(column, (CharField, TextField)):  # most are, and text is as it is
            self.taken.append(value)
            return "%s"
        prepared = column.get_db_prep_save(value, self._database)
        if prepared is None:
            return "NULL"
        self.taken.append(prepared)
        return "%s"


def _update(change: Change, given: _Values) -> str:
    model, row = type(change.row), change.row
    to_set = [_term(_column(model, name), "=", getattr(row, name), given) for name in change.fields]
    conditions = [_term(_key(model), "=", row.pk, given)]
    for name, seen in change.seen.items():
        conditions.append(_term(_column(model, name), "=" if seen is not None else "IS", seen, given))
    for name, bound in change.later.items():
        conditions.append(_term(_column(model, name), ">", bound, given))
    table = model._meta.db_table
    return f'UPDATE "{table}" SET {", ".join(to_set)} WHERE {" AND ".join(conditions)}'  # noqa: S608  names of models; see above


def _term(column: Column, sign: str, value: object, given: _Values) -> str:
    return f'"{column.column}" {sign} {given.add(column, value)}'


def _insert(new: New, source: str, given: _Values) -> str:
    fields, head, tail = _frame(type(new.row), new.row.pk is None, new.known)
    values = [given.add(each, getattr(new.row, each.attname)) for each in fields]
    return head + source.format(given=", ".join(values)) + tail


@cache
def _frame(model: type[Model], numbered: bool, known: Known) -> tuple[Columns, str, str]:
    """Return the columns of a new row with what stands before and after its values.

    The key is not one of the columns where the database is to number the row.
    """
    key = _key(model).column
    fields = tuple(each for each in model._meta.concrete_fields if not (numbered and each.primary_key))
    others = ", ".join(f'"{each.column}" = excluded."{each.column}"' for each in fields if not each.primary_key)
    tail = {
        "refuse": "",
        "keep": f' ON CONFLICT ("{key}") DO NOTHING',
        "replace": f' ON CONFLICT ("{key}") DO UPDATE SET {others}',
    }
    return fields, f'INSERT INTO "{model._meta.db_table}" ({_list(fields)}) ', tail[known]


def _list(fields: Columns) -> str:
    return ", ".join(f'"{each.column}"' for each in fields)


@cache
def _column(model: type[Model], attname: str) -> Column:
    (found,) = (each for each in model._meta.concrete_fields if each.attname == attname)
    return found


@cache
def _key(model: type[Model]) -> Column:
    (found,) = (each for each in model._meta.concrete_fields if each.primary_key)
    return found


@cache
def _converters(fields: Columns, vendor: str) -> Converters:
    """Return what turns a database's own values into a model's, and where in a row they are; `vendor` is the key."""
    return [
        (place, _bound(convert, column))
        for place, each in enumerate(fields)
        for column in (each.get_col(each.model._meta.db_table),)
        for convert in (*connection.ops.get_db_converters(column), *each.get_db_converters(connection))
    ]


def _bound(convert: Callable[[Any, Any, Any], Any], column: object) -> Callable[[Any], Any]:
    return lambda value: convert(value, column, connection)


def _next_value(model: type[Model]) -> str:
    return f"nextval(pg_get_serial_sequence('{model._meta.db_table}', '{_key(model).column}'))"


def _next_number(model: type[Model]) -> int:
    """Do in SQLite what `nextval` does: take the key that AUTOINCREMENT would give to the next row."""
    table = model._meta.db_table
    found = _fetched("UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = %s RETURNING seq", [table])
    if found is not None:
        return int(next(found))
    _execute("INSERT INTO sqlite_sequence (name, seq) VALUES (%s, 1)", [table])
    return 1
