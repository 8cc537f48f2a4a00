import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridge.edge.audit import Audit, AuditSettings
from hybridge.shared.binomial import at_most
from hybridge.shared.cascade import Level
from hybridge.shared.errors import ConfigError

ANSWERS = st.lists(st.booleans(), max_size=300)


def audit(*, alpha: float = 0.05, delta: float = 0.05, share: float = 0.02) -> Audit:
    return Audit(Level(alpha), AuditSettings(share=share, delta=delta))


def watched(watcher: Audit, *, rate: float, answers: int, seed: random.Random) -> int | None:
    """How many answers it took to an alarm."""
    for number in range(1, answers + 1):
        watcher.observe(seed.random() >= rate)
        if watcher.alarm:
            return number
    return None


@pytest.mark.parametrize("rate", [0.05, 0.04])
def test_false_alarms_are_as_rare_as_promised(rate: float) -> None:
    seed, runs, delta = random.Random(7), 120, 0.1
    alarms = sum(
        watched(audit(delta=delta), rate=rate, answers=1500, seed=seed) is not None
        for _ in range(runs)
    )
    # If each run raised one with probability delta, more would happen once in 100,000 times.
    allowed = next(k for k in range(runs) if at_most(k, runs, delta) > 1 - 1e-5)
    assert alarms <= allowed


def test_no_answer_is_expected_to_gain() -> None:
    # At a rate of alpha each further answer leaves the expected fortune as it is, at any moment.
    watcher = audit(alpha=0.05)
    for agreed in (True, False, True, True):
        watcher.observe(agreed)
    worth = []
    for agreed in (False, True):
        again = audit(alpha=0.05)
        for each in (True, False, True, True, agreed):
            again.observe(each)
        worth.append(again.evidence)
    assert 0.05 * worth[0] + 0.95 * worth[1] == pytest.approx(watcher.evidence, rel=1e-12)


@settings(deadline=None)
@given(ANSWERS, st.floats(0.001, 0.5))
def test_over_all_futures_the_fortune_stays_one(answers: list[bool], alpha: float) -> None:
    watcher = Audit(Level(alpha), AuditSettings(delta=1e-300))
    assert watcher.evidence == 1.0
    for agreed in answers[:20]:
        before = watcher.evidence
        watcher.observe(agreed)
        assert watcher.evidence > 0
        # An answer that agrees never speaks against the promise.
        assert not agreed or watcher.evidence <= before * (1 + 1e-12)


@pytest.mark.parametrize(
    ("good", "rate", "at_most_answers"), [(0, 0.25, 120), (2000, 0.25, 250), (2000, 0.5, 80)]
)
def test_a_change_is_noticed(good: int, rate: float, at_most_answers: int) -> None:
    # alpha 5 %, 2 % before the change
    found = []
    for number in range(20):
        seed, watcher = random.Random(number), audit(delta=0.01)
        assert watched(watcher, rate=0.02, answers=good, seed=seed) is None
        delay = watched(watcher, rate=rate, answers=2000, seed=seed)
        assert delay is not None
        found.append(delay)
    assert sorted(found)[len(found) // 2] <= at_most_answers


def test_an_alarm_stays_until_it_is_acknowledged() -> None:
    watcher = audit()
    for _ in range(20):
        watcher.observe(False)
    alarm = watcher.alarm
    assert alarm is not None
    assert alarm.evidence >= 20
    assert "audited answers differ from the large model's, where at most 0.05 may" in str(alarm)
    for _ in range(10_000):
        watcher.observe(True)
    assert watcher.alarm is alarm
    watcher.reset()
    assert watcher.alarm is None
    assert (watcher.evidence, watcher.estimate().audited) == (1.0, 0)
    watcher.observe(True)
    assert watcher.alarm is None


@settings(deadline=None)
@given(st.floats(0.001, 1), st.lists(st.floats(0, 0.999), max_size=400))
def test_never_more_than_the_share(share: float, draws: list[float]) -> None:
    watcher, wanted = audit(share=share), 0
    for number, draw in enumerate(draws, start=1):
        wanted += watcher.wants(draw)
        assert wanted <= share * number


def test_about_the_share_is_taken() -> None:
    watcher, seed = audit(share=0.02), random.Random(1)
    wanted = sum(watcher.wants(seed.random()) for _ in range(50_000))
    assert 0.9 * 1000 <= wanted <= 1000


def test_acknowledging_frees_no_budget() -> None:
    watcher = audit(share=0.5)
    assert [watcher.wants(0.0) for _ in range(4)] == [False, True, False, True]
    watcher.reset()
    assert [watcher.wants(0.0) for _ in range(4)] == [False, True, False, True]


@settings(deadline=None)
@given(ANSWERS)
def test_the_interval_holds_the_estimate(answers: list[bool]) -> None:
    watcher = audit()
    for agreed in answers:
        watcher.observe(agreed)
    found = watcher.estimate()
    assert (found.audited, found.differed) == (len(answers), answers.count(False))
    assert 0 <= found.low <= found.rate <= found.high <= 1
    if found.differed == 0:
        assert found.low == 0


def test_the_interval_narrows_and_holds_the_truth_at_every_moment() -> None:
    missed = 0
    for number in range(40):
        seed, watcher, held = random.Random(number), audit(delta=0.1), True
        for at in range(1, 1501):
            watcher.observe(seed.random() >= 0.2)
            if at % 25 == 0:
                found = watcher.estimate()
                held = held and found.low <= 0.2 <= found.high
        missed += not held
        assert watcher.estimate().high - watcher.estimate().low < 0.12
    assert missed <= next(k for k in range(40) if at_most(k, 40, 0.1) > 1 - 1e-5)


def test_before_anything_is_known() -> None:
    found = audit().estimate()
    assert (found.rate, found.low, found.high) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, math.nan])
def test_what_is_no_share(share: float) -> None:
    with pytest.raises(ConfigError, match="audit share"):
        AuditSettings(share=share)


@pytest.mark.parametrize("delta", [0.0, 1.0, math.nan])
def test_what_is_no_delta(delta: float) -> None:
    with pytest.raises(ConfigError, match="audit delta"):
        AuditSettings(delta=delta)
