from hybridge.edge.breaker import Breaker


def test_a_breaker_opens_at_the_first_failure_and_closes_at_the_first_success() -> None:
    breaker = Breaker()
    assert breaker.closed
    breaker.fail("refused", now_s=5.0)
    assert not breaker.closed
    breaker.fail("still refused", now_s=6.0)
    assert (breaker.opened_at_s, breaker.reason, breaker.openings) == (5.0, "still refused", 1)
    breaker.succeed()
    assert breaker.closed
    breaker.fail("again", now_s=9.0)
    assert (breaker.opened_at_s, breaker.openings) == (9.0, 2)


def test_a_new_one_may_start_open() -> None:
    breaker = Breaker(opened_at_s=0.0)
    assert not breaker.closed
    assert breaker.reason == "never connected"
