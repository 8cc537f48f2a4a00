import pytest

from hybridge.cloud.cost import Cost, OnlineCost


def test_no_batches_where_they_gain_less_than_a_tenth() -> None:
    assert Cost.fit(one_ms=5.0, full_ms=8 * 4.6, full_items=8).batch_items == 1
    assert Cost.fit(one_ms=5.0, full_ms=8 * 4.4, full_items=8).batch_items == 8


@pytest.mark.parametrize("full_ms", [5.0, 12.0, 39.0, 80.0])
def test_the_line_goes_through_what_was_measured(full_ms: float) -> None:
    cost = Cost.fit(one_ms=5.0, full_ms=full_ms, full_items=8)
    assert cost.predict_ms(8) == pytest.approx(full_ms)
    assert cost.fixed_ms >= 0
    assert cost.per_item_ms >= 0


def test_lingers_only_for_company_that_pays() -> None:
    assert Cost(fixed_ms=8.0, per_item_ms=1.0, batch_items=8).linger_ms == 2.0
    assert Cost(fixed_ms=8.0, per_item_ms=1.0, batch_items=1).linger_ms == 0.0


@pytest.mark.parametrize(("two_ms", "crowd"), [(9.0, 2), (10.4, 2), (10.6, 1)])
def test_two_together_where_they_take_no_longer(two_ms: float, crowd: int) -> None:
    cost = Cost.fit(one_ms=5.0, two_ms=two_ms, full_ms=40.0, full_items=8)
    assert (cost.batch_items, cost.crowd_items) == (1, crowd)
    assert OnlineCost(cost).at(0.0).crowd_items == crowd
    assert cost.linger_ms == 0.0


def test_follows_traffic_and_forgets_it() -> None:
    cost = OnlineCost(Cost(fixed_ms=0.0, per_item_ms=10.0))
    for _ in range(100):
        cost.observe(1, took_ms=30.0, now_s=1000.0)
    assert cost.at(1000.0).predict_ms(1) == pytest.approx(30.0)
    assert 10.0 < cost.at(1005.0).predict_ms(1) < 30.0
    assert cost.at(1010.0).predict_ms(1) == pytest.approx(10.0)


def test_one_outlier_moves_it_little() -> None:
    cost = OnlineCost(Cost(fixed_ms=0.0, per_item_ms=10.0))
    cost.observe(1, took_ms=60_000.0, now_s=0.0)
    assert cost.at(0.0).predict_ms(1) <= 30.0


def test_quantiles_of_what_ran() -> None:
    cost = OnlineCost(Cost(fixed_ms=1.0, per_item_ms=2.0))
    assert cost.quantile_ms(0.95) == 3.0
    for took_ms in range(1, 101):
        cost.observe(1, took_ms=float(took_ms), now_s=0.0)
    assert cost.quantile_ms(0.5) == 51.0
    assert cost.quantile_ms(0.95) == 96.0


def test_slack_is_what_all_but_a_twentieth_need() -> None:
    cost = OnlineCost(Cost(fixed_ms=0.0, per_item_ms=10.0))
    assert cost.at(0.0).surely_ms(1) == 10.0
    for run in range(200):
        cost.observe(1, took_ms=15.0 if run % 10 == 0 else 10.0, now_s=0.0)
    usually, surely = cost.at(0.0).predict_ms(1), cost.at(0.0).surely_ms(1)
    assert 10.0 <= usually < 12.0
    assert 14.0 < surely < 18.0
    assert cost.at(20.0).surely_ms(1) == 10.0
