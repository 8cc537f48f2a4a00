"""Which plan to take. Pure: values in, a decision out, in microseconds.

Beneath every choice lies the agent's net (net.py): the light model starts early enough for an
answer of the device's own to be there. What a remote plan adds is therefore

    gain = P(its answer comes in time) * (its agreement - the light model's) - price * its work

and the plan of the largest gain is taken: the highest expected agreement of the answer given in the
end. The price of the device's time is zero while there is time to spare; on a full processor
(processor.py) it lets go first what gains least for what it takes from others. An answer that comes
before the net starts spares the light model's own work, which counts as gained. Gains within the
standard error of the best plan's agreement are ties, broken by the earlier finish, then by fewer
bytes, then by energy.

The rule is asked again when the light model has answered. How sure it was says how much there is
left to gain: of pictures on which it agrees with the large model with probability a, remote plans
are taken to mend a share in proportion, (1 - a) / (1 - its agreement over all). Where nothing worth
mentioning is left, or the answer is as sure as the caller demands, it is given at once: that is all
a cascade is.

Another objective than accuracy takes, of the plans whose expected agreement is high enough, the one
that is soonest, or sends the fewest bytes, or takes the least energy or money.
"""

import math
from collections.abc import Callable, Sequence
from enum import StrEnum
from operator import attrgetter
from typing import NamedTuple

import msgspec

from ..shared.manifest import Rate
from ..shared.objective import Objective
from ..shared.plan import Plan, PlanKind
from .best_first import BestFirst
from .demand import ANYTHING, Demand
from .duration import Duration
from .net import SAFE
from .question import Question, Sight

_TRIED = 0.1
"""A remote plan less likely than this to come in time is not tried: it would only be in the way."""
UNLIKELY = 0.02
"""An answer under way that is less likely than this to come in time is not waited for."""
_SPARED = 0.5
"""Of the plans taken before the light model has answered; the others are taken afterwards too."""
_PATIENCE = 0.001
"""So much expected agreement the light model may cost by going first."""
_SURE = 1.2816
"""Standard deviations up to which the light model is allowed for where it goes first: 9 of 10."""


class Part(msgspec.Struct, frozen=True):
    """The first layers of an option's frame: what their answer is worth, and when it is there."""

    layers: int
    agreement: float
    total: Duration


class Option(msgspec.Struct, frozen=True):
    """One plan with what it is expected to give and to take.

    Times in ms, means; `variance` in ms squared is that of their sum, 0 for times that are sure.
    `work_ms` is what the device does for it, were it alone. `similarity` is how alike pictures were
    that an eavesdropper rebuilt from what it sends; None if nobody has tried. `parts` of its frame,
    the shortest first, are answered where the whole comes too late; none agrees more often than the
    next.
    """

    plan: Plan
    agreement: Rate
    size_bytes: int
    device_ms: float
    network_ms: float
    cloud_ms: float
    variance: float = 0.0
    energy_j: float = 0.0
    cost: float = 0.0
    work_ms: float = 0.0
    similarity: float | None = None
    parts: tuple[Part, ...] = ()

    @property
    def total_ms(self) -> float:
        return self.device_ms + self.network_ms + self.cloud_ms

    @property
    def total(self) -> Duration:
        return Duration(self.device_ms + self.network_ms + self.cloud_ms, self.variance)

    @property
    def least(self) -> Duration:
        """Until there is something to answer from."""
        return self.parts[0].total if self.parts else self.total

    @property
    def least_layers(self) -> int | None:
        """How many layers that is; None: all there are."""
        return self.parts[0].layers if self.parts else None

    def most_layers(self, left_ms: float) -> int | None:
        """How many may come in time; None: all. What hardly will would be in the way of others."""
        if self.total.within(left_ms) >= _TRIED:
            return None
        there = [part.layers for part in self.parts if part.total.within(left_ms) >= _TRIED]
        return max(there, default=self.least_layers)

    def sure_part(self, left_ms: float) -> Part | None:
        """What is answered where the whole never is in time, and what comes is no chance."""
        if self.parts and self.total.within(left_ms) == 0.0:
            for part in reversed(self.parts):
                if within := part.total.within(left_ms):
                    return part if within == 1.0 else None
        return None

    def expected(self, left_ms: float, floor: float) -> tuple[float, float, float]:
        """P(whole in time), P(anything in time), and how much more it agrees than `floor` does.

        The last is the mean over what has come by then, 0 where nothing has.
        """
        whole = self.total.within(left_ms)
        if self.parts and whole < SAFE:
            return whole, *self.with_parts(whole, left_ms, floor)
        return whole, whole, whole * (self.agreement.value - floor)

    def with_parts(self, whole: float, left_ms: float, floor: float) -> tuple[float, float]:
        """The last two of `expected`, where the first is not as good as sure."""
        anything, gained = whole, whole * (self.agreement.value - floor)
        for part in self.parts[::-1]:
            agreement, within = part.agreement, part.total.within(left_ms)
            if within > anything:
                if agreement > floor:
                    gained += (within - anything) * (agreement - floor)
                anything = within
        return anything, gained


