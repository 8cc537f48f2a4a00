import logging

import pytest

from hybridge.edge.audit import AuditSettings
from hybridge.edge.auditor import Auditor

LEAST = 0.95


def auditor(*, share: float = 0.5, seed: int = 1) -> Auditor:
    settings = AuditSettings(share=share, delta=0.05)
    return Auditor(LEAST, delta=0.05, settings=settings, seed=seed)


def alarmed() -> Auditor:
    watching = auditor()
    while watching.alarm is None:
        watching.observe(agreed=False)
    return watching


def test_only_answers_of_the_audited_agreement_are_wanted() -> None:
    watching = auditor()
    for _ in range(200):
        for other in (None, 0.9, 0.99):
            assert not watching.wants(other)
    wanted = sum(watching.wants(LEAST) for _ in range(1000))
    assert 200 < wanted <= 500  # a share of those that were asked about, never more


def test_the_same_seed_draws_the_same() -> None:
    one, same, other = (auditor(seed=seed) for seed in (3, 3, 4))
    drawn = [[each.wants(LEAST) for _ in range(100)] for each in (one, same, other)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_as_long_as_all_agree_all_is_trusted() -> None:
    watching = auditor()
    for _ in range(500):
        watching.observe(agreed=True)
    assert watching.alarm is None
    assert all(watching.trusts(least) for least in (None, 0.5, LEAST, 0.99))


def test_after_an_alarm_nothing_stands_at_this_agreement_or_above(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        watching = alarmed()
    assert [watching.trusts(least) for least in (None, 0.5, LEAST, 0.99)] == [
        True, True, False, False
    ]  # fmt: skip
    assert not any(watching.wants(LEAST) for _ in range(100))
    assert "no longer stand" in caplog.text
    assert "pictures are no longer like those" in caplog.text


def test_an_alarm_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    watching = alarmed()
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            watching.observe(agreed=False)
    assert caplog.text == ""


def test_since_when_the_alarm_is_and_what_failed() -> None:
    now_s = 7.0
    settings = AuditSettings(share=0.5, delta=0.05)
    watching = Auditor(LEAST, delta=0.05, settings=settings, seed=1, clock=lambda: now_s)
    watching.fail("cloud gone")
    assert (watching.failed, watching.last_failure, watching.alarm_at_s) == (1, "cloud gone", None)
    while watching.alarm is None:
        watching.observe(agreed=False)
    now_s = 9.0
    watching.observe(agreed=False)
    assert watching.alarm_at_s == 7.0
