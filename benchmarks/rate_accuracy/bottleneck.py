"""What a learned bottleneck has to reach, and how one is named to the benchmark."""

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from _common import Target
from rate_accuracy.curves import PICTURE, Curve, Point, cheapest
from rate_accuracy.pairs import PAIRS
from rate_accuracy.timing import best_ms

from hybridge.devices.models import DeviceModels, Pixels
from hybridge.shared.bundle import Bundle
from hybridge.shared.plan import Plan

AGREEMENT = 0.99
SHARE, WORK, ENCODER_MS = 1 / 2, 1 / 10, 5.0
_CUTS = "b0"
"""With which the names of learned cuts begin."""


def own(curves: Sequence[Curve]) -> list[Curve]:
    """Those of bottlenecks."""
    return [curve for curve in curves if curve.where.startswith(_CUTS)]


def encoder_ms(bundle: Bundle, pixels: Pixels) -> dict[str, float]:
    """Processor time on one thread, from resized pixels to latents: a figure for each head."""
    models, found = DeviceModels(bundle, threads=1), {}
    for cut in bundle.manifest.large.cuts:
        if cut.name.startswith(_CUTS):
            for head in cut.heads:
                plan = Plan.split(cut.name, head=head, codec="affine8")
                found[f"{cut.name}/{head}"] = best_ms(partial(models.tensor, plan, pixels))
    return found


def targets(
    model: str, curves: Sequence[Curve] | None, times_ms: Mapping[str, float], *, why: str = ""
) -> list[Target]:
    """What is asked of a model's bottleneck; without one (`why`) each is told as not measured.

    Work, time and bytes are those of one head, among those light enough for a device if there are
    any: that of the fewest bytes at 99 %, or where none reaches it that of the highest agreement.
    """
    of = f"{model}: a bottleneck's"
    bytes_name = f"{of} bytes, of the best picture codec's, at 99 % agreement"
    learned = own(curves or ())
    if not learned:
        asked = (
            (f"{of} agreement", "", AGREEMENT),
            (f"{of} encoder, of the model's multiply-adds", "x", WORK),
            (f"{of} encoder on one thread", "ms", ENCODER_MS),
            (bytes_name, "x", SHARE),
        )
        why = (
            why or f"no bottleneck was given: --bottleneck {model}=FILE, made by hybridge compress"
        )
        return [
            Target.not_measured(name, unit=unit, bound=bound, why=why)
            for name, unit, bound in asked
        ]
    light = [c for c in learned if c.work <= WORK and times_ms[c.where] <= ENCODER_MS]
    learned = light or learned
    best, top = cheapest(learned, AGREEMENT), highest(learned)
    head, point = best or top
    said = f"{head.where} {top[1].codec}: {top[1].bytes_p50:,} bytes"
    made = [
        Target.at_least(f"{of} agreement", top[1].agreement, unit="", bound=AGREEMENT, note=said),
        Target.at_most(
            f"{of} encoder, of the model's multiply-adds", head.work, unit="x", bound=WORK
        ),
        Target.at_most(
            f"{of} encoder on one thread",
            times_ms[head.where],
            unit="ms",
            bound=ENCODER_MS,
            note=f"processor time, {head.where}",
        ),
    ]
    rival = cheapest([curve for curve in curves or () if curve.where == PICTURE], AGREEMENT)
    if rival is None:
        none = "no picture codec that was measured reaches 99 %"
        made.append(Target.not_measured(bytes_name, unit="x", bound=SHARE, why=none))
    elif best is None:
        never = (
            f"no rate of it reaches 99 %: {top[1].agreement:.1%} at most, by {said}; the best "
            f"picture codec there is {rival[1].codec} with {rival[1].bytes_p50:,}"
        )
        made.append(Target(bytes_name, None, "x", SHARE, holds=False, note=never))
    else:
        share = point.bytes_p50 / rival[1].bytes_p50
        against = f"{point.codec} {point.bytes_p50:,}, {rival[1].codec} {rival[1].bytes_p50:,}"
        made.append(Target.at_most(bytes_name, share, unit="x", bound=SHARE, note=against))
    return made


def highest(curves: Sequence[Curve]) -> tuple[Curve, Point]:
    """The point of the highest agreement, and of these that of fewest bytes."""
    every = [(curve, point) for curve in curves for point in curve.points]
    return max(every, key=lambda each: (each[1].agreement, -each[1].bytes_p50))


def of_a_model(text: str) -> tuple[str, Path]:
    """MODEL=FILE, as an option has it."""
    model, _, file = text.partition("=")
    if model not in PAIRS or not file:
        known = ", ".join(sorted(PAIRS))
        raise argparse.ArgumentTypeError(f"{text!r} is no MODEL=FILE with one of {known}")
    return model, Path(file)
