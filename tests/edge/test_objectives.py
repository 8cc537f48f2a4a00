"""What a request demands of its plan, and when the light model runs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hybridge.edge.demand import ANYTHING, Demand
from hybridge.edge.policy import RouterPolicy
from hybridge.edge.question import Question, Sight
from hybridge.edge.router import (
    Decision,
    Light,
    Option,
    choose,
)
from hybridge.shared.objective import Objective
from hybridge.shared.plan import PlanKind

from .tables import demands, left, option, questions, reasons, unsure_tables


@given(unsure_tables(), questions)
def test_a_demand_is_never_violated(options: list[Option], question: Question) -> None:
    demand = question.demand
    decision = choose(options, question)
    taken = decision.option
    assert any(taken is each for each in options)
    if taken.plan.kind is not PlanKind.LOCAL:
        assert not demand.stay
        assert not (demand.only_cuts and taken.plan.kind is PlanKind.CLOUD)
        if demand.max_similarity < 1.0:
            assert taken.plan.kind is PlanKind.SPLIT
            assert taken.similarity is not None
            assert taken.similarity <= demand.max_similarity
        assert taken.size_bytes + question.spent_bytes <= demand.bytes_per_hour
        assert taken.expected(question.left_ms, 0.0)[1] >= 0.1
    assert 0.0 <= decision.in_time <= 1.0


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
    assert str(choose(OBJECTIVES, Question(left_ms=500, demand=demand)).option.plan) == taken
    told = reasons(OBJECTIVES, Question(left_ms=500, demand=demand))
    if objective is not Objective.ACCURACY:
        assert told.pop(taken) == f"taken: the best in {objective} that agrees often enough"
        assert told.pop("local") == "agrees with 70.0%, asked are 98.0%"
        assert set(told.values()) == {f"not the best in {objective}"}


def test_that_no_plan_agrees_often_enough_is_said() -> None:
    demand = Demand(objective=Objective.BYTES, min_agreement=0.995)
    told = reasons(OBJECTIVES, Question(left_ms=50, demand=demand))
    assert told["cloud:jpeg-90"] == (
        "taken: the best agreement that fits; none in time has the 99.5% asked for"
    )


@pytest.mark.parametrize(
    ("sure_share", "taken"),
    [
        (0.0, "split:b1/int8/affine4"),  # 1.5 % wrong of all
        (0.4, "cloud:jpeg-90"),  # 1 % wrong may be 1.7 % of these
        (0.8, "cloud:png"),
    ],
)
def test_what_the_light_model_is_unsure_of_is_harder(sure_share: float, taken: str) -> None:
    """Both halves of a cascade agree as often as was demanded, and so does the whole."""
    demand = Demand(objective=Objective.BYTES, min_agreement=0.98)
    question = Question(left_ms=500, demand=demand, sight=Sight(0.3), sure_share=sure_share)
    assert str(choose(OBJECTIVES, question).option.plan) == taken


@pytest.mark.parametrize(("least", "taken"), [(None, "local"), (0.9, "cloud:raw")])
def test_a_tie_does_not_make_an_unsure_answer_good_enough(least: float | None, taken: str) -> None:
    options = [option("local", 0.95), option("cloud:raw", 0.97, network_ms=20, error=0.1)]
    question = Question(left_ms=100, demand=Demand(min_agreement=least), sight=Sight(0.8))
    assert str(choose(options, question).option.plan) == taken


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
    taken = choose(options, Question(left_ms=left_ms, demand=demand)).option
    if suffice:
        assert taken.agreement.value >= 0.9
        assert spent(taken) == min(map(spent, suffice))
    else:
        assert taken == choose(options, Question(left_ms=left_ms)).option  # the best there is


def test_what_is_asked_of_a_plan_is_told() -> None:
    table = [
        option("local", 0.5),
        option("cloud:raw", 1.0, network_ms=20, size_bytes=5_000),
        option("split:b1/int8/affine4", 0.9, network_ms=20, size_bytes=600),
        option("split:b2/int8/affine4", 0.8, network_ms=20, size_bytes=100),
    ]
    assert reasons(table, Question(left_ms=100, demand=Demand(stay=True))) == {
        "local": "taken: the best agreement that fits",
        **{str(each.plan): "must not leave the device" for each in table[1:]},
    }
    told = reasons(table, Question(left_ms=100, demand=Demand(only_cuts=True)))
    assert told["cloud:raw"] == "only cuts may leave the device, no pictures"
    assert told["split:b1/int8/affine4"].startswith("taken")
    told = reasons(
        table, Question(left_ms=100, demand=Demand(bytes_per_hour=1_000), spent_bytes=500)
    )
    assert told["split:b2/int8/affine4"].startswith("taken")
    for plan in ("cloud:raw", "split:b1/int8/affine4"):
        assert told[plan] == "more than what is left of 1,000 bytes an hour"
    measured = [table[0], table[1], replace(table[2], similarity=0.62), table[3]]
    assert reasons(measured, Question(left_ms=100, demand=Demand(max_similarity=0.4))) == {
        "local": "taken: the best agreement that fits",
        "cloud:raw": "the picture itself is alike to 1.00, 0.40 is allowed",
        "split:b1/int8/affine4": "pictures rebuilt from it were alike to 0.62, 0.40 is allowed",
        "split:b2/int8/affine4": "nobody has measured what it gives away, 0.40 is allowed",
    }
    told = reasons(measured, Question(left_ms=100, demand=Demand(max_similarity=0.7)))
    assert told["split:b1/int8/affine4"].startswith("taken")
    told = reasons(table, Question(left_ms=100, demand=Demand(outputs=True)))
    assert told["cloud:raw"].startswith("taken")
    assert told["local"] == "makes none of the outputs asked for"


def test_outputs_make_the_clouds_plans_the_only_ones_while_one_may_come() -> None:
    table = [option("local", 0.9), option("cloud:jpeg-1", 0.2, network_ms=20)]
    demand = Demand(outputs=True)
    assert str(choose(table, Question(left_ms=100, demand=demand)).option.plan) == "cloud:jpeg-1"
    assert str(choose(table, Question(left_ms=15, demand=demand)).option.plan) == "local"


def light_of(local_ms: float, *, left_ms: float, spread_ms: float, demand: Demand) -> Decision:
    table = [
        option("local", 0.8, device_ms=local_ms, spread_ms=local_ms / 10),
        option("cloud:raw", 1.0, network_ms=90, spread_ms=spread_ms),
    ]
    return choose(table, Question(left_ms=left_ms, demand=demand))


@pytest.mark.parametrize(
    ("local_ms", "left_ms", "spread_ms", "light"),
    [
        (10, 1_000, 10, Light.FIRST),  # it costs nothing to look first
        (60, 140, 10, Light.NET),  # it would cost the cloud's answer, which is as good as sure
        (60, 110, 10, Light.NET),  # nor is one that is not sure given up for it
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
    decision = choose(options, Question(left_ms=left_ms, demand=demand))
    local = next(each for each in options if each.plan.kind is PlanKind.LOCAL)
    taken = decision.option
    if taken is local:
        assert decision.light is Light.FIRST
    elif demand.objective is Objective.LATENCY:
        assert decision.light is Light.BESIDE
    elif decision.light is Light.FIRST:
        base = local.agreement.value
        later = taken.expected(left_ms - local.total.quantile(1.2816), base)[2]
        lost = taken.expected(left_ms, base)[2] - later
        assert lost <= 0.001
    else:
        assert decision.light is Light.NET


@pytest.mark.parametrize(
    ("sure_share", "outputs", "light"),
    [(0.0, False, Light.BESIDE), (0.9, False, Light.FIRST), (0.9, True, Light.BESIDE)],
)
def test_who_wants_to_be_quick_waits_for_the_light_model_if_that_spares_time(
    sure_share: float, outputs: bool, light: Light
) -> None:
    table = [option("local", 0.8, device_ms=40), option("cloud:raw", 1.0, network_ms=90)]
    demand = Demand(objective=Objective.LATENCY, min_agreement=0.95, outputs=outputs)
    question = Question(left_ms=500.0, demand=demand, sure_share=sure_share)
    assert choose(table, question).light is light
    assert RouterPolicy().choose(table, question) == choose(table, question)
