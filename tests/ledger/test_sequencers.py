"""Several sequencers at once, as nodes are, and a long transaction among short ones; and the loop that does it all."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from threading import Barrier, Event, Thread
from threading import enumerate as enumerate_threads

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.dispatch import Signal

from ledger import sequencer, service, serving
from ledger.core.tree import GrowingTree
from ledger.models import Checkpoint, Entry, Leaf
from ledger.sequencing import MOST
from tests.ledger.conftest import NOW, Acting, act

AT_ONCE = pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has one writer at a time")
ROUNDS, NODES, WRITERS = 30, 3, 3


def in_thread(work: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        try:
            work()
        finally:
            connection.close()

    return run


def heads_are_true() -> bool:
    leaves = [bytes.fromhex(entry.hash) for entry in Entry.objects.order_by("index")]
    tree = GrowingTree()
    for checkpoint in Checkpoint.objects.order_by("size"):
        tree.add_all(leaves[tree.size : checkpoint.size])
        if tree.head() != bytes(checkpoint.root):
            return False
    return tree.size == len(leaves)


@AT_ONCE
@pytest.mark.django_db(transaction=True)
def test_a_leaf_of_a_long_transaction_is_sequenced_after_leaves_with_higher_numbers() -> None:
    recorded, sequenced = Event(), Event()

    def slow() -> None:
        with transaction.atomic():
            service.record(actor="system", act="slow", subject="x:1", detail={}, now=NOW)
            recorded.set()
            assert sequenced.wait(20)

    thread = Thread(target=in_thread(slow))
    thread.start()
    assert recorded.wait(20)
    (fast,) = act()
    service.sequence_all(now=NOW)
    assert Entry.objects.filter(leaf=fast).exists()
    sequenced.set()
    thread.join()
    slow_leaf = Leaf.objects.get(act="slow")
    assert slow_leaf.pk < fast.pk
    assert service.sequence(now=NOW) is not None
    assert Entry.objects.get(leaf=slow_leaf).index > Entry.objects.get(leaf=fast).index
    assert heads_are_true()


@AT_ONCE
@pytest.mark.django_db(transaction=True)
def test_nodes_that_sequence_while_others_write_give_every_leaf_one_place() -> None:
    barrier = Barrier(NODES + WRITERS)

    def writes() -> None:
        barrier.wait()
        for _ in range(ROUNDS):
            act(2, owner="a" * 64)

    def sequences() -> None:
        barrier.wait()
        for _ in range(ROUNDS):
            service.sequence(now=NOW)

    with ThreadPoolExecutor(NODES + WRITERS) as pool:
        for done in [pool.submit(in_thread(work)) for work in (writes, sequences) for _ in range(3)]:
            done.result()
    service.sequence_all(now=NOW)
    assert Leaf.objects.filter(act="host.approved").count() == ROUNDS * WRITERS * 2
    assert not Leaf.objects.filter(entry__isnull=True).exists()
    assert heads_are_true()


@AT_ONCE
@pytest.mark.django_db(transaction=True)
def test_the_loop_goes_on_until_it_is_told_to_stop() -> None:
    (leaf,) = act()
    stop = Event()
    thread = Thread(target=sequencer.run, args=(stop,))
    thread.start()
    deadline = time.monotonic() + 20
    while not Entry.objects.filter(leaf=leaf).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert Entry.objects.filter(leaf=leaf).exists()


@pytest.mark.django_db
def test_a_loop_that_fails_says_so_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stop, calls = Event(), []

    def breaks(**kwargs: object) -> None:
        calls.append(kwargs)
        if len(calls) == 2:
            stop.set()
            return
        raise ConnectionError("the database is away")

    monkeypatch.setattr(sequencer, "sequence", breaks)
    monkeypatch.setattr(sequencer, "PAUSE_SECONDS", 0)
    monkeypatch.setattr("django.db.backends.base.base.BaseDatabaseWrapper.close", lambda self: None)
    sequencer.run(stop)
    assert "the database is away" in caplog.text
    assert [each["everywhere"] for each in calls] == [True, True]  # what failed is not counted as looked through


@pytest.mark.django_db
@pytest.mark.parametrize(("sizes", "pauses"), [([200, 201, 204], 3), ([MOST + 1, 2 * MOST + 2, 2 * MOST + 9], 1)])
def test_a_loop_pauses_after_each_batch_but_a_full_one(
    sizes: list[int], pauses: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [Checkpoint(size=size) for size in sizes]
    paused: list[float] = []

    class Stop(Event):
        def wait(self, timeout: float | None = None) -> bool:
            paused.append(timeout or 0)
            if not made:
                self.set()
            return self.is_set()

    monkeypatch.setattr(sequencer, "sequence", lambda **kwargs: made.pop(0) if made else None)
    monkeypatch.setattr("django.db.backends.base.base.BaseDatabaseWrapper.close", lambda self: None)
    sequencer.run(Stop())
    assert len(paused) == pauses


@pytest.mark.django_db
def test_the_command_puts_in_what_waits(acting: Acting) -> None:
    acting(3)
    said = StringIO()
    call_command("sequence", "--once", stdout=said)
    call_command("sequence", "--once", stdout=said)
    assert said.getvalue() == "The log has 6 entries.\nNothing waits.\n"


def test_a_process_sequences_only_where_it_is_set_up_to_and_once_it_serves(
    settings: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr(sequencer, "run", lambda stop: started.append("run"))
    begun = Signal()
    monkeypatch.setattr(serving, "request_started", begun)
    settings.SEQUENCER = "command"  # type: ignore[attr-defined]  # pytest-django's
    serving.sequence_when_serving()
    begun.send(sender=None)
    assert not started
    settings.SEQUENCER = "thread"  # type: ignore[attr-defined]  # pytest-django's
    serving.sequence_when_serving()
    assert not started
    begun.send(sender=None)
    for thread in [each for each in enumerate_threads() if each.name == "sequencer"]:
        thread.join(10)
    assert started == ["run"]
