from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridge.report.inspect.pareto import on_front
from hybridge.report.inspect.scatter import Axis, Point, linear, logarithmic, percent, scatter, si

COST = st.tuples(st.integers(0, 9), st.integers(0, 9))


@settings(deadline=None)
@given(st.lists(COST, min_size=1))
def test_the_front_beats_the_rest_and_not_itself(costs: list[tuple[int, int]]) -> None:
    marks = on_front(costs)
    front = [cost for cost, stays in zip(costs, marks, strict=True) if stays]
    assert front
    for cost, stays in zip(costs, marks, strict=True):
        beaten = any(x <= cost[0] and y <= cost[1] and (x, y) != cost for x, y in front)
        assert beaten != stays


@settings(deadline=None)
@given(st.lists(st.floats(1.0, 1e9), min_size=1))
def test_ticks_lie_on_the_axis(values: list[float]) -> None:
    for axis in (logarithmic(values, name="", unit="B"), linear(values, name="")):
        shares = [axis.share(value) for value, _ in axis.ticks]
        assert all(0 <= share <= 1 for share in shares)
        assert shares == sorted(shares)
        assert all(0 <= axis.share(value) <= 1 for value in values)


@pytest.mark.parametrize(
    ("values", "low"), [([0.97, 1.0], 0.96), ([0.5], 0.5), ([0.04], 0.0), ([1.0], 0.99), ([], 0.0)]
)
def test_shares_end_at_all(values: list[float], low: float) -> None:
    axis = percent(values, name="")
    assert axis.low <= min(values, default=0.0)
    assert axis.low == pytest.approx(low, abs=0.011)
    assert axis.ticks[0] == (1.0, "100")


def test_points_stand_where_their_figures_say() -> None:
    plane = Axis(0.0, 10.0, (), "")
    points = [
        Point(0.0, 0.0, "red", "A", "low", front=True),
        Point(10.0, 10.0, "red", "B", "high", front=True, error=1.0),
        Point(5.0, 2.0, "red", "", "beaten <b>"),
    ]
    drawn = scatter(points, x=plane, y=plane, described="all")
    places = re.findall(r'<circle cx="([\d.]+)%" cy="([\d.]+)"', drawn)
    left, right, height = 11.0, 97.0, 330 - 38 - 40
    assert (float(places[0][0]), float(places[0][1])) == (54.0, pytest.approx(38 + 0.8 * height))
    assert (float(places[1][0]), float(places[2][0])) == (left, right)
    assert drawn.count('class="front"') == 3
    assert "beaten &lt;b&gt;" in drawn


def test_the_name_of_a_level_lies_over_points() -> None:
    plane = Axis(0.0, 10.0, (), "")
    drawn = scatter(
        [Point(9.5, 5.0, "red", "", "near")],
        x=plane,
        y=plane,
        described="all",
        levels=[(5.0, "as large as the picture", "cloud")],
    )
    assert drawn.index("<circle") < drawn.index("as large as the picture")


def codes_in(points: list[Point]) -> list[tuple[str, float]]:
    plane = Axis(0.0, 10.0, (), "")
    drawn = scatter(points, x=plane, y=plane, described="all")
    found = re.findall(r'<text x="[\d.]+%" y="([\d.]+)"[^>]*class="code">(\w+)<', drawn)
    return [(code, float(at)) for at, code in found]


def test_codes_stand_beside_points_and_not_on_each_other() -> None:
    def named(x: float, y: float, code: str) -> Point:
        return Point(x, y, "red", code, code, front=True)

    far = codes_in([named(1, 5, "A"), named(9, 5, "B")])
    assert far[0][1] == far[1][1]
    (upper, above), (lower, below) = codes_in([named(5, 5.4, "A"), named(5.2, 5, "B")])
    assert (upper, lower) == ("A", "B")
    assert below > above + 12
    crowd = codes_in([named(5, 5, code) for code in "ABC"])
    assert [code for code, _ in crowd] == ["A", "B"]
    column = codes_in([named(5, 5.0 - at / 2, code) for at, code in enumerate("ABC")])
    assert [code for code, _ in column] == ["A", "C"]


def test_units() -> None:
    assert [si(value, "B") for value in (5, 2_000, 3e6)] == ["5 B", "2 kB", "3 MB"]
