"""What is always true of a choice."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.edge.demand import ANYTHING, Demand
from hybridge.edge.policy import RouterPolicy
from hybridge.edge.router import (
    UNLIKELY,
    Decision,
    Light,
    Option,
    Sight,
    choose,
    explain,
    worth_waiting,
)
from hybridge.shared.manifest import Rate
from hybridge.shared.objective import Objective
from hybridge.shared.plan import Plan, PlanKind

inf = float("inf")
times = st.one_of(st.just(0.0), st.just(inf), st.floats(0, 500))
rates = st.builds(
    Rate,
    value=st.sampled_from([0.5, 0.9, 0.905, 0.95, 1.0])
    | st.integers(0, 1000).map(lambda thousandths: thousandths / 1000),
    standard_error=st.sampled_from([0.001, 0.01, 0.1]),
    samples=st.just(100),
)
left = st.floats(-100, 2000)
ROUNDING = 1e-9


def option(
    plan: str,
    agreement: float = 1.0,
    *,
    error: float = 0.01,
    device_ms: float = 10.0,
    network_ms: float = 0.0,
    cloud_ms: float = 0.0,
    size_bytes: int = 100,
    spread_ms: float = 0.0,
    energy_j: float = 0.0,
    cost: float = 0.0,
) -> Option:
    rate = Rate(value=agreement, standard_error=error, samples=100)
    return Option(
        plan=Plan.parse(plan),
        agreement=rate,
        size_bytes=size_bytes,
        device_ms=device_ms,
        network_ms=network_ms,
        cloud_ms=cloud_ms,
        variance=spread_ms**2,
        energy_j=energy_j,
        cost=cost,
    )


@st.composite
def tables(draw: st.DrawFn) -> list[Option]:
    """A local option, which needs no network, and others; all times are sure."""
    local = Option(Plan.local(), draw(rates), 0, draw(times), 0.0, 0.0)
    others = [
        Option(
            Plan.cloud(f"jpeg-{at + 1}"), draw(rates), draw(st.integers(1, 3)), draw(times),
            draw(times), draw(times),
        )
        for at in range(draw(st.integers(0, 8)))
    ]  # fmt: skip
    return draw(st.permutations([local, *others]))


@st.composite
def unsure_tables(draw: st.DrawFn) -> list[Option]:
    """The same with times that vary, prices, and cuts among the plans."""
    options = draw(tables())
    return [
        each._replace(
            plan=draw(st.sampled_from([each.plan, Plan.split(f"c{at}", head="int8", codec="raw")]))
            if each.plan.kind is PlanKind.CLOUD
            else each.plan,
            variance=draw(st.just(0.0) | st.floats(0, 1e5)),
            energy_j=draw(st.integers(0, 3)),
            cost=draw(st.integers(0, 3)),
        )
        for at, each in enumerate(options)
    ]


demands = st.builds(
    Demand,
    objective=st.sampled_from(Objective),
    min_agreement=st.none() | st.floats(0.01, 0.99),
    stay=st.booleans(),
    only_cuts=st.booleans(),
    bytes_per_hour=st.sampled_from([0.0, 2.0, 10.0, inf]),
    outputs=st.booleans(),
)
sights = st.none() | st.builds(Sight, agrees=st.floats(0, 1), enough=st.booleans())


def fitting(options: list[Option], left_ms: float) -> list[Option]:
    return [each for each in options if each.total_ms <= left_ms]


@given(tables(), left)
def test_what_is_chosen_fits_unless_nothing_does(options: list[Option], left_ms: float) -> None:
    decision = choose(options, left_ms=left_ms)
    assert decision.fits == bool(fitting(options, left_ms))
    if decision.fits:
        assert decision.option.total_ms <= left_ms
    else:
        assert decision.option.plan.kind is PlanKind.LOCAL


@given(tables(), left)
def test_agreement_is_given_up_only_within_the_standard_error(
    options: list[Option], left_ms: float
) -> None:
    chosen = choose(options, left_ms=left_ms).option
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
    assert choose(shuffled, left_ms=left_ms) == choose(options, left_ms=left_ms)
    assert explain(shuffled, left_ms=left_ms) == explain(options, left_ms=left_ms)


@given(tables(), left, st.floats(0, 500))
def test_more_time_is_never_worse(options: list[Option], left_ms: float, more_ms: float) -> None:
    def floor(at_ms: float) -> float:
        fit = fitting(options, at_ms)
        return max((each.agreement.value for each in fit), default=0.0)

    chosen = choose(options, left_ms=left_ms + more_ms)
    assert floor(left_ms + more_ms) >= floor(left_ms)
    if chosen.fits:
        assert chosen.option.agreement.value >= floor(left_ms) - 0.1 - ROUNDING


@given(tables(), left)
def test_an_explanation_names_every_option_and_the_choice_first(
    options: list[Option], left_ms: float
) -> None:
    decision = choose(options, left_ms=left_ms)
    rows = explain(options, left_ms=left_ms)
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
    assert str(choose(table, left_ms=left_ms).option.plan) == chosen


def test_ties_go_to_the_earlier_then_to_the_smaller() -> None:
    slow = option("cloud:png", 1.0, network_ms=90, size_bytes=1)
    quick = option("cloud:jpeg-90", 0.995, network_ms=50, size_bytes=70)
    lean = option("cloud:webp-90", 0.992, network_ms=50, size_bytes=60)
    worse = option("cloud:jpeg-50", 0.98, network_ms=1)
    table = [option("local", 0.5), slow, quick, lean, worse]
    assert choose(table, left_ms=1000).option is lean
    assert {str(each.plan): reason for each, reason in explain(table, left_ms=1000)} == {
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
    assert {str(each.plan): reason for each, reason in explain(table, left_ms=100)} == {
        "local": "taken: the best agreement that fits",
        "cloud:raw": "the cloud is out of reach",
        "cloud:png": "never measured on this device",
        "cloud:jpeg-50": "too slow by 50 ms",
    }


def reasons(
    table: list[Option],
    *,
    left_ms: float,
    demand: Demand = ANYTHING,
    sight: Sight | None = None,
    spent_bytes: float = 0.0,
) -> dict[str, str]:
    rows = explain(table, left_ms=left_ms, demand=demand, sight=sight, spent_bytes=spent_bytes)
    return {str(each.plan): reason for each, reason in rows}


@given(unsure_tables(), left, demands, sights, st.sampled_from([0.0, 1.0, 9.0]))
def test_a_demand_is_never_violated(
    options: list[Option], left_ms: float, demand: Demand, sight: Sight | None, spent: float
) -> None:
    decision = choose(options, left_ms=left_ms, demand=demand, sight=sight, spent_bytes=spent)
    taken = decision.option
    assert any(taken is each for each in options)
    if taken.plan.kind is not PlanKind.LOCAL:
        assert not demand.stay
        assert not (demand.only_cuts and taken.plan.kind is PlanKind.CLOUD)
        assert taken.size_bytes + spent <= demand.bytes_per_hour
        assert taken.total.within(left_ms) >= 0.1
    assert 0.0 <= decision.in_time <= 1.0


@given(unsure_tables(), left, demands, sights, st.sampled_from([0.0, 1.0, 9.0]))
def test_every_choice_can_be_explained(
    options: list[Option], left_ms: float, demand: Demand, sight: Sight | None, spent: float
) -> None:
    asked = {"left_ms": left_ms, "demand": demand, "sight": sight, "spent_bytes": spent}
    decision = choose(options, **asked)  # type: ignore[arg-type]
    rows = explain(options, **asked)  # type: ignore[arg-type]
    assert rows[0][0] is decision.option
    assert {id(each) for each, _ in rows} == {id(each) for each in options}
    assert [reason.startswith("taken") for _, reason in rows] == [True] + [False] * (len(rows) - 1)
    for each, reason in rows[1:]:
        if forbidden := demand.forbids(each.plan, each.size_bytes, spent_bytes=spent):
            assert reason == forbidden
        if reason.startswith("too slow"):
            assert each.total.within(left_ms) < 0.1


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

    taken = choose(options, left_ms=left_ms).option
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
        assert choose([local, risky, safe], left_ms=left_ms).option is best
    assert choose([local, risky], left_ms=110.0).option is risky  # half the time is something
    assert reasons([local, risky, safe], left_ms=110.0) == {
        "cloud:jpeg-50": "taken: the best agreement that fits",
        "cloud:png": "in time with 60% only, 110 of 110 ms",
        "local": "agrees 25.0 points less",
    }
    assert reasons([local, risky], left_ms=110.0)["cloud:png"] == (
        "taken: the best expected agreement, in time with 60%"
    )


def test_a_plan_that_is_hardly_ever_in_time_is_not_tried() -> None:
    local = option("local", 0.5)
    late = option("cloud:raw", 1.0, network_ms=100, spread_ms=20)
    assert late.total.within(85.0) < 0.1 < late.total.within(95.0)
    assert choose([local, late], left_ms=85.0).option is local
    assert choose([local, late], left_ms=95.0).option is late


@given(unsure_tables(), left, st.floats(0, 1))
def test_a_sure_light_answer_ends_it(options: list[Option], left_ms: float, agrees: float) -> None:
    decision = choose(options, left_ms=left_ms, sight=Sight(agrees, enough=True))
    assert decision.option.plan.kind is PlanKind.LOCAL
    assert (decision.in_time, decision.light) == (1.0, Light.FIRST)


def test_the_second_decision_goes_by_how_sure_the_light_model_was() -> None:
    local = option("local", 0.8)
    cloud = option("cloud:jpeg-90", 0.96, network_ms=50)
    table = [local, cloud]
    for agrees, taken in ((0.3, cloud), (0.8, cloud), (0.999, local), (1.0, local)):
        decision = choose(table, left_ms=100, sight=Sight(agrees))
        assert decision.option is taken
        assert decision.light is Light.FIRST
    told = reasons(table, left_ms=100, sight=Sight(0.999))
    assert told["local"] == (
        "taken: nothing worth waiting for, the light model is sure: it agrees with 99.9%"
    )
    assert reasons(table, left_ms=100, sight=Sight(0.999, enough=True)) == {
        "local": "taken: the light model is sure: it agrees with 99.9%",
        "cloud:jpeg-90": "the light model's answer is good enough",
    }


def test_an_answer_at_hand_is_not_too_slow() -> None:
    table = [option("local", 0.5, device_ms=90), option("cloud:raw", 1.0, network_ms=20)]
    assert reasons(table, left_ms=40, sight=Sight(0.2)) == {
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


OBJECTIVES = [
    option("local", 0.7, device_ms=5, size_bytes=0, energy_j=0.1),
    option("cloud:png", 1.0, network_ms=90, size_bytes=900, energy_j=0.9, cost=9),
    option("cloud:jpeg-90", 0.99, network_ms=20, size_bytes=300, energy_j=0.8, cost=8),
    option("split:b1/int8/affine4", 0.985, network_ms=60, size_bytes=50, energy_j=0.7, cost=7),
    option("split:b2/int8/affine4", 0.985, network_ms=70, size_bytes=80, energy_j=0.3, cost=6),
    option("split:b3/int8/affine4", 0.985, network_ms=80, size_bytes=90, energy_j=0.4, cost=2),
]


@pytest.mark.parametrize(
    ("objective", "taken"),
    [
        (Objective.ACCURACY, "cloud:jpeg-90"),  # a tie with png, and sooner
        (Objective.LATENCY, "cloud:jpeg-90"),
        (Objective.BYTES, "split:b1/int8/affine4"),
        (Objective.ENERGY, "split:b2/int8/affine4"),
        (Objective.COST, "split:b3/int8/affine4"),
    ],
)
def test_each_objective_saves_what_it_says(objective: Objective, taken: str) -> None:
    demand = Demand(objective=objective, min_agreement=0.98)
    assert str(choose(OBJECTIVES, left_ms=500, demand=demand).option.plan) == taken
    told = reasons(OBJECTIVES, left_ms=500, demand=demand)
    if objective is not Objective.ACCURACY:
        assert told.pop(taken) == f"taken: the best in {objective} that agrees often enough"
        assert set(told.values()) == {f"not the best in {objective}"}


@given(unsure_tables(), left, st.sampled_from([o for o in Objective if o != "accuracy"]))
def test_an_objective_is_best_among_all_that_suffice(
    options: list[Option], left_ms: float, objective: Objective
) -> None:
    demand = Demand(objective=objective, min_agreement=0.9)

    def spent(each: Option) -> float:
        return {
            Objective.LATENCY: each.total_ms,
            Objective.BYTES: each.size_bytes,
            Objective.ENERGY: each.energy_j,
            Objective.COST: each.cost,
        }[objective]

    suffice = [
        each
        for each in options
        if each.agreement.value >= 0.9
        and (
            each.total.within(left_ms) > 0
            if each.plan.kind is PlanKind.LOCAL
            else each.total.within(left_ms) >= 0.5
        )
    ]
    taken = choose(options, left_ms=left_ms, demand=demand).option
    if suffice:
        assert taken.agreement.value >= 0.9
        assert spent(taken) == min(map(spent, suffice))
    else:
        assert taken == choose(options, left_ms=left_ms).option  # the best there is


def test_what_is_asked_of_a_plan_is_told() -> None:
    table = [
        option("local", 0.5),
        option("cloud:raw", 1.0, network_ms=20, size_bytes=5_000),
        option("split:b1/int8/affine4", 0.9, network_ms=20, size_bytes=600),
        option("split:b2/int8/affine4", 0.8, network_ms=20, size_bytes=100),
    ]
    assert reasons(table, left_ms=100, demand=Demand(stay=True)) == {
        "local": "taken: the best agreement that fits",
        **{str(each.plan): "must not leave the device" for each in table[1:]},
    }
    told = reasons(table, left_ms=100, demand=Demand(only_cuts=True))
    assert told["cloud:raw"] == "only cuts may leave the device, no pictures"
    assert told["split:b1/int8/affine4"].startswith("taken")
    told = reasons(table, left_ms=100, demand=Demand(bytes_per_hour=1_000), spent_bytes=500)
    assert told["split:b2/int8/affine4"].startswith("taken")
    for plan in ("cloud:raw", "split:b1/int8/affine4"):
        assert told[plan] == "more than what is left of 1,000 bytes an hour"
    told = reasons(table, left_ms=100, demand=Demand(outputs=True))
    assert told["cloud:raw"].startswith("taken")
    assert told["local"] == "makes none of the outputs asked for"


def test_outputs_make_the_clouds_plans_the_only_ones_while_one_may_come() -> None:
    table = [option("local", 0.9), option("cloud:jpeg-1", 0.2, network_ms=20)]
    demand = Demand(outputs=True)
    assert str(choose(table, left_ms=100, demand=demand).option.plan) == "cloud:jpeg-1"
    assert str(choose(table, left_ms=15, demand=demand).option.plan) == "local"


def light_of(local_ms: float, *, left_ms: float, spread_ms: float, demand: Demand) -> Decision:
    table = [
        option("local", 0.8, device_ms=local_ms, spread_ms=local_ms / 10),
        option("cloud:raw", 1.0, network_ms=90, spread_ms=spread_ms),
    ]
    return choose(table, left_ms=left_ms, demand=demand)


@pytest.mark.parametrize(
    ("local_ms", "left_ms", "spread_ms", "light"),
    [
        (10, 1_000, 10, Light.FIRST),  # it costs nothing to look first
        (60, 140, 10, Light.NET),  # it would cost the cloud's answer, which is as good as sure
        (60, 110, 10, Light.BESIDE),  # the cloud's answer is not sure: have another
    ],
)
def test_when_the_light_model_runs(
    local_ms: float, left_ms: float, spread_ms: float, light: Light
) -> None:
    decision = light_of(local_ms, left_ms=left_ms, spread_ms=spread_ms, demand=ANYTHING)
    assert str(decision.option.plan) == "cloud:raw"
    assert decision.light is light
    outputs = light_of(local_ms, left_ms=left_ms, spread_ms=spread_ms, demand=Demand(outputs=True))
    assert outputs.light is not Light.FIRST  # its answer would not be enough


@given(unsure_tables(), left, demands)
def test_the_light_model_goes_first_only_where_it_costs_next_to_nothing(
    options: list[Option], left_ms: float, demand: Demand
) -> None:
    decision = choose(options, left_ms=left_ms, demand=demand)
    local = next(each for each in options if each.plan.kind is PlanKind.LOCAL)
    taken = decision.option
    if taken is local:
        assert decision.light is Light.FIRST
    elif demand.objective is Objective.LATENCY:
        assert decision.light is Light.BESIDE
    elif decision.light is Light.FIRST:
        later = taken.total.within(left_ms - local.total.quantile(1.2816))
        lost = (decision.in_time - later) * (taken.agreement.value - local.agreement.value)
        assert lost <= 0.001
    else:
        assert (decision.light is Light.NET) == (decision.in_time >= 0.99)


@pytest.mark.parametrize(
    ("sure_share", "outputs", "light"),
    [(0.0, False, Light.BESIDE), (0.9, False, Light.FIRST), (0.9, True, Light.BESIDE)],
)
def test_who_wants_to_be_quick_waits_for_the_light_model_if_that_spares_time(
    sure_share: float, outputs: bool, light: Light
) -> None:
    table = [option("local", 0.8, device_ms=40), option("cloud:raw", 1.0, network_ms=90)]
    demand = Demand(objective=Objective.LATENCY, min_agreement=0.95, outputs=outputs)
    asked = {"left_ms": 500.0, "demand": demand, "sure_share": sure_share}
    assert choose(table, **asked).light is light  # type: ignore[arg-type]
    as_policy = RouterPolicy().choose(table, sight=None, spent_bytes=0.0, **asked)  # type: ignore[arg-type]
    assert as_policy == choose(table, **asked)  # type: ignore[arg-type]
