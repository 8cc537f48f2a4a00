"""The rivals, driven through the agent as the router is: same net, same estimates, other choices.

    local              never asks the cloud
    cloud-jpeg         the picture, as JPEG of the best quality that the mean forecast gets in time
    cloud-raw          the picture as it is
    fixed:PLAN         always the same plan
    neurosurgeon       the plan of least mean latency (Kang et al., ASPLOS 2017)
    cascade            the light model first; the cloud if it is less sure than a threshold, without
                       asking whether there is time (axonmesh, Sedna)
    ours               the router
    ours-whole         the router, without the plans that may be answered from a part
    ours-latency       the router, told to be quick at an agreement of at least 98 %

All of them fall back on the light model when their answer would be late: the net is the agent's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hybridge.edge.demand import ANYTHING, Demand
from hybridge.edge.policy import Policy, RouterPolicy
from hybridge.edge.question import Question, Sight
from hybridge.edge.router import Decision, Light, Option
from hybridge.shared.objective import Objective
from hybridge.shared.plan import Plan, PlanKind

OURS = "ours"
LATENCY = "ours-latency"
LEAST_AGREEMENT = 0.98
_DEMANDS = {LATENCY: Demand(objective=Objective.LATENCY, min_agreement=LEAST_AGREEMENT)}
CASCADE_THRESHOLD = 0.8
"""Sedna's and axonmesh's examples ask the cloud below 0.7 to 0.9."""


def make_policy(name: str) -> Policy:
    """A policy by its name; ValueError if there is none of that name."""
    kind, _, plan = name.partition(":")
    match kind:
        case "ours" | "ours-latency":
            return RouterPolicy()
        case "ours-whole":
            return Whole()
        case "local":
            return Fixed(Plan.local())
        case "cloud-raw":
            return Fixed(Plan.cloud("raw"))
        case "fixed":
            return Fixed(Plan.parse(plan))
        case "cloud-jpeg":
            return BestJpeg()
        case "neurosurgeon":
            return Neurosurgeon()
        case "cascade":
            return Cascade()
    raise ValueError(f"no policy {name!r}")


def demand_of(name: str) -> Demand:
    """What the agent is asked for under a policy."""
    return _DEMANDS.get(name, ANYTHING)


class Whole(RouterPolicy):
    """As if no frame came in layers."""

    def choose(self, options: Sequence[Option], question: Question) -> Decision:
        ways = question.ways
        if ways is not None:
            ways = ways._replace(lit=_whole(ways.lit), unlit=_whole(ways.unlit))
        return super().choose(_whole(options), question._replace(ways=ways))


def _whole(options: Sequence[Option]) -> list[Option]:
    return [each for each in options if not each.parts]


class _Stubborn:
    """What was sent is waited for, until the deadline."""

    def worth_waiting(
        self, running: Option, local: Option, *, in_time: float, demand: Demand, sight: Sight
    ) -> bool:
        return True


def _local(options: Sequence[Option]) -> Option:
    return next(option for option in options if option.plan.kind is PlanKind.LOCAL)


def _decided(option: Option, question: Question) -> Decision:
    local = option.plan.kind is PlanKind.LOCAL
    in_time = option.total.within(question.left_ms)
    return Decision(option, in_time, Light.FIRST if local else Light.NET)


def _reachable(option: Option) -> bool:
    return option.total_ms < float("inf")


@dataclass(frozen=True)
class Fixed(_Stubborn):
    """Always the same plan."""

    plan: Plan

    def choose(self, options: Sequence[Option], question: Question) -> Decision:
        wanted = next((o for o in options if o.plan == self.plan and _reachable(o)), None)
        if question.sight is not None or wanted is None:
            wanted = _local(options)
        return _decided(wanted, question)


class BestJpeg(_Stubborn):
    """The best quality whose mean forecast is in time, else the worst."""

    def choose(self, options: Sequence[Option], question: Question) -> Decision:
        jpegs = [o for o in options if o.plan.codec.startswith("jpeg") and _reachable(o)]
        if question.sight is not None or not jpegs:
            return _decided(_local(options), question)
        fitting = [o for o in jpegs if o.total_ms <= question.left_ms]
        if fitting:
            return _decided(max(fitting, key=lambda o: o.size_bytes), question)
        return _decided(min(jpegs, key=lambda o: o.size_bytes), question)


class Neurosurgeon(_Stubborn):
    """Least mean latency among running the large model in the cloud, whole or split.

    The device's whole large model is no plan here, as it is none of ours: the light one stands for
    what the device can do alone.
    """

    def choose(self, options: Sequence[Option], question: Question) -> Decision:
        remote = [o for o in options if o.plan.kind is not PlanKind.LOCAL and _reachable(o)]
        if question.sight is not None or not remote:
            return _decided(_local(options), question)
        return _decided(min(remote, key=lambda o: o.total_ms), question)


class Cascade(_Stubborn):
    """The light model first, then the cloud with JPEG 90 if it is not sure."""

    def choose(self, options: Sequence[Option], question: Question) -> Decision:
        local = _local(options)
        picture = next(
            (o for o in options if o.plan == Plan.cloud("jpeg-90") and _reachable(o)), None
        )
        if picture is None:
            return _decided(local, question)
        if question.sight is None:
            return Decision(picture, picture.total.within(question.left_ms), Light.FIRST)
        sure = question.sight.agrees >= CASCADE_THRESHOLD
        return _decided(local if sure else picture, question)
