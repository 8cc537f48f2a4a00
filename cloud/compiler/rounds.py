"""Measuring fewer plans on fewer pictures, with the same front in the end: successive elimination.

All plans are measured on a few pictures, those that are left on twice as many, and so on until the
last ones have seen all. A split goes early if another remote plan of no more device work is better
both in bytes and in agreement by more than twice the standard error of the difference, picture by
picture: both saw the same pictures, so that what is hard for all cancels out. (Even-Dar, Mannor and
Mansour, JMLR 7, 2006, with paired differences instead of separate bounds.) Two invented pictures,
one for either side, keep a few equal ones from looking certain (Agresti and Coull, 1998); so plans
that merely tie are never dropped early. The device alone and whole pictures always see all.

How much that saves depends on how bad the losers are. Where all agree on 98 % or more, as at the
cuts of EfficientNet-Lite2, nothing goes early: there every faster rule that was tried (no picture
won so far, at 8 to 64 of 150 pictures) lost 4 to 7 of the 22 rows of the front.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ...shared.manifest import Precision
from ...shared.plan import Plan, PlanKind

Floats = npt.NDArray[np.float64]

FIRST_ROUND = 8
_INT8_WORK = 1 / 3
"""ResNet-50 takes 40.3 ms in float and 12.4 in int8, EfficientNet-Lite0 5.8 and 2.3."""
_STANDARD_ERRORS = 2.0


@dataclass
class Tally:
    """One plan's answers so far; shares are per picture, so that views of one count once.

    By the precision of the cloud's part.
    """

    agreed: dict[Precision, list[float]] = field(default_factory=dict)
    correct: dict[Precision, list[float]] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)


def device_work(plan: Plan, work: Mapping[str, float]) -> float:
    """What a remote plan computes on the device, in units of the whole model in float.

    `work` is the share of the large model's multiply-adds before each cut. An int8 head counts as a
    third: a stand-in for its time, which belongs to machines and not to the bundle.
    """
    if plan.kind is not PlanKind.SPLIT:
        return 0.0
    return work[plan.cut] * (_INT8_WORK if plan.head == Precision.INT8 else 1.0)


def rounds(count: int) -> list[int]:
    """How many of so many pictures have been seen after each round.

    >>> rounds(50), rounds(10)
    ([8, 16, 50], [10])
    """
    ends: list[int] = []
    end = FIRST_ROUND
    while 2 * end <= count:
        ends.append(end)
        end *= 2
    return [*ends, count]


def spread(count: int) -> list[int]:
    """The numbers below `count` in an order whose every beginning is spread over all of them.

    Pictures often lie class by class, and a few from the start would be all of one.

    >>> spread(6)
    [0, 4, 2, 1, 5, 3]
    """
    bits = max(1, (count - 1).bit_length())
    mirrored = (int(f"{number:0{bits}b}"[::-1], 2) for number in range(1 << bits))
    return [number for number in mirrored if number < count]


def losers(tallies: Mapping[Plan, Tally], *, work: Mapping[str, float]) -> set[Plan]:
    """The splits that another of these plans beats beyond chance."""
    remote = [plan for plan in tallies if plan.kind is not PlanKind.LOCAL]
    return {
        plan
        for plan in remote
        if plan.kind is PlanKind.SPLIT
        and any(
            device_work(rival, work) <= device_work(plan, work)
            and _surely_beats(tallies[rival], tallies[plan])
            for rival in remote
            if rival != plan
        )
    }


def _surely_beats(rival: Tally, plan: Tally) -> bool:
    sizes = np.sign(_per_picture(plan) - _per_picture(rival)).mean(axis=1)
    agreed = _agreed(rival) - _agreed(plan)
    return _surely_positive(sizes) and _surely_positive(agreed)


def _agreed(tally: Tally) -> Floats:
    return np.array(tally.agreed[Precision.FLOAT32], np.float64)


def _per_picture(tally: Tally) -> Floats:
    """Sizes in bytes, [pictures, views]."""
    return np.array(tally.sizes, np.float64).reshape(len(_agreed(tally)), -1)


def _surely_positive(differences: Floats) -> bool:
    """Whether the mean of values in [-1, 1], one per picture, is positive beyond chance."""
    shrunk = np.concatenate([differences, [1.0, -1.0]])
    error = shrunk.std() / len(shrunk) ** 0.5
    return bool(shrunk.mean() > _STANDARD_ERRORS * error)
