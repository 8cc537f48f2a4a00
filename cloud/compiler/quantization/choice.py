"""Which int8 model of a float TFLite model is built: several are made, the best one stays.

Static int8 (activations on a calibrated grid) suits convolutional nets, dynamic int8 (activations
in float) transformers. Which it is, how the ranges are found and what stays in float is decided by
the answers on calibration inputs that calibrated nothing, and by times measured in turns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ....devices.profile import StageTime, summarize
from ....shared.errors import BuildError
from ....shared.manifest import Precision, Quantized
from ..litert import Floats, Runner
from ..progress import Progress, counted, unwatched
from .compare import Candidate, Quality, Scheme, best_of, held_out, settled, static_or_dynamic
from .exclusions import (
    fragile_operators,
    kinds_of,
    slower_in_int8,
    time_operators,
    wasted_ms,
)
from .ranges import Activations, Ranges, observe
from .tflite import dynamic_int8, static_int8
from .timing import interleaved

_CLEAN_DB = 20.0
"""Answers this far above their noise: operators are then not searched for fragile ones."""
_NOISE_TENSORS = 2
_ROUNDS = 9
_FLOAT32 = "float32"


@dataclass(frozen=True, kw_only=True)
class Int8Model:
    """The chosen one, all that was tried, and what one run takes on one thread of this machine."""

    model: bytes
    scheme: Scheme
    tried: tuple[Quantized, ...]
    times: dict[Precision, StageTime]


def choose_int8(
    model: bytes,
    tensors: Sequence[Floats],
    *,
    part: str,
    pixels: tuple[float, float] | None = None,
    progress: Progress = unwatched,
) -> Int8Model:
    """The int8 model of a float one; `tensors` are real inputs, float32 [1, h, w, c].

    Every fourth input calibrates nothing: on those the candidates are compared. `pixels` is the
    range of the inputs themselves, where it is known.
    """
    if not tensors:
        raise BuildError("quantization needs calibration tensors")
    calibrating, held = held_out(tensors)
    timing = partial(progress, "timing operators")
    wanted = _answers(model, held)

    def quality(made: bytes) -> Quality:
        return Quality.of(_answers(made, held), wanted)

    looking = partial(progress, "looking at activations, twice")
    seen = observe(model, calibrating, pixels=pixels, count=looking)
    static = _static_candidates(model, seen, held, quality, progress)
    best_static = best_of(static)
    progress("without a grid for activations", 0, 0)
    plain = _dynamic_candidate(model, quality, kept=frozenset())
    times = _times(model, best_static, plain, held[0])
    dynamic = plain
    # Operators that int8 makes slower are looked for only where that may change the choice: of what
    # is rejected anyway no verdict by time shall be on record, which the next build might not find.
    wasted = wasted_ms(time_operators(model, plain.model, count=timing))
    if not settled(best_static, times, wasted_ms=wasted):
        slow = slower_in_int8(model, plain.model, count=timing)
        dynamic = _dynamic_candidate(model, quality, kept=slow)
        if dynamic.kept_float:
            times = _times(model, best_static, dynamic, held[0])
    chosen = static_or_dynamic(best_static, dynamic, times)
    return Int8Model(
        model=chosen.model,
        scheme=chosen.scheme,
        tried=tuple(
            candidate.record(part=part, chosen=candidate is chosen)
            for candidate in (*static, dynamic)
        ),
        times={Precision.FLOAT32: times[_FLOAT32], Precision.INT8: times[chosen.scheme]},
    )


def _static_candidates(
    model: bytes,
    seen: Activations,
    held: Sequence[Floats],
    quality: Callable[[bytes], Quality],
    progress: Progress,
) -> list[Candidate]:
    """One per way of finding ranges; the best also without the operators that spoil its answers."""
    plain = static_int8(model, seen, ranges=Ranges.MIN_MAX)
    slow = slower_in_int8(model, plain, count=partial(progress, "timing operators"))

    def candidate(ranges: Ranges, kept: frozenset[str]) -> Candidate:
        made = static_int8(model, seen, ranges=ranges, keep_float=kept)
        return Candidate(
            scheme=Scheme.STATIC,
            ranges=ranges,
            kept_float=kinds_of(model, kept),
            model=made,
            quality=quality(made),
        )

    trying = counted(list(Ranges), partial(progress, "trying ways to find ranges"))
    candidates = [candidate(ranges, slow) for ranges in trying]
    best = best_of(candidates)
    if best.quality.snr_db < _CLEAN_DB:
        ranges = best.ranges or Ranges.MIN_MAX
        kept = fragile_operators(
            model,
            quantized=lambda kept: static_int8(model, seen, ranges=ranges, keep_float=kept),
            quality_db=lambda made: quality(made).snr_db,
            tensors=held[:_NOISE_TENSORS],
            kept=slow,
            count=partial(progress, "trying operators in float"),
        )
        if kept != slow:
            candidates.append(candidate(ranges, kept))
    return candidates


def _dynamic_candidate(
    model: bytes, quality: Callable[[bytes], Quality], *, kept: frozenset[str]
) -> Candidate:
    made = dynamic_int8(model, keep_float=kept)
    return Candidate(
        scheme=Scheme.DYNAMIC,
        kept_float=kinds_of(model, kept),
        model=made,
        quality=quality(made),
    )


def _times(
    model: bytes, static: Candidate, dynamic: Candidate, tensor: Floats
) -> dict[str, StageTime]:
    models = {_FLOAT32: model, Scheme.STATIC: static.model, Scheme.DYNAMIC: dynamic.model}
    runs = interleaved(
        {name: partial(Runner(each).outputs, tensor) for name, each in models.items()},
        rounds=_ROUNDS,
    )
    return {name: summarize(each) for name, each in runs.items()}


def _answers(model: bytes, tensors: Sequence[Floats]) -> Floats:
    """All outputs of each input, flat; a model that ends before its answer has others."""
    runner = Runner(model)
    flat = [[each.reshape(1, -1) for each in runner.outputs(tensor)] for tensor in tensors]
    return np.concatenate([np.concatenate(each, axis=1) for each in flat]).astype(np.float32)