class Light(StrEnum):
    """When the light model runs: before the plan, while its answer is awaited, or at the last."""

    FIRST = "first"
    BESIDE = "beside"
    NET = "net"


class Decision(NamedTuple):
    """The plan taken, how likely an answer by it comes in time, and when the light model runs.

    `alone`: no other plan may be taken and come in time, and none will with less time left.
    `for_all`: all requests are to take this plan, without a light model (two_ways.py).
    """

    option: Option
    in_time: float
    light: Light = Light.NET
    alone: bool = False
    for_all: bool = False

    @property
    def fits(self) -> bool:
        """False if nothing is likely to be in time, the device itself included."""
        return self.in_time > 0.0


class _Candidate(msgspec.Struct, frozen=True):
    option: Option
    finish_ms: float
    in_time: float
    gain: float
    whole: float
    """How likely its answer is made of all that was sent."""


def choose(options: Sequence[Option], question: Question) -> Decision:
    """The best option for the time left; `options` must hold the local plan."""
    local, demand, sight = local_of(options), question.demand, question.sight
    if sight is not None and sight.enough and not demand.outputs:
        return Decision(local, 1.0, Light.FIRST)
    if question.way.within(question.left_ms) < _TRIED:
        options = (local,)
    candidates = _candidates(options, local, question)
    if demand.outputs:
        candidates = [each for each in candidates if each.option is not local] or candidates
    if not candidates:
        return Decision(local, 0.0, Light.FIRST, alone=True)
    taken = _pick(candidates, local, question)
    if taken.option is local or sight is not None:
        alone = taken.option is local and len(candidates) == 1
        return Decision(taken.option, taken.in_time, Light.FIRST, alone=alone)
    light = _light(taken, local, question)
    return Decision(taken.option, taken.in_time, light)


def sparing(option: Option, in_time: float, question: Question) -> float:
    """How likely its answer is there before the light model has to start."""
    net_ms = question.safe_net_ms if in_time >= SAFE else question.net_ms
    return option.least.within(question.left_ms - net_ms)


def worth_waiting(
    running: Option, local: Option, *, in_time: float, demand: Demand, sight: Sight
) -> bool:
    """Whether an answer under way, in time with `in_time`, still adds to the device's own."""
    if demand.outputs:
        return in_time >= UNLIKELY
    if sight.enough or in_time < UNLIKELY:
        return False
    gain = _left_to_gain(sight, local) * in_time * (running.agreement.value - local.agreement.value)
    return gain > running.agreement.standard_error or (demand.enough is not None and gain > 0.0)


def _left_to_gain(sight: Sight | None, local: Option) -> float:
    """What share of a remote plan's average gain is to be had, given the light model's answer."""
    base = local.agreement.value
    return (1.0 - sight.agrees) / (1.0 - base) if sight is not None and base < 1.0 else 1.0


def _candidates(options: Sequence[Option], local: Option, question: Question) -> list[_Candidate]:
    """What may be taken and may come in time, with what it adds to the device's own answer.

    The local option, if it is among them, stands first. Of options that stand in order, those are
    left out that agree too little to be taken whatever time they need, and those that are done
    later than the soonest so far and add no more than that even if they are surely in time.
    """
    left_ms, demand, sight = question.left_ms, question.demand, question.sight
    scale = _left_to_gain(sight, local)
    found: list[_Candidate] = []
    in_time = 1.0 if sight is not None else local.total.within(left_ms)
    floor = in_time * local.agreement.value
    most = error = least = soon_gain = soon_error = 0.0
    soon_ms = math.inf
    if in_time > 0.0:
        finish_ms = 0.0 if sight is not None else local.total_ms
        found.append(_Candidate(local, finish_ms, in_time, 0.0, in_time))
    free, price = demand is ANYTHING, question.price_per_ms
    spared = price * local.work_ms if sight is None else 0.0
    in_order = options if isinstance(options, BestFirst) else None
    if demand.objective is not Objective.ACCURACY:
        in_order = None
    for at in range(len(options)):
        if in_order is not None and most > 0.0:
            rate = in_order.agreements[at]
            surely = scale * max(rate.value - floor, 0.0) + spared
            if rate.value < least and surely < most - error:
                break
            # One that adds as much and is surer of it would say what is a tie.
            beaten = surely <= soon_gain and rate.standard_error >= soon_error
            if beaten and in_order.soonest_ms(at) > soon_ms:
                continue
        option = options[at]
        if option is local:
            continue
        agreement = option.agreement.value
        if not free and forbidden(option, question):
            continue
        total = option.total
        whole = in_time = total.within(left_ms)
        gained = whole * (agreement - floor)
        if option.parts and whole < SAFE:
            in_time, gained = option.with_parts(whole, left_ms, floor)
        if in_time >= _TRIED:
            gain = scale * gained - price * option.work_ms
            if spared:
                gain += spared * sparing(option, in_time, question)
            found.append(_Candidate(option, total.mean_ms, in_time, gain, whole))
            if gain > most:
                most, error = gain, option.agreement.standard_error
                least = agreement - error
            if total.mean_ms < soon_ms:
                soon_ms, soon_gain = total.mean_ms, gain
                soon_error = option.agreement.standard_error
    return found


