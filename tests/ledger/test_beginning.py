"""A log that lost entries ends, and another begins with what is left; nobody is led from one to the other unawares."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import DatabaseError, connection, transaction

from ledger import log_key, sequencing, service
from ledger.core.beginning import BEGUN_ANEW, verify_beginning
from ledger.core.checkpoint import Checkpoint, sign_checkpoint, verify_checkpoint
from ledger.core.note import parse_note, sign_note
from ledger.core.tree import verify_consistency
from ledger.errors import LogBusy, LogRefused, NotFound, ParseError, Refusal
from ledger.log_key import log_signer, log_verifier
from ledger.models import Checkpoint as Row
from ledger.models import Entry, Leaf, LogKey
from tests.ledger.conftest import NOW, OWNER, Acting

pytestmark = pytest.mark.django_db
REASON = "The database was restored from the backup of Tuesday."


@contextmanager
def lost_afterwards() -> Iterator[None]:
    """Let things happen that a restored database knows nothing of."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def closed() -> Row:
    made = service.sequence_all(now=NOW)
    assert made is not None
    return made


def seen_and_lost(acting: Acting) -> tuple[Row, Row]:
    """Return the newest checkpoint that is left, and a later one that somebody outside has kept."""
    acting(3)
    left = closed()
    with lost_afterwards():
        acting(2, owner=OWNER)
        seen = closed()
    return left, seen


def begin(seen: str | None = None, reason: str = REASON) -> str:
    return str(service.begin_log(seen=seen, by="user:ada", reason=reason, now=NOW).key)


def rows() -> list[object]:
    models = (Leaf, Entry, Row, LogKey)
    return [list(model.objects.order_by("pk").values()) for model in models]


def test_the_new_log_begins_with_what_is_left_and_with_an_entry_that_says_so(acting: Acting) -> None:
    left, seen = seen_and_lost(acting)
    before, kept = log_verifier(), rows()
    assert before is not None
    key = begin(seen.note)
    now_key = log_verifier()
    assert now_key is not None
    assert str(now_key) == key
    assert (now_key.name != before.name, now_key.public != before.public) == (True, True)

    entry = Entry.objects.select_related("leaf").get(index=left.size)  # right behind those that are left
    assert (entry.leaf.act, entry.leaf.actor) == (BEGUN_ANEW, "user:ada")
    said = verify_beginning(entry.leaf.detail)
    assert (said.key, said.before, said.reason, said.lost) == (now_key, before, REASON, seen.size - left.size)
    assert said.left == verify_checkpoint(parse_note(left.note), before)
    assert said.seen == verify_checkpoint(parse_note(seen.note), before)

    # Its first checkpoint is signed by the new key and goes on from the old one; nothing that was there has changed.
    head = verify_checkpoint(parse_note(service.newest_checkpoint().note), now_key)
    assert head.size == left.size + 2
    growth = service.prove_growth(left.size, head.size)
    verify_consistency(left.size, head.size, bytes(left.root), head.root, growth.path)
    for was, now in zip(kept, rows(), strict=True):
        assert isinstance(was, list)
        assert isinstance(now, list)
        assert now[: len(was)] == was


def test_the_new_log_goes_on_with_what_waited_and_may_end_again(acting: Acting) -> None:
    _, seen = seen_and_lost(acting)
    acting(4)  # recorded after the restore, before anybody noticed
    begin(seen.note)
    size = closed().size
    assert Entry.objects.filter(leaf__act="host.approved").count() == 7
    assert size == Entry.objects.count()
    third = begin()
    assert [str(key) for key in service.verifiers()][-1] == third
    assert len({key.name for key in service.verifiers()}) == 3
    assert [each.reason for each in service.beginnings()] == [REASON, REASON]


def test_what_forked_already_is_told_from_a_log_that_is_only_shorter(acting: Acting) -> None:
    """After the restore the log went on under numbers that others had seen taken, and grew past them."""
    acting(3)
    closed()
    with lost_afterwards():
        acting(2)
        seen = closed()
    acting(9)
    closed()
    begun = service.begin_log(seen=seen.note, by="user:ada", reason=REASON, now=NOW)
    assert begun.lost == 0
    assert begun.seen is not None
    assert begun.seen.size < begun.left.size


def test_a_log_that_lost_nothing_does_not_end_by_a_checkpoint_that_it_goes_on_from(acting: Acting) -> None:
    acting(3)
    first = closed()
    acting(2)
    newest = closed()
    before = rows()
    for note in (first.note, newest.note):
        with pytest.raises(LogRefused, match="none of them is gone"):
            begin(note)
    assert rows() == before


