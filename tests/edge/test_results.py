"""The log of late results: what readers get, in which order, and what it costs to keep."""

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.edge.results import Cursor, LateResult, ResultLog, Wanted


def read_all(log: ResultLog, cursor: Cursor) -> list[LateResult]:
    found = []
    while (result := log.read(cursor)) is not None:
        found.append(result)
    return found


@dataclass
class Reader:
    """Reads at times, breaks off at times, and remembers where it was as a client does."""

    cursor: Cursor
    epoch: str
    after: int
    seen: list[int] = field(default_factory=list)
    dropped: int = 0

    def read_one(self, log: ResultLog) -> None:
        result = log.read(self.cursor)
        self.dropped += self.cursor.dropped
        self.cursor.dropped = 0
        if result is not None:
            self.seen.append(result.sequence)
            self.after = result.sequence

    def reconnect(self, log: ResultLog) -> None:
        self.cursor = log.cursor(epoch=self.epoch, after=self.after)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 40)),
        st.tuples(st.just("read"), st.just(0)),
        st.tuples(st.just("reconnect"), st.just(0)),
    ),
    max_size=80,
)


@given(steps, st.integers(1, 12), st.integers(1, 200))
def test_nothing_is_skipped_unsaid(
    steps: list[tuple[str, int]], most_results: int, most_bytes: int
) -> None:
    log = ResultLog(most_results=most_results, most_bytes=most_bytes)
    reader = Reader(log.cursor(epoch=log.epoch, after=0), log.epoch, 0)
    for step, size in steps:
        match step:
            case "append":
                log.append("id", bytes(size))
            case "read":
                reader.read_one(log)
            case "reconnect":
                reader.reconnect(log)
        assert len(log) <= most_results
        assert log.size_bytes <= max(most_bytes, size) or len(log) <= 1
    while reader.cursor.at < log.last:
        reader.read_one(log)
    assert reader.seen == sorted(set(reader.seen))
    assert len(reader.seen) + reader.dropped == log.last
    missing = set(range(1, log.last + 1)) - set(reader.seen)
    assert len(missing) == reader.dropped


@given(st.lists(st.sampled_from("abc"), max_size=40), st.sampled_from("abc"))
def test_a_reader_gets_its_own_and_all_of_them(clients: list[str], mine: str) -> None:
    log = ResultLog()
    cursor = log.cursor(epoch="", after=0, wanted=Wanted(client_id=mine))
    for number, client in enumerate(clients):
        log.append(str(number), b"", client_id=client)
    expected = [str(number) for number, client in enumerate(clients) if client == mine]
    assert [result.request_id for result in read_all(log, cursor)] == expected
    assert cursor.at == log.last
    assert cursor.dropped == 0


def test_only_some_requests() -> None:
    log = ResultLog()
    for name in ("one", "two", "three"):
        log.append(name, b"")
    cursor = log.cursor(epoch="", after=0, wanted=Wanted(request_ids=frozenset({"two"})))
    assert [result.request_id for result in read_all(log, cursor)] == ["two"]


@pytest.mark.parametrize(
    ("epoch", "after", "expected"),
    [
        ("this", 0, ["a", "b"]),
        ("this", 1, ["b"]),
        ("this", 2, []),
        ("this", 3, ["a", "b"]),  # never given: a reader gone astray
        ("before", 2, ["a", "b"]),
        ("", 0, ["a", "b"]),
    ],
)
def test_where_reading_begins(epoch: str, after: int, expected: list[str]) -> None:
    log = ResultLog(epoch="this")
    log.append("a", b"")
    log.append("b", b"")
    cursor = log.cursor(epoch=epoch, after=after)
    assert [result.request_id for result in read_all(log, cursor)] == expected


def test_who_never_read_has_lost_nothing() -> None:
    log = ResultLog(most_results=2)
    for number in range(5):
        log.append(str(number), b"")
    assert log.cursor(epoch="", after=0).dropped == 0
    assert log.cursor(epoch=log.epoch, after=1).dropped == 2


def test_one_result_larger_than_the_log_is_kept_alone() -> None:
    log = ResultLog(most_bytes=10)
    cursor = log.cursor(epoch="", after=0)
    log.append("small", bytes(5))
    log.append("large", bytes(50))
    assert (len(log), log.size_bytes) == (1, 55)
    assert [result.request_id for result in read_all(log, cursor)] == ["large"]
    assert cursor.dropped == 1


def test_ids_take_room_as_well() -> None:
    log = ResultLog(most_bytes=100)
    log.append("i" * 60, b"", client_id="c" * 20)
    assert log.size_bytes == 80
    log.append("another", b"", client_id="c" * 20)
    assert (len(log), log.size_bytes) == (1, 27)


def test_every_log_has_an_epoch_of_its_own() -> None:
    assert ResultLog().epoch != ResultLog().epoch


async def test_waiting_readers_are_all_woken() -> None:
    log = ResultLog()
    cursors = [log.cursor(epoch="", after=0) for _ in range(3)]
    waiting = [asyncio.ensure_future(log.grown(cursor)) for cursor in cursors]
    await asyncio.sleep(0)  # lets them begin to wait
    assert not any(task.done() for task in waiting)
    log.append("one", b"")
    await asyncio.wait_for(asyncio.gather(*waiting), 20)
    assert [len(read_all(log, cursor)) for cursor in cursors] == [1, 1, 1]
    waiting = [asyncio.ensure_future(log.grown(cursor)) for cursor in cursors]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    log.close()
    await asyncio.wait_for(asyncio.gather(*waiting), 20)
