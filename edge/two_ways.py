"""The rule on a board that has no room for the light model and a remote plan for everybody. Pure.

There are two ways to use it: the light model for everybody, and a remote plan for those that it is
least sure of, as many as there is room for; or a remote plan for everybody, and the light model
only as the net. Request by request the first always seems better: its plans are judged by a board
that the others fill with light models. So both are judged as wholes, by how often the answers of
all requests would agree if all of them went that way:

    with the light model    base + gain * mended(room / work) / (1 - base)    of the best plan
    without                 base + gain                            of the plan the router takes

where `gain` is P(in time) * (its agreement - base) and mended(s) the share of all answers that
differ and are among the least sure share s.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..shared.objective import Objective
from . import router
from .question import Question
from .router import Decision, Light, Option, sparing

_BETTER = 0.03
"""Both are estimates: by so much the second has to be ahead."""
_SPARES = 0.9
"""So likely its answer has to be there before the light model has to start: else both run."""


class Ways(NamedTuple):
    """The plans as they would be if all requests went one way.

    With the light model first there are `room_ms` of work left a request; `mended` tells how many
    of all answers differ and are among its least sure share.
    """

    lit: Sequence[Option]
    unlit: Sequence[Option]
    room_ms: float
    mended: Callable[[float], float]


def choose(options: Sequence[Option], question: Question) -> Decision:
    """The best option for the time left, or the one for everybody if that is the better way."""
    return _for_everybody(question) or router.choose(options, question)


def _for_everybody(question: Question) -> Decision | None:
    """The plan that all requests should take without a light model; None if they should not."""
    ways, demand, left_ms = question.ways, question.demand, question.left_ms
    best = demand.objective is Objective.ACCURACY and demand.enough is None and not demand.outputs
    if ways is None or question.sight is not None or not best:
        return None
    alone = router.choose(ways.unlit, question._replace(price_per_ms=0.0))
    local = router.local_of(ways.unlit)
    if alone.option is local or sparing(alone.option, alone.in_time, question) < _SPARES:
        return None
    if (base := local.agreement.value) >= 1.0:
        return None
    gain = alone.option.expected(left_ms, base)[2] - _BETTER
    after_ms = left_ms - local.total_ms
    for option in ways.lit:
        if option.work_ms <= 0.0 or router.forbidden(option, question):
            continue
        share = min(ways.room_ms / option.work_ms, 1.0)
        scale = ways.mended(share) / (1.0 - base)
        if scale * option.expected(after_ms, base)[2] >= gain:
            return None
    return alone._replace(light=Light.NET, for_all=True)