@pytest.mark.parametrize("kind", ["another key", "another name", "another log's", "unsigned", "noise"])
def test_a_checkpoint_that_this_log_has_not_signed_ends_nothing(kind: str, acting: Acting) -> None:
    _, seen = seen_and_lost(acting)
    signer, text = log_signer(now=NOW), parse_note(seen.note).untrusted_text
    other = log_key._new(7, NOW)[0]
    elsewhere = Checkpoint("guardhouse/other-00000000", 99, bytes(32))
    note = {
        "another key": str(sign_note(text, signer.origin, other.private)),
        "another name": str(sign_note(text, other.origin, signer.private)),
        "another log's": str(sign_note(elsewhere.text, signer.origin, signer.private)),
        "unsigned": f"{text}\n",
        "noise": "not a note at all",
    }[kind]
    before = rows()
    with pytest.raises(Refusal):
        begin(note)
    assert rows() == before


@pytest.mark.parametrize("reason", ["", "  \n ", "two\nlines", "a\x1b[2Jscreen", "x" * 2001])
def test_a_log_does_not_end_without_a_reason_that_can_be_read(reason: str, acting: Acting) -> None:
    _, seen = seen_and_lost(acting)
    before = rows()
    with pytest.raises(ParseError):
        begin(seen.note, reason)
    assert rows() == before


def test_a_log_that_has_signed_nothing_has_nothing_to_end(acting: Acting) -> None:
    with pytest.raises(NotFound):
        begin()
    acting()
    with pytest.raises(NotFound):
        begin()
    assert not LogKey.objects.exists()


def test_a_key_of_the_ended_log_signs_nothing_more_even_where_it_is_still_open(acting: Acting) -> None:
    """Another node has the key in its memory, and was not told."""
    _, seen = seen_and_lost(acting)
    stale = log_signer(now=NOW)
    acting(2)
    begin(seen.note)
    batch = sequencing._batch(Entry.objects.count(), sequencing._waiting(None), stale, NOW)
    log_key._Opened.signer = stale
    assert sequencing._write(batch) is False
    made = service.sequence(now=NOW)
    assert made is not None
    key = log_verifier()
    assert key is not None
    assert verify_checkpoint(parse_note(made.note), key).size == made.size
    log_key._Opened.signer = stale
    assert service.sequence(now=NOW) is None  # nothing waits, and it is dropped all the same
    assert log_signer(now=NOW).number == stale.number + 1


def test_when_another_node_was_faster_nothing_has_begun(acting: Acting, monkeypatch: pytest.MonkeyPatch) -> None:
    _, seen = seen_and_lost(acting)
    before = rows()
    monkeypatch.setattr(sequencing, "_alone", lambda: False)
    with pytest.raises(LogBusy):
        begin(seen.note)
    assert rows() == before
    assert log_signer(now=NOW).number == 1


def test_the_database_refuses_to_change_a_beginning(acting: Acting) -> None:
    _, seen = seen_and_lost(acting)
    begin(seen.note)
    leaf = Leaf.objects.get(act=BEGUN_ANEW)
    for statement in ("UPDATE ledger_leaf SET detail = '{}' WHERE id = %s", "DELETE FROM ledger_leaf WHERE id = %s"):
        with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement, [leaf.pk])
    (begun,) = service.beginnings()
    assert begun.beginning is not None


def test_a_beginning_that_says_what_the_log_before_had_not_signed_is_none(acting: Acting) -> None:
    _, seen = seen_and_lost(acting)
    begin(seen.note)
    detail = Leaf.objects.get(act=BEGUN_ANEW).detail
    other = log_key._new(7, NOW)[0]
    forged = str(sign_checkpoint(Checkpoint(other.origin, 5, bytes(32)), other.private))
    changed = [
        {"left": forged},
        {"seen": forged},
        {"before": str(other.verifier)},
        {"key": detail["before"], "name": detail["before"].partition("+")[0]},
        {"name": "guardhouse/other-00000000"},
        {"reason": ""},
        {"reason": 7},
        {"left": None},
        {"more": 1},
    ]
    for each in changed:
        with pytest.raises(Refusal):
            verify_beginning({**detail, **each})
    for name in detail:
        with pytest.raises(Refusal):
            verify_beginning({key: value for key, value in detail.items() if key != name})
    noises: tuple[object, ...] = (None, [], "x", 7)
    for noise in noises:
        with pytest.raises(Refusal):
            verify_beginning(noise)
