"""What is always true of a choice."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.edge.demand import Demand
from hybridge.edge.duration import Duration
from hybridge.edge.question import Question, Sight
from hybridge.edge.router import (
    UNLIKELY,
    Light,
    Option,
    choose,
    explain,
    worth_waiting,
)
from hybridge.shared.objective import Objective
from hybridge.shared.plan import Plan, PlanKind

from .tables import (
    ROUNDING,
    best_first,
    fitting,
    inf,
    left,
    option,
    questions,
    reasons,
    tables,
    unsure_tables,
)


@given(tables(), left)
def test_what_is_chosen_fits_unless_nothing_does(options: list[Option], left_ms: float) -> None:
    decision = choose(options, Question(left_ms=left_ms))
    assert decision.fits == bool(fitting(options, left_ms))
    if decision.fits:
        assert decision.option.total_ms <= left_ms
    else:
        assert decision.option.plan.kind is PlanKind.LOCAL


@given(tables(), left)
def test_agreement_is_given_up_only_within_the_standard_error(
    options: list[Option], left_ms: float
) -> None:
    chosen = choose(options, Question(left_ms=left_ms)).option
    fit = fitting(options, left_ms)
    if not fit:
        return
    best = max(each.agreement.value for each in fit)
    error = min(each.agreement.standard_error for each in fit if each.agreement.value == best)
    assert chosen.agreement.value >= best - error - ROUNDING
    for rival in fit:
        if rival.agreement.value >= best - error + ROUNDING:
            assert (chosen.total_ms, chosen.size_bytes) <= (rival.total_ms, rival.size_bytes)


@given(tables(), left, st.randoms(use_true_random=False))
def test_the_order_of_the_table_does_not_matter(
    options: list[Option], left_ms: float, rng: random.Random
) -> None:
    shuffled = rng.sample(options, len(options))
    assert choose(shuffled, Question(left_ms=left_ms)) == choose(options, Question(left_ms=left_ms))
    assert explain(shuffled, Question(left_ms=left_ms)) == explain(
        options, Question(left_ms=left_ms)
    )


@given(unsure_tables(), questions)
def test_options_in_order_need_not_all_be_looked_at(
    options: list[Option], question: Question
) -> None:
    in_order = sorted(
        options, key=lambda o: (o.plan.kind is not PlanKind.LOCAL, -o.agreement.value)
    )
    assert choose(best_first(in_order), question) == choose(in_order, question)


def test_what_agrees_less_than_what_fits_is_not_looked_at() -> None:
    table = [
        option("local", 0.7),
        option("cloud:raw", 1.0, network_ms=5.0),
        option("cloud:png", 0.995, network_ms=4.0),
        option("cloud:jpeg-90", 0.9, network_ms=3.0),
        option("cloud:jpeg-75", 0.89, network_ms=2.0),
    ]
    looked_at: list[str] = []
    chosen = choose(best_first(table, looked_at), Question(left_ms=1000.0))
    assert str(chosen.option.plan) == "cloud:png"
    assert looked_at == ["local", "cloud:raw", "cloud:png"]
    looked_at.clear()
    sure = Question(left_ms=1000.0, sight=Sight(0.99, enough=True))
    assert choose(best_first(table, looked_at), sure).option.plan == Plan.local()
    assert looked_at == ["local"]


def test_what_is_later_than_a_plan_that_adds_as_much_is_not_worked_out() -> None:
    table = [
        option("local", 0.7),
        option("cloud:raw", 1.0, network_ms=50.0),
        option("cloud:png", 1.0, network_ms=60.0),
        option("cloud:webp-75", 1.0, network_ms=70.0, error=0.001),
        option("cloud:jpeg-90", 0.995, network_ms=80.0),
        option("cloud:jpeg-75", 0.995, network_ms=40.0),
    ]
    looked_at: list[str] = []
    chosen = choose(best_first(table, looked_at), Question(left_ms=1000.0))
    assert chosen == choose(table, Question(left_ms=1000.0))
    assert looked_at == ["local", "cloud:raw", "cloud:webp-75", "cloud:jpeg-75"]


def test_a_sooner_plan_that_may_be_late_beats_none_that_is_sure() -> None:
    table = [
        option("local", 0.7),
        option("cloud:raw", 1.0, network_ms=90.0, spread_ms=60.0, error=0.01),
        option("cloud:png", 0.98, network_ms=95.0, error=0.01),
    ]
    question = Question(left_ms=110.0, price_per_ms=1e-6)
    chosen = choose(best_first(table), question)
    assert chosen == choose(table, question)
    assert str(chosen.option.plan) == "cloud:png"


def test_where_the_way_alone_is_too_long_no_plan_is_looked_at() -> None:
    table = [option("local", 0.7), option("cloud:raw", 1.0), option("cloud:png", 1.0)]
    looked_at: list[str] = []
    far = Question(left_ms=100.0, way=Duration(200.0, 100.0))
    decision = choose(best_first(table, looked_at), far)
    assert decision.option.plan == Plan.local()
    assert decision.alone
    assert looked_at == ["local"]
    near = far._replace(way=Duration(50.0, 100.0))
    assert choose(best_first(table), near).option.plan.kind is PlanKind.CLOUD


@given(tables(), left, st.floats(0, 500))
def test_more_time_is_never_worse(options: list[Option], left_ms: float, more_ms: float) -> None:
    def floor(at_ms: float) -> float:
        fit = fitting(options, at_ms)
        return max((each.agreement.value for each in fit), default=0.0)

    chosen = choose(options, Question(left_ms=left_ms + more_ms))
    assert floor(left_ms + more_ms) >= floor(left_ms)
    if chosen.fits:
        assert chosen.option.agreement.value >= floor(left_ms) - 0.1 - ROUNDING


@given(tables(), left)
def test_an_explanation_names_every_option_and_the_choice_first(
    options: list[Option], left_ms: float
) -> None:
    decision = choose(options, Question(left_ms=left_ms))
    rows = explain(options, Question(left_ms=left_ms))
    assert rows[0][0] is decision.option
    assert len(rows) == len(options)
    assert {id(each) for each, _ in rows} == {id(each) for each in options}
    assert [reason.startswith("taken") for _, reason in rows] == [True] + [False] * (len(rows) - 1)
    assert ("nothing fits" in rows[0][1]) == (not decision.fits)
    for each, reason in rows[1:]:
        too_late = reason.startswith(("too slow", "the cloud is out", "never measured"))
        assert too_late == (each.total_ms > left_ms)


@pytest.mark.parametrize(
    ("left_ms", "chosen"),
    [
        (9, "local"),  # nothing fits
        (10, "local"),
        (60, "split:b8/int8/affine4"),
        (129.9, "split:b8/int8/affine4"),
        (130, "cloud:raw"),
    ],
)
def test_a_table(left_ms: float, chosen: str) -> None:
    table = [
        option("local", 0.7),
        option("split:b8/int8/affine4", 0.9, network_ms=40, cloud_ms=10),
        option("cloud:jpeg-50", 0.85, network_ms=45),
        option("cloud:raw", 1.0, network_ms=110, cloud_ms=10),
    ]
    assert str(choose(table, Question(left_ms=left_ms)).option.plan) == chosen


def test_ties_go_to_the_earlier_then_to_the_smaller() -> None:
    slow = option("cloud:png", 1.0, network_ms=90, size_bytes=1)
    quick = option("cloud:jpeg-90", 0.995, network_ms=50, size_bytes=70)
    lean = option("cloud:webp-90", 0.992, network_ms=50, size_bytes=60)
    worse = option("cloud:jpeg-50", 0.98, network_ms=1)
    table = [option("local", 0.5), slow, quick, lean, worse]
    assert choose(table, Question(left_ms=1000)).option is lean
    assert {str(each.plan): reason for each, reason in explain(table, Question(left_ms=1000))} == {
        "cloud:webp-90": "taken: the best agreement that fits",
        "cloud:png": "as good within the standard error, 40 ms later",
        "cloud:jpeg-90": "as good within the standard error, more bytes",
        "cloud:jpeg-50": "agrees 1.2 points less",
        "local": "agrees 49.2 points less",
    }


def test_reasons_for_what_cannot_be() -> None:
    table = [
        option("local", 0.5),
        option("cloud:raw", network_ms=inf),
        option("cloud:png", device_ms=inf),
        option("cloud:jpeg-50", network_ms=140),
    ]
    assert {str(each.plan): reason for each, reason in explain(table, Question(left_ms=100))} == {
        "local": "taken: the best agreement that fits",
        "cloud:raw": "the cloud is out of reach",
        "cloud:png": "never measured on this device",
        "cloud:jpeg-50": "too slow by 50 ms",
    }


@given(unsure_tables(), questions)
def test_every_choice_can_be_explained(options: list[Option], question: Question) -> None:
    decision = choose(options, question)
    rows = explain(options, question)
    assert rows[0][0] is decision.option
    assert {id(each) for each, _ in rows} == {id(each) for each in options}
    assert [reason.startswith("taken") for _, reason in rows] == [True] + [False] * (len(rows) - 1)
    for each, reason in rows[1:]:
        spent_bytes = question.spent_bytes
        if forbidden := question.demand.forbids(
            each.plan, each.size_bytes, spent_bytes=spent_bytes, similarity=each.similarity
        ):
            assert reason == forbidden
        if reason.startswith("too slow"):
            assert each.total.within(question.left_ms) < 0.1


@given(unsure_tables(), left)
def test_what_is_taken_raises_the_expected_agreement_most(
    options: list[Option], left_ms: float
) -> None:
    """Of the answer given in the end: the device's own is there where the cloud's is late."""
    local = next(each for each in options if each.plan.kind is PlanKind.LOCAL)
    floor = local.total.within(left_ms) * local.agreement.value

    def expected(each: Option) -> float:
        if each is local:
            return floor
        return floor + each.total.within(left_ms) * (each.agreement.value - floor)

    taken = choose(options, Question(left_ms=left_ms)).option
    tried = [e for e in options if e is not local and e.total.within(left_ms) >= 0.1]
    best = max([floor, *map(expected, tried)])
    error = max(each.agreement.standard_error for each in options)
    least = max((e.agreement.value for e in tried), default=0.0) - error
    assert expected(taken) >= best - error - ROUNDING or taken.agreement.value >= least - ROUNDING


def test_a_good_plan_that_is_often_late_loses_to_a_fair_one_that_is_not() -> None:
    local = option("local", 0.7)
    risky = option("cloud:png", 1.0, network_ms=100, spread_ms=60)
    safe = option("cloud:jpeg-50", 0.95, network_ms=40, spread_ms=4)
    for left_ms, best in ((110.0, safe), (1000.0, risky)):
        assert choose([local, risky, safe], Question(left_ms=left_ms)).option is best
    alone = choose([local, risky], Question(left_ms=110.0)).option
    assert alone is risky  # half the time is something
    assert reasons([local, risky, safe], Question(left_ms=110.0)) == {
        "cloud:jpeg-50": "taken: the best agreement that fits",
        "cloud:png": "in time with 60% only, 110 of 110 ms",
        "local": "agrees 25.0 points less",
    }
    assert reasons([local, risky], Question(left_ms=110.0))["cloud:png"] == (
        "taken: the best expected agreement, in time with 60%"
    )


def test_a_plan_that_is_hardly_ever_in_time_is_not_tried() -> None:
    local = option("local", 0.5)
    late = option("cloud:raw", 1.0, network_ms=100, spread_ms=20)
    assert late.total.within(85.0) < 0.1 < late.total.within(95.0)
    assert choose([local, late], Question(left_ms=85.0)).option is local
    assert choose([local, late], Question(left_ms=95.0)).option is late


def test_what_the_processor_costs_is_taken_off_the_gain() -> None:
    local = option("local", 0.7)
    quick = option("split:a/int8/raw", 0.9, network_ms=80, work_ms=10)
    best = option("split:b/float32/raw", 0.99, network_ms=50, work_ms=40)
    table = [local, quick, best]
    free, dear, dearer = (
        choose(table, Question(left_ms=200.0, price_per_ms=price)) for price in (0.0, 0.005, 0.03)
    )
    assert [each.option for each in (free, dear, dearer)] == [best, quick, local]
    unsure = Question(left_ms=200.0, price_per_ms=0.03, sight=Sight(agrees=0.2))
    assert choose(table, unsure).option is quick


def test_an_answer_in_time_spares_the_light_models_work() -> None:
    """What costs less than the light model is taken whatever it costs, until that has run."""
    local, little = option("local", 0.7, work_ms=40), option("cloud:raw", 0.75, work_ms=30)
    dear = Question(left_ms=200.0, price_per_ms=0.05)
    assert choose([local, little], dear).option is little
    assert choose(best_first([local, little]), dear).option is little
    assert choose([local, little], dear._replace(sight=Sight(agrees=0.2))).option is local
    late = option("cloud:raw", 0.75, work_ms=30, network_ms=200, spread_ms=50)
    assert 0.1 < late.total.within(200.0) < 0.7
    assert choose([local, late], dear).option is local


@pytest.mark.parametrize(("work_ms", "full"), [(30.0, Light.NET), (90.0, Light.FIRST)])
def test_on_a_full_processor_the_light_model_goes_first_where_that_spares_work(
    work_ms: float, full: Light
) -> None:
    local = option("local", 0.7, device_ms=40, work_ms=40)
    remote = option("cloud:raw", 0.99, network_ms=60, work_ms=work_ms)
    slack = [Question(left_ms=500.0, price_per_ms=price) for price in (0.0, 0.001)]
    assert [choose([local, remote], each).light for each in slack] == [Light.FIRST, full]


@pytest.mark.parametrize("price", [0.0, 0.001])
def test_where_it_would_cost_the_answer_the_light_model_is_but_the_net(price: float) -> None:
    local, remote = option("local", 0.7), option("cloud:raw", 0.99, network_ms=60, spread_ms=15)
    tight = Question(left_ms=100.0, price_per_ms=price)
    assert choose([local, remote], tight).light is Light.NET


@given(unsure_tables(), left, st.floats(0, 1))
def test_a_sure_light_answer_ends_it(options: list[Option], left_ms: float, agrees: float) -> None:
    decision = choose(options, Question(left_ms=left_ms, sight=Sight(agrees, enough=True)))
    assert decision.option.plan.kind is PlanKind.LOCAL
    assert (decision.in_time, decision.light) == (1.0, Light.FIRST)


def test_the_second_decision_goes_by_how_sure_the_light_model_was() -> None:
    local = option("local", 0.8)
    cloud = option("cloud:jpeg-90", 0.96, network_ms=50)
    table = [local, cloud]
    for agrees, taken in ((0.3, cloud), (0.8, cloud), (0.999, local), (1.0, local)):
        decision = choose(table, Question(left_ms=100, sight=Sight(agrees)))
        assert decision.option is taken
        assert decision.light is Light.FIRST
    told = reasons(table, Question(left_ms=100, sight=Sight(0.999)))
    assert told["local"] == (
        "taken: nothing worth waiting for, the light model is sure: it agrees with 99.9%"
    )
    assert reasons(table, Question(left_ms=100, sight=Sight(0.999, enough=True))) == {
        "local": "taken: the light model is sure: it agrees with 99.9%",
        "cloud:jpeg-90": "the light model's answer is good enough",
    }


def test_an_answer_at_hand_is_not_too_slow() -> None:
    table = [option("local", 0.5, device_ms=90), option("cloud:raw", 1.0, network_ms=20)]
    assert reasons(table, Question(left_ms=40, sight=Sight(0.2))) == {
        "cloud:raw": "taken: the best agreement that fits",
        "local": "agrees 50.0 points less",
    }


def test_worth_waiting_for_an_answer_under_way() -> None:
    local, cloud = option("local", 0.8), option("cloud:raw", 1.0, network_ms=50)

    def worth(in_time: float, agrees: float, *, enough: bool = False, **asked: object) -> bool:
        demand = Demand(**asked)  # type: ignore[arg-type]
        sight = Sight(agrees, enough)
        return worth_waiting(cloud, local, in_time=in_time, demand=demand, sight=sight)

    assert worth(1.0, 0.5)
    assert not worth(1.0, 0.5, enough=True)
    assert not worth(UNLIKELY / 2, 0.0)
    assert not worth(1.0, 0.995)  # what is left to gain is below the table's own error
    assert worth(1.0, 0.995, objective=Objective.BYTES)  # its bytes are spent already
    assert worth(0.03, 0.999, outputs=True)
    assert not worth(UNLIKELY / 2, 0.0, outputs=True)
