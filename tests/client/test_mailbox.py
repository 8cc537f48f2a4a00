"""Each final answer once, and one to every request that was promised one."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hybridge.client import mailbox as mailbox_module
from hybridge.client.answer import Answer
from hybridge.client.mailbox import RESTARTED, UNREADABLE, Mailbox


def provisional(request_id: str, *, epoch: str = "A", follow_ms: float = 5_000.0) -> Answer:
    """A first answer that another will follow, unless the epoch is empty."""
    return Answer(
        request_id=request_id,
        labels=("cat",),
        probabilities=np.array([0.4, 0.6], np.float32),
        plan="local",
        confidence=0.6,
        provisional=True,
        fallback="cloud late",
        sent_bytes=10,
        total_ms=90.0,
        budget_ms=100.0,
        within_budget=True,
        steps_ms={},
        round_trip_ms=95.0,
        results_epoch=epoch,
        follow_ms=follow_ms,
    )


def final(request_id: str) -> Answer:
    return replace(
        provisional(request_id, epoch=""), plan="cloud:raw", provisional=False, fallback="",
        final=True, round_trip_ms=0.0,
    )  # fmt: skip


def open_in(mailbox: Mailbox, epoch: str) -> None:
    """Another stream, of an edge with this log."""
    mailbox.opening()
    mailbox.opened(epoch)


def following(*request_ids: str, epoch: str = "A") -> Mailbox:
    """A mailbox that has been promised final answers to these."""
    mailbox = Mailbox()
    open_in(mailbox, epoch)
    for request_id in request_ids:
        mailbox.ask(request_id, now_s=1.0)
        mailbox.answered(provisional(request_id, epoch=epoch))
    return mailbox


def test_a_final_answer_is_handed_out_once() -> None:
    mailbox = following("one")
    assert (mailbox.outstanding, mailbox.expects("one"), mailbox.holds("one")) == (1, True, False)
    mailbox.deliver(final("one"), now_s=3.0)
    mailbox.deliver(final("one"), now_s=4.0)
    assert (mailbox.outstanding, mailbox.expects("one"), mailbox.holds("one")) == (0, False, True)
    taken = mailbox.take("one")
    assert taken is not None
    assert (taken.plan, taken.round_trip_ms) == ("cloud:raw", 2_000.0)
    mailbox.deliver(final("one"), now_s=5.0)
    assert mailbox.take("one") is None
    assert mailbox.take_next() is None


def test_a_final_answer_quicker_than_the_provisional_one() -> None:
    mailbox = Mailbox()
    mailbox.opened("A")
    mailbox.ask("one", now_s=1.0)
    mailbox.deliver(final("one"), now_s=2.0)
    mailbox.answered(provisional("one"))
    assert mailbox.outstanding == 0
    assert mailbox.take("one") is not None


def test_requests_that_get_no_final_answer_wait_for_none() -> None:
    mailbox = Mailbox()
    mailbox.ask("answered", now_s=1.0)
    mailbox.answered(provisional("answered", epoch=""))
    mailbox.ask("failed", now_s=1.0)
    mailbox.withdraw("failed")
    assert not mailbox.expects("answered")
    assert not mailbox.expects("failed")
    mailbox.deliver(final("failed"), now_s=2.0)  # the edge had got it all the same
    assert mailbox.take_next() is not None


def test_who_waits_by_name_comes_before_who_takes_any() -> None:
    mailbox = following("one", "two")
    mailbox.claim("one")
    mailbox.claim("one")
    for name in ("one", "two"):
        mailbox.deliver(final(name), now_s=2.0)
    assert mailbox.has_next
    taken = mailbox.take_next()
    assert taken is not None
    assert taken.request_id == "two"
    mailbox.release("one")
    assert not mailbox.has_next
    assert mailbox.take_next() is None
    mailbox.release("one")
    assert mailbox.take_next() is not None


def test_a_restarted_edge_owes_nothing_and_says_so() -> None:
    mailbox = following("one", "two")
    mailbox.sequence = 7
    mailbox.deliver(final("two"), now_s=2.0)
    open_in(mailbox, "B")
    assert (mailbox.epoch, mailbox.sequence, mailbox.outstanding) == ("B", 0, 0)
    lost = mailbox.take("one")
    assert lost is not None
    assert (lost.final, lost.fallback, lost.final_follows) == (True, RESTARTED, False)
    assert (lost.labels, lost.round_trip_ms) == (("cat",), 95.0)
    came = mailbox.take("two")
    assert came is not None
    assert came.fallback == ""


def test_an_answer_of_an_edge_that_was_restarted_since() -> None:
    mailbox = following()
    mailbox.ask("one", now_s=1.0)
    open_in(mailbox, "B")
    mailbox.answered(provisional("one", epoch="A"))
    lost = mailbox.take("one")
    assert lost is not None
    assert lost.fallback == RESTARTED


def test_an_answer_of_an_edge_not_yet_watched() -> None:
    mailbox = following()
    mailbox.ask("one", now_s=1.0)
    mailbox.answered(provisional("one", epoch="B"))  # the stream still hangs on the old edge
    assert mailbox.outstanding == 1
    open_in(mailbox, "B")
    assert mailbox.outstanding == 1


def test_a_stream_that_opens_late_on_an_edge_restarted_since() -> None:
    mailbox = Mailbox()
    mailbox.opening()
    mailbox.ask("one", now_s=1.0)
    mailbox.answered(provisional("one", epoch="B"))
    mailbox.opened("A")  # begun before that answer came: A is the older one
    assert mailbox.outstanding == 1
    open_in(mailbox, "B")
    assert mailbox.outstanding == 1
    mailbox.deliver(final("one"), now_s=2.0)
    taken = mailbox.take("one")
    assert taken is not None
    assert taken.plan == "cloud:raw"


def test_an_edge_restarted_before_it_was_ever_watched() -> None:
    mailbox = Mailbox()
    mailbox.opening()
    mailbox.ask("one", now_s=1.0)
    mailbox.answered(provisional("one", epoch="A"))
    assert not mailbox.doubtful
    mailbox.opened("B")  # older or younger than A?
    assert mailbox.outstanding == 1
    assert mailbox.doubtful
    open_in(mailbox, "B")
    assert not mailbox.doubtful
    lost = mailbox.take("one")
    assert lost is not None
    assert lost.fallback == RESTARTED


def test_a_final_answer_that_cannot_be_read() -> None:
    mailbox = following("one")
    mailbox.lose("one", UNREADABLE)
    mailbox.lose("unknown", UNREADABLE)
    lost = mailbox.take("one")
    assert lost is not None
    assert (lost.final, lost.fallback) == (True, UNREADABLE)
    assert mailbox.take_next() is None


def test_how_long_the_edge_may_take() -> None:
    mailbox = following()
    assert mailbox.longest_ms == 0.0
    for name, follow_ms in (("one", 700.0), ("two", 300.0)):
        mailbox.ask(name, now_s=1.0)
        mailbox.answered(provisional(name, follow_ms=follow_ms))
    assert mailbox.longest_ms == 700.0


@pytest.mark.parametrize("most", [1, 5])
def test_what_nobody_fetches_does_not_grow(most: int) -> None:
    mailbox = Mailbox(most_waiting=most, most_seen=most)
    mailbox.opened("A")
    for number in range(20):
        mailbox.ask(f"asked {number}", now_s=1.0)
        mailbox.answered(provisional(f"asked {number}"))
        mailbox.deliver(final(f"came {number}"), now_s=2.0)
    assert mailbox.outstanding == most
    assert mailbox.dropped == 20 - most
    kept = []
    while (taken := mailbox.take_next()) is not None:
        kept.append(taken.request_id)
    assert kept == [f"came {number}" for number in range(20 - most, 20)]


def test_restarts_of_an_edge_are_not_remembered_for_ever() -> None:
    mailbox = Mailbox()
    for number in range(1_000):
        open_in(mailbox, str(number))
    assert len(mailbox._past_epochs) == mailbox_module._MOST_EPOCHS
    mailbox.ask("late", now_s=1.0)
    mailbox.answered(provisional("late", epoch="998"))
    lost = mailbox.take_next()
    assert lost is not None
    assert lost.fallback == RESTARTED


IDS = st.sampled_from("abcdef")


class Exchange(RuleBasedStateMachine):
    """An edge that delivers at least once, in any order, and is restarted now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.mailbox = Mailbox()
        self.epoch = 1
        open_in(self.mailbox, "1")
        self.promised: dict[str, int] = {}
        self.fetched: list[str] = []
        self.used: set[str] = set()

    @precondition(lambda self: len(self.used) < 200)
    @rule()
    def ask(self) -> None:
        name = str(len(self.used))
        self.used.add(name)
        self.mailbox.ask(name, now_s=1.0)
        self.mailbox.answered(provisional(name, epoch=str(self.epoch)))
        self.promised[name] = self.epoch

    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        here = sorted(name for name, epoch in self.promised.items() if epoch == self.epoch)
        if here:
            for _ in range(data.draw(st.integers(1, 3))):
                self.mailbox.deliver(final(data.draw(st.sampled_from(here))), now_s=2.0)

    @rule()
    def restart(self) -> None:
        self.epoch += 1
        open_in(self.mailbox, str(self.epoch))

    @rule()
    def reconnect(self) -> None:
        open_in(self.mailbox, str(self.epoch))

    @rule()
    def fetch(self) -> None:
        taken = self.mailbox.take_next()
        if taken is not None:
            self.fetched.append(taken.request_id)

    @invariant()
    def nothing_twice(self) -> None:
        assert len(self.fetched) == len(set(self.fetched))

    def teardown(self) -> None:
        for name, epoch in self.promised.items():
            if epoch == self.epoch:
                self.mailbox.deliver(final(name), now_s=3.0)
        while (taken := self.mailbox.take_next()) is not None:
            self.fetched.append(taken.request_id)
        assert sorted(self.fetched) == sorted(self.promised)


TestExchange = Exchange.TestCase


@given(st.lists(IDS, max_size=30))
def test_whatever_is_sent_twice_comes_once(sent: list[str]) -> None:
    mailbox = following(*"abcdef")
    for name in sent:
        mailbox.deliver(final(name), now_s=2.0)
    taken = []
    while (each := mailbox.take_next()) is not None:
        taken.append(each.request_id)
    assert taken == list(dict.fromkeys(sent))
