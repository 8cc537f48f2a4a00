"""The light model for everybody, or a remote plan for everybody."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.edge import router
from hybridge.edge.demand import ANYTHING, Demand
from hybridge.edge.policy import RouterPolicy
from hybridge.edge.question import Question, Sight
from hybridge.edge.router import Light, Option
from hybridge.edge.two_ways import Ways, choose
from hybridge.shared.objective import Objective

from .tables import left, option, tables

inf = float("inf")
LOCAL = option("local", 0.75, device_ms=40, work_ms=30)


def split(plan: str = "split:c05/int8/affine8", agreement: float = 0.95, **times: float) -> Option:
    return option(plan, agreement, network_ms=200, **{"work_ms": 50.0, **times})


def evenly(share: float) -> float:
    """The light model's confidence says nothing: those that differ are anywhere."""
    return 0.25 * share


def at_once(share: float) -> float:
    """It says all: those that differ come first."""
    return min(0.25, share)


def ways(
    *, room_ms: float = 10.0, unlit: Option | None = None, lit: Option | None = None, mended=evenly
) -> Ways:
    return Ways(
        lit=[LOCAL, lit or split()], unlit=[LOCAL, unlit or split()], room_ms=room_ms, mended=mended
    )


def asked(found: Ways | None, **changed: object) -> Question:
    return Question(left_ms=500.0, ways=found)._replace(**changed)


OPTIONS = [LOCAL, option("cloud:jpeg-50", 0.78, network_ms=250, work_ms=10)]
"""What is to be had where all others run light models."""


def test_a_plan_for_everybody_is_taken_where_that_mends_more() -> None:
    few = choose(OPTIONS, asked(ways()))
    assert (str(few.option.plan), few.light) == ("split:c05/int8/affine8", Light.NET)
    for enough in (ways(room_ms=50.0), ways(room_ms=13.0, mended=at_once)):
        assert choose(OPTIONS, asked(enough)) == router.choose(OPTIONS, asked(None))


def test_it_has_to_be_clearly_better() -> None:
    room_ms = 50.0 * (0.2 - 0.02) / 0.2  # two hundredths less are mended
    assert choose(OPTIONS, asked(ways(room_ms=room_ms))) == router.choose(OPTIONS, asked(None))
    room_ms = 50.0 * (0.2 - 0.04) / 0.2
    assert choose(OPTIONS, asked(ways(room_ms=room_ms))).light is Light.NET


@pytest.mark.parametrize(
    "unlit",
    [
        LOCAL,
        split(device_ms=inf),  # there is no room for all
        split(device_ms=200.0),  # in time, but after the light model has to start
        split(agreement=0.7),
    ],
    ids=str,
)
def test_a_plan_that_all_cannot_take_is_taken_by_none(unlit: Option) -> None:
    question = asked(ways(unlit=unlit), net_ms=150.0, safe_net_ms=150.0)
    assert choose(OPTIONS, question) == router.choose(OPTIONS, question._replace(ways=None))


def test_a_net_that_can_wait_leaves_room_for_it() -> None:
    question = asked(ways(unlit=split(device_ms=200.0)), net_ms=150.0, safe_net_ms=50.0)
    assert choose(OPTIONS, question).light is Light.NET


@pytest.mark.parametrize(
    "changed",
    [
        {"ways": None},
        {"sight": Sight(agrees=0.5)},
        {"demand": Demand(min_agreement=0.9)},
        {"demand": Demand(outputs=True)},
        {"demand": Demand(stay=True)},
        *({"demand": Demand(objective=each)} for each in Objective if each != "accuracy"),
    ],
    ids=str,
)
def test_who_wants_something_else_is_not_concerned(changed: dict[str, object]) -> None:
    question = asked(ways(), **changed)
    assert choose(OPTIONS, question) == router.choose(OPTIONS, question)


def test_what_is_forbidden_counts_neither_way() -> None:
    best = split("cloud:raw", 1.0, work_ms=5.0)
    found = ways()._replace(lit=[LOCAL, best], unlit=[LOCAL, best, split()])
    only_cuts = choose(OPTIONS, asked(found, demand=Demand(only_cuts=True)))
    assert str(only_cuts.option.plan) == "split:c05/int8/affine8"
    assert choose(OPTIONS, asked(found)) == router.choose(OPTIONS, asked(None))


@given(tables(), tables(), tables(), left, st.floats(0, 1e3), st.floats(0, 0.1))
def test_whatever_there_is_the_answer_is_one_of_the_two(
    options: list[Option],
    lit: list[Option],
    unlit: list[Option],
    left_ms: float,
    room_ms: float,
    price: float,
) -> None:
    found = Ways(lit=lit, unlit=unlit, room_ms=room_ms, mended=evenly)
    question = Question(left_ms=left_ms, demand=ANYTHING, price_per_ms=price, ways=found)
    decision = RouterPolicy().choose(options, question)
    alone = router.choose(unlit, question._replace(price_per_ms=0.0))
    for_all = alone._replace(light=Light.NET, for_all=True)
    assert decision in (router.choose(options, question), for_all)


def test_the_reasons_say_so() -> None:
    table = [*OPTIONS, split(device_ms=250.0)]  # too late among the others' light models
    question = asked(ways())
    decision = choose(table, question)
    told = dict(router.explain(table, question, decision))
    assert told[table[-1]].startswith("taken, for all requests")
    assert sum(why.startswith("taken") for why in told.values()) == 1
    assert next(iter(told)) is table[-1]


def test_a_light_model_that_is_always_right_is_never_spared() -> None:
    sure = option("local", 1.0, device_ms=300, work_ms=30)
    other = split(agreement=1.0)  # sooner, and as good
    found = Ways(lit=[sure, other], unlit=[sure, other], room_ms=1.0, mended=lambda _: 0.0)
    question = asked(found)
    assert choose([sure], question) == router.choose([sure], question)
