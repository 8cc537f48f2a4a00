"""Cuts of graphs, against all of them enumerated."""

from fractions import Fraction
from itertools import chain, combinations, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from hybridge.cloud.compiler.flow import Flow, Step


def chain_of(*names: str) -> tuple[Step, ...]:
    return tuple(Step((a,), (b,), 10) for a, b in pairwise(names))


def branches(*, early_result: bool = False) -> Flow:
    """Two wide ends, each with a narrow waist: only both waists together are a narrow cut."""
    steps = (
        Step(("picture",), ("stem",), 100),
        Step(("stem",), ("left_waist",), 10),
        Step(("left_waist",), ("left",), 50),
        Step(("stem",), ("right_waist",), 10),
        Step(("right_waist",), ("right",), 50),
        Step(("left", "right"), ("both",), 1),
        Step(("both",), ("answer",), 5),
    )
    results = ("left_waist", "answer") if early_result else ("answer",)
    return Flow(steps=steps, picture="picture", results=results)


SIZES = {
    "picture": 400,
    "stem": 300,
    "left_waist": 20,
    "right_waist": 30,
    "left": 200,
    "right": 200,
    "both": 400,
}


def test_separators_are_those_on_every_way() -> None:
    assert branches().separators() == [(0, "stem"), (5, "both")]
    assert Flow(steps=chain_of(*"abcd"), picture="a", results=("d",)).separators() == [
        (0, "b"),
        (1, "c"),
    ]


def test_two_waists_are_one_cut() -> None:
    found = {frozenset(each.tensors): each for each in branches().cheapest_sets(SIZES)}
    both = found[frozenset({"left_waist", "right_waist"})]
    assert (both.work, both.size, both.step) == (120, 50, 3)
    assert frozenset({"stem"}) in found


def test_a_tensor_that_may_not_cross_is_in_no_cut() -> None:
    sizes = {name: size for name, size in SIZES.items() if name != "left_waist"}
    found = branches().cheapest_sets(sizes)
    assert found
    assert not any("left_waist" in each.tensors for each in found)


def test_an_early_result_crosses_at_every_later_cut() -> None:
    flow = branches(early_result=True)
    assert flow.separators() == [(0, "stem")]
    later = [each for each in flow.cheapest_sets(SIZES) if each.step > 0]
    assert later
    assert all("left_waist" in each.tensors for each in later)


def test_what_needs_a_side_input_is_never_before_a_cut() -> None:
    steps = (
        Step(("picture",), ("a",), 1),
        Step(("a", "side"), ("b",), 1),
        Step(("a",), ("c",), 1),
        Step(("c",), ("d",), 1),
        Step(("b", "d"), ("answer",), 1),
    )
    flow = Flow(steps=steps, picture="picture", results=("answer",), sides=frozenset({"side"}))
    assert flow.separators() == [(0, "a")]
    assert not flow.separate({"b", "d"})
    assert flow.separate({"a", "d"})
    sizes = {"picture": 9, "a": 5, "b": 1, "c": 4, "d": 1}
    assert all("b" not in each.tensors for each in flow.cheapest_sets(sizes))


def test_dead_branches_keep_nothing_alive() -> None:
    steps = (*chain_of("picture", "a", "b", "answer"), Step(("a",), ("dead",), 7))
    flow = Flow(steps=steps, picture="picture", results=("answer",))
    assert [name for _, name in flow.separators()] == ["a", "b"]
    assert flow.total_work == 30


def test_constants_are_no_work() -> None:
    steps = (Step(("weights",), ("turned",), 99), Step(("picture", "turned"), ("a",), 1))
    flow = Flow(steps=(*steps, *chain_of("a", "answer")), picture="picture", results=("answer",))
    assert flow.work_of({"a"}) == 1
    assert flow.total_work == 11


def test_branches_that_narrow_step_by_step_are_cut_at_every_step() -> None:
    """Corners between the first and the last one, which two minimum cuts alone would not show."""
    depth = 4
    left, right = ([f"{side}{level}" for level in range(depth)] for side in "lr")
    steps = (
        *chain_of("picture", *left),
        *chain_of("picture", *right),
        Step((left[-1], right[-1]), ("answer",), 1),
    )
    flow = Flow(steps=steps, picture="picture", results=("answer",))
    narrowing = (160, 80, 40, 30)
    sizes = {"picture": 1000}
    for level, size in enumerate(narrowing):
        sizes |= {left[level]: size, right[level]: size}
    found = {(each.work, each.size) for each in flow.cheapest_sets(sizes)}
    assert found >= {(20 * (level + 1), 2 * size) for level, size in enumerate(narrowing)}


