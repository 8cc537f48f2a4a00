"""What is always true of a choice."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.edge.router import Option, choose, explain
from hybridge.shared.manifest import Rate
from hybridge.shared.plan import Plan, PlanKind

inf = float("inf")
times = st.one_of(st.just(0.0), st.just(inf), st.floats(0, 500))
rates = st.builds(
    Rate,
    value=st.sampled_from([0.5, 0.9, 0.905, 0.95, 1.0]) | st.floats(0, 1),
    standard_error=st.sampled_from([0.001, 0.01, 0.1]),
    samples=st.just(100),
)
left = st.floats(-100, 2000)


def option(
    plan: str,
    agreement: float = 1.0,
    *,
    error: float = 0.01,
    device_ms: float = 10.0,
    network_ms: float = 0.0,
    cloud_ms: float = 0.0,
    size_bytes: int = 100,
) -> Option:
    rate = Rate(value=agreement, standard_error=error, samples=100)
    return Option(Plan.parse(plan), rate, size_bytes, device_ms, network_ms, cloud_ms)


@st.composite
def tables(draw: st.DrawFn) -> list[Option]:
    """A local option, which needs no network, and others."""
    local = Option(Plan.local(), draw(rates), 0, draw(times), 0.0, 0.0)
    others = [
        Option(
            Plan.cloud(f"jpeg-{at + 1}"), draw(rates), draw(st.integers(1, 3)), draw(times),
            draw(times), draw(times),
        )
        for at in range(draw(st.integers(0, 8)))
    ]  # fmt: skip
    return draw(st.permutations([local, *others]))


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
    assert chosen.agreement.value >= best - error
    for rival in fit:
        if rival.agreement.value >= best - error:
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
        assert chosen.option.agreement.value >= floor(left_ms) - 0.1


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