def _pick(candidates: Sequence[_Candidate], local: Option, question: Question) -> _Candidate:
    demand, sight = question.demand, question.sight
    enough = demand.enough
    if enough is not None and demand.objective is not Objective.ACCURACY:
        enough = _agreement_asked(question)
        good = [each for each in candidates if _suffices(each, local, enough, sight)]
        if good:
            return min(good, key=_by(demand.objective))
    best = max(candidates, key=attrgetter("gain"))
    error = min(e.option.agreement.standard_error for e in candidates if e.gain == best.gain)
    least = best.option.agreement.value - error
    # Of two that agree as often the one that is sooner done is no worse, unless parts are counted.
    alike = not question.price_per_ms and best.in_time == best.whole
    ties = [
        e
        for e in candidates
        if e.gain >= best.gain - error or (alike and e.option.agreement.value >= least)
    ]
    if enough is not None and sight is not None and best.option is not local:
        # What the light model says is not sure enough, though it may be as good as the others.
        ties = [each for each in ties if each.option is not local]
    return min(ties, key=_tie_break)


def _suffices(each: _Candidate, local: Option, enough: float, sight: Sight | None) -> bool:
    """Whether the answer that is given in the end is expected to agree often enough."""
    if each.option is local:
        # One that has answered was asked whether it is sure; before, its average has to do.
        return sight is None and local.agreement.value >= enough
    return each.whole >= 0.5 and each.option.agreement.value >= enough


def _by(objective: Objective) -> "Callable[[_Candidate], tuple[float, ...]]":
    match objective:
        case Objective.BYTES:
            return lambda each: (each.option.size_bytes, *_tie_break(each)[:2])
        case Objective.ENERGY:
            return lambda each: (each.option.energy_j, *_tie_break(each)[:2])
        case Objective.COST:
            return lambda each: (each.option.cost, *_tie_break(each)[:2])
        case _:
            return lambda each: _tie_break(each)[:2]


def _tie_break(each: _Candidate) -> tuple[float, int, float, Plan]:
    option = each.option
    return each.finish_ms, option.size_bytes, option.energy_j, option.plan


def _light(taken: _Candidate, local: Option, question: Question) -> Light:
    """First where that costs next to nothing: its answer may be all that is needed.

    Who wants to be quick waits for it only if it spares more time than it takes, and has it run
    beside: else its turn comes when the answer under way is overdue, or as the net. A processor
    that runs it for everybody has less time for everybody's remote plans. On a full one it goes
    first only where that spares as much work as it takes.
    """
    demand = question.demand
    if demand.objective is Objective.LATENCY:
        spared_ms = question.sure_share * taken.option.total_ms
        return Light.FIRST if local.total_ms < spared_ms and not demand.outputs else Light.BESIDE
    full, work_ms = question.price_per_ms > 0.0, taken.option.work_ms
    spared_ms = local.work_ms * sparing(taken.option, taken.in_time, question) if full else 0.0
    if spared_ms > (1.0 - _SPARED) * work_ms:
        return Light.NET
    wait_ms = local.total.quantile(_SURE)
    base = local.agreement.value
    _, _, now = taken.option.expected(question.left_ms, base)
    _, _, later = taken.option.expected(question.left_ms - wait_ms, base)
    if not demand.outputs and now - later <= _PATIENCE:
        return Light.FIRST
    return Light.NET


def local_of(options: Sequence[Option]) -> Option:
    """The one that every bundle has."""
    return next(option for option in options if option.plan.kind is PlanKind.LOCAL)


