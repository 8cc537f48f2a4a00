"""Options as a router meets them: by hand, and drawn."""

from collections.abc import Sequence

from hypothesis import strategies as st
from msgspec.structs import replace

from hybridge.edge.best_first import BestFirst
from hybridge.edge.demand import Demand
from hybridge.edge.duration import Duration
from hybridge.edge.question import Question, Sight
from hybridge.edge.router import Option, Part, explain
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
    work_ms: float = 0.0,
    similarity: float | None = None,
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
        work_ms=work_ms,
        similarity=similarity,
    )


def best_first(in_order: Sequence[Option], looked_at: list[str] | None = None) -> BestFirst[Option]:
    """These, noting the plans that are worked out."""

    def work_out(at: int) -> Option:
        if looked_at is not None:
            looked_at.append(str(in_order[at].plan))
        return in_order[at]

    return BestFirst(
        work_out,
        agreements=[each.agreement for each in in_order],
        soonest_ms=lambda at: in_order[at].total_ms,
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
def parts_of(draw: st.DrawFn, each: Option) -> tuple[Part, ...]:
    """Of its frame: none agrees more often than the next, nor than the whole."""
    values = draw(st.lists(st.floats(0.0, each.agreement.value), max_size=3))
    return tuple(
        Part(layers, value, Duration(draw(times), draw(st.just(0.0) | st.floats(0, 1e5))))
        for layers, value in enumerate(sorted(values), start=1)
    )


@st.composite
def unsure_tables(draw: st.DrawFn) -> list[Option]:
    """The same with times that vary, prices, and cuts among the plans."""
    options = draw(tables())
    return [
        replace(
            each,
            plan=draw(st.sampled_from([each.plan, Plan.split(f"c{at}", head="int8", codec="raw")]))
            if each.plan.kind is PlanKind.CLOUD
            else each.plan,
            variance=draw(st.just(0.0) | st.floats(0, 1e5)),
            energy_j=draw(st.integers(0, 3)),
            cost=draw(st.integers(0, 3)),
            work_ms=draw(st.just(0.0) | st.floats(0, 100)),
            similarity=draw(st.sampled_from([None, 0.2, 0.6])),
            parts=draw(parts_of(each)) if each.plan.kind is PlanKind.CLOUD else (),
        )
        for at, each in enumerate(options)
    ]


demands = st.builds(
    Demand,
    objective=st.sampled_from(Objective),
    min_agreement=st.none() | st.floats(0.01, 0.99),
    stay=st.booleans(),
    only_cuts=st.booleans(),
    max_similarity=st.sampled_from([1.0, 0.5, 0.1]),
    bytes_per_hour=st.sampled_from([0.0, 2.0, 10.0, inf]),
    outputs=st.booleans(),
)
sights = st.none() | st.builds(Sight, agrees=st.floats(0, 1), enough=st.booleans())
questions = st.builds(
    Question,
    left_ms=left,
    demand=demands,
    sight=sights,
    spent_bytes=st.sampled_from([0.0, 1.0, 9.0]),
    price_per_ms=st.just(0.0) | st.floats(0, 0.1),
)


def fitting(options: list[Option], left_ms: float) -> list[Option]:
    return [each for each in options if each.total_ms <= left_ms]


def reasons(table: list[Option], question: Question) -> dict[str, str]:
    rows = explain(table, question)
    return {str(each.plan): reason for each, reason in rows}