@st.composite
def parallel_flows(draw: st.DrawFn) -> tuple[Flow, dict[str, int]]:
    """Chains side by side that narrow, sometimes with a way across: many corners a segment."""
    steps: list[Step] = [Step(("t",), ("stem",), draw(st.integers(0, 5)))]
    sizes = {"t": 900, "stem": draw(st.integers(100, 800))}
    ends: list[str] = []
    for side in range(draw(st.integers(2, 3))):
        last, size = "stem", draw(st.integers(20, 200))
        for level in range(draw(st.integers(1, 3))):
            name = f"s{side}_{level}"
            across = (ends[-1],) if ends and draw(st.integers(0, 5)) == 0 else ()
            steps.append(Step((last, *across), (name,), draw(st.integers(1, 20))))
            size = max(1, size - draw(st.integers(0, 60)))
            sizes[name], last = size, name
        ends.append(last)
    steps.append(Step(tuple(ends), ("answer",), 1))
    return Flow(steps=tuple(steps), picture="t", results=("answer",)), sizes


@st.composite
def flows(draw: st.DrawFn) -> tuple[Flow, dict[str, int]]:
    """Small graphs of any shape, most tensors allowed to cross."""
    names = ["t0"]
    steps: list[Step] = []
    for index in range(draw(st.integers(1, 7))):
        reads = draw(st.sets(st.sampled_from(names), min_size=1, max_size=3))
        makes = [f"t{index + 1}"] + [f"u{index + 1}"] * draw(st.booleans())
        steps.append(Step(tuple(sorted(reads)), tuple(makes), draw(st.integers(0, 20))))
        names.extend(makes)
    more = draw(st.sets(st.sampled_from(names[1:]), max_size=2))
    last = steps[-1].makes[0]
    results = (*sorted(more - {last}), last)
    flow = Flow(steps=tuple(steps), picture="t0", results=results)
    crossing = draw(st.sets(st.sampled_from(names))) if draw(st.booleans()) else set(names)
    sizes = {name: draw(st.integers(1, 30)) for name in names if name in crossing | {"t0"}}
    sizes.pop(last, None)
    return flow, sizes


def all_cuts(flow: Flow, sizes: dict[str, int]) -> set[tuple[int, int]]:
    """(work, size) of every set of steps that could run first, whatever it is."""
    found: set[tuple[int, int]] = set()
    live = flow.live_steps
    for first in chain.from_iterable(combinations(live, n) for n in range(len(live) + 1)):
        made = {name for index in first for name in flow.steps[index].makes} | {flow.picture}
        if any(not made.issuperset(flow.steps[index].reads) for index in first):
            continue
        rest = [flow.steps[index] for index in live if index not in first]
        wanted = set(flow.results).union(*(step.reads for step in rest))
        crossing = made & wanted
        if crossing <= sizes.keys():
            work = sum(flow.steps[index].work for index in first)
            found.add((work, sum(sizes[name] for name in crossing)))
    return found


def corners(points: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """Corners of the lower left hull."""
    hull: list[tuple[int, int]] = []
    for work, size in sorted(points):
        if hull and size >= min(s for _, s in hull):
            continue
        while len(hull) > 1:
            (w0, s0), (w1, s1) = hull[-2:]
            if Fraction(s1 - s0, w1 - w0) < Fraction(size - s1, work - w1):
                break
            hull.pop()
        hull.append((work, size))
    return set(hull)


@settings(max_examples=150, deadline=None)
@given(flows() | parallel_flows())
def test_every_corner_of_all_cuts_is_found(drawn: tuple[Flow, dict[str, int]]) -> None:
    flow, sizes = drawn
    every = all_cuts(flow, sizes)
    found = {(each.work, each.size) for each in flow.cheapest_sets(sizes)}
    assert found <= every
    assert corners(every) <= found


@settings(max_examples=100, deadline=None)
@given(flows())
def test_what_is_found_separates(drawn: tuple[Flow, dict[str, int]]) -> None:
    flow, sizes = drawn
    for each in flow.cheapest_sets(sizes):
        assert flow.separate(each.tensors)
        assert not any(flow.separate(set(each.tensors) - {name}) for name in each.tensors)
    for _, name in flow.separators():
        assert flow.separate({name})
