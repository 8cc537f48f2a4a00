"""What a learned bottleneck has to reach, and how one is named to the benchmark."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from _common import Target
from rate_accuracy.curves import PICTURE, Curve, cheapest
from rate_accuracy.pairs import PAIRS

AGREEMENT = 0.99
SHARE, WORK = 1 / 2, 1 / 10
_CUTS = "b0"
"""With which the names of learned cuts begin."""


def own(curves: Sequence[Curve]) -> list[Curve]:
    """Those of bottlenecks."""
    return [curve for curve in curves if curve.where.startswith(_CUTS)]


def targets(model: str, curves: Sequence[Curve]) -> list[Target]:
    """Agreement, work, and bytes at 99 %; none where there is no bottleneck."""
    learned = own(curves)
    rival = cheapest([curve for curve in curves if curve.where == PICTURE], AGREEMENT)
    if not learned or rival is None:
        return []
    of = f"{model}: a bottleneck's"
    highest = max(point.agreement for curve in learned for point in curve.points)
    made = [
        Target.at_least(f"{of} agreement", highest, unit="", bound=AGREEMENT),
        Target.at_most(
            f"{of} encoder, of the model's multiply-adds",
            max(curve.work for curve in learned),
            unit="x",
            bound=WORK,
        ),
    ]
    if best := cheapest(learned, AGREEMENT):
        share = best[1].bytes_p50 / rival[1].bytes_p50
        name = f"{of} bytes, of the best picture codec's, at 99 % agreement"
        made.append(Target.at_most(name, share, unit="x", bound=SHARE))
    return made


def of_a_model(text: str) -> tuple[str, Path]:
    """MODEL=FILE, as an option has it."""
    model, _, file = text.partition("=")
    if model not in PAIRS or not file:
        known = ", ".join(sorted(PAIRS))
        raise argparse.ArgumentTypeError(f"{text!r} is no MODEL=FILE with one of {known}")
    return model, Path(file)