def explain(
    options: Sequence[Option], question: Question, decision: Decision | None = None
) -> list[tuple[Option, str]]:
    """Every option, best first, with the reason why it was or was not taken."""
    decision = decision or choose(options, question)
    plan = decision.option.plan  # as it is among these: for all it was another
    taken = next(option for option in options if option.plan == plan)
    decision = decision._replace(option=taken)
    order = sorted(
        options,
        key=lambda o: (o is not taken, -o.agreement.value, o.total_ms, o.size_bytes, o.plan),
    )
    return [
        (option, forbidden(option, question) or _reason(option, decision, question))
        for option in order
    ]


def forbidden(option: Option, question: Question) -> str:
    """Why an option must not be taken; empty if it may."""
    return question.demand.forbids(
        option.plan,
        option.size_bytes,
        spent_bytes=question.spent_bytes,
        similarity=option.similarity,
    )


def _reason(option: Option, decision: Decision, question: Question) -> str:
    left_ms, demand, sight = question.left_ms, question.demand, question.sight
    taken = decision.option
    local = option.plan.kind is PlanKind.LOCAL
    whole, in_time, gained = option.expected(left_ms, 0.0)
    if local and sight is not None:
        whole = in_time = 1.0
    if option is taken:
        return _why_taken(decision, question)
    if option.device_ms == math.inf:
        return "never measured on this device"
    if option.total_ms == math.inf:
        return "the cloud is out of reach"
    if in_time < _TRIED:
        return f"too slow by {option.total_ms - left_ms:.0f} ms"
    if sight is not None and sight.enough:
        return "the light model's answer is good enough"
    if local and demand.outputs:
        return "makes none of the outputs asked for"
    if part := option.sure_part(left_ms):
        return f"{_first(part)} in time, agreeing with {part.agreement:.1%} then"
    if in_time > whole:
        return f"answers from what has come, agreeing with {gained / in_time:.1%} then"
    best, done_ms = taken.agreement.value, taken.total_ms
    if part := taken.sure_part(left_ms):
        best, done_ms = part.agreement, part.total.mean_ms
    gap = best - option.agreement.value
    if in_time < decision.in_time - 0.01:
        return f"in time with {in_time:.0%} only, {option.total_ms:.0f} of {left_ms:.0f} ms"
    if demand.objective is not Objective.ACCURACY:
        if (asked := _agreement_asked(question)) > option.agreement.value:
            return f"agrees with {option.agreement.value:.1%}, asked are {asked:.1%}"
        if _agrees_enough(taken, question):
            return f"not the best in {demand.objective}"
    if gap > 0:
        return f"agrees {gap * 100:.1f} points less"
    if option.total_ms > done_ms:
        return f"as good within the standard error, {option.total_ms - done_ms:.0f} ms later"
    return "as good within the standard error, more bytes"


def _why_taken(decision: Decision, question: Question) -> str:
    demand, sight = question.demand, question.sight
    if not decision.fits:
        return "taken: nothing fits, and the device always has an answer"
    if decision.for_all:
        return "taken, for all requests: that and the light model have no room on this device"
    if sight is not None and decision.option.plan.kind is PlanKind.LOCAL:
        sure = f"the light model is sure: it agrees with {sight.agrees:.1%}"
        return f"taken: {sure}" if sight.enough else f"taken: nothing worth waiting for, {sure}"
    if demand.objective is not Objective.ACCURACY:
        if _agrees_enough(decision.option, question):
            return f"taken: the best in {demand.objective} that agrees often enough"
        asked = _agreement_asked(question)
        return f"taken: the best agreement that fits; none in time has the {asked:.1%} asked for"
    option, left_ms = decision.option, question.left_ms
    if part := option.sure_part(left_ms):
        return f"taken: the best agreement that fits, {part.agreement:.1%}; {_first(part)} in time"
    whole, in_time, gained = option.expected(left_ms, 0.0)
    if in_time > whole:
        parts = f"all of it in time with {whole:.0%}, layers to answer from with {in_time:.0%}"
        return f"taken: the best expected agreement, {gained / in_time:.1%} of what comes; {parts}"
    if decision.in_time < SAFE:
        return f"taken: the best expected agreement, in time with {decision.in_time:.0%}"
    return "taken: the best agreement that fits"


def _agreement_asked(question: Question) -> float:
    """What plans are held to where something else than accuracy is to be best."""
    enough = question.demand.enough or 0.0
    if question.sight is not None:  # all that a plan gets wrong may be what the light model doubts
        enough = 1.0 - (1.0 - enough) * (1.0 - question.sure_share)
    return enough


def _agrees_enough(option: Option, question: Question) -> bool:
    in_time = option.total.within(question.left_ms)
    local = option.plan.kind is PlanKind.LOCAL
    if not local and in_time < 0.5:
        return False
    return option.agreement.value >= _agreement_asked(question)


def _first(part: Part) -> str:
    return f"its first {part.layers} layers are" if part.layers > 1 else "its first layer is"
