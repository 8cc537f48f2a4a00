"""What deciding on a plan takes: weighing every plan of a table, and choosing among them."""

import time
from collections.abc import Callable, Sequence

from _common import Summary
from msgspec.structs import replace

from hybridge.edge.agent import Agent
from hybridge.edge.question import Question
from hybridge.edge.router import Option, choose
from hybridge.shared.deadline import Deadline, monotonic
from hybridge.shared.plan import PlanKind

PLANS = 30
MANY_PLANS = f"choose() among {PLANS} plans"
DECISIONS = 2_000
_LEFT_MS = 100.0


def decision_times_us(agent: Agent) -> dict[str, Summary]:
    """What deciding costs, in µs: with the cloud, then without."""
    found = _decisions(agent, "with a cloud")
    many = as_many(agent.options(_deadline()), PLANS)
    found[MANY_PLANS] = _times_us(lambda: choose(many, Question(left_ms=_LEFT_MS)))
    agent.uplink = None
    return found | _decisions(agent, "alone")


def _decisions(agent: Agent, name: str) -> dict[str, Summary]:
    options = list(agent.options(_deadline()))
    plans = f"{len(options)} plans, {name}"
    question = Question(left_ms=_LEFT_MS)
    return {
        f"options() of {plans}, all of them": _times_us(lambda: list(agent.options(_deadline()))),
        f"choose() among {plans}": _times_us(lambda: choose(options, question)),
        f"both of {plans}": _times_us(lambda: choose(agent.options(_deadline()), question)),
    }


def as_many(options: Sequence[Option], number: int) -> list[Option]:
    """So many options, the local one among them: some left out, or repeated with other sizes."""
    local = [option for option in options if option.plan.kind is PlanKind.LOCAL]
    remote = [option for option in options if option.plan.kind is not PlanKind.LOCAL]
    wanted = number - len(local)
    repeated = (
        replace(remote[at % len(remote)], size_bytes=remote[at % len(remote)].size_bytes + at)
        for at in range(wanted)
    )
    return [*local, *repeated]


def _deadline() -> Deadline:
    return Deadline.after_ms(_LEFT_MS, now_s=monotonic())


def _times_us(work: Callable[[], object]) -> Summary:
    return Summary.of([_time_us(work) for _ in range(DECISIONS)])


def _time_us(work: Callable[[], object]) -> float:
    start_ns = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - start_ns) / 1e3
