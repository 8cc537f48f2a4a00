"""What values a model's activations take on calibration inputs, and the range each one is given."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from ....shared.errors import BuildError
from ..litert import Floats
from ..progress import Count, Ticks, uncounted
from ..quiet import quiet
from ..tflite_graph import load

Statistics = dict[str, dict[str, npt.NDArray[np.float32]]]
"""`min` and `max` by tensor name."""
See = Callable[[str, Floats], None]
"""Is shown a tensor by name, once per calibration input."""

_FLOAT32, _INT8 = 0, 9  # TensorType of the TFLite schema
_BINS = 2048
_SAMPLES = 50_000
_LARGEST = 3e38
"""Masks of minus infinity are no activations; ai-edge-quantizer leaves out the same."""
_LEVELS = 255
_CLIPPED_SHARES = (0.0, 1e-5, 1e-4, 1e-3, 5e-3)
TIMES_SHOWN = 2


class Ranges(StrEnum):
    """How the values seen on the calibration inputs become one range per tensor."""

    MIN_MAX = "min_max"
    PERCENTILE_9999 = "percentile_99.99"
    PERCENTILE_999 = "percentile_99.9"
    MSE = "mse"


@dataclass(frozen=True)
class Histogram:
    """Counts in equal bins between the least and the largest value seen."""

    low: float
    high: float
    counts: npt.NDArray[np.int64]

    def range(self, ranges: Ranges) -> tuple[float, float]:
        """The range by one method; a tensor that never changes has one of no width.

        >>> Histogram(0.0, 1.0, np.array([990, 0, 0, 10])).range(Ranges.MIN_MAX)
        (0.0, 1.0)
        """
        match ranges:
            case Ranges.MIN_MAX:
                return self.low, self.high
            case Ranges.PERCENTILE_9999:
                return self.clipped(1e-4, 1e-4)
            case Ranges.PERCENTILE_999:
                return self.clipped(1e-3, 1e-3)
            case Ranges.MSE:
                return self._least_squared_error()

    def clipped(self, low_share: float, high_share: float) -> tuple[float, float]:
        """The bins' edges beyond which at most these shares of the values lie."""
        if self.low == self.high:
            return self.low, self.high
        edges = np.linspace(self.low, self.high, self.counts.size + 1)
        below = np.cumsum(self.counts) / self.counts.sum()
        first = int(np.searchsorted(below, low_share, side="right"))
        last = int(np.searchsorted(below, 1.0 - high_share, side="left"))
        low, high = float(edges[min(first, self.counts.size - 1)]), float(edges[last + 1])
        # Values that never change their sign keep zero, which padding and ReLU make, exact.
        return (low if low_share else self.low), (high if high_share else self.high)

    def _least_squared_error(self) -> tuple[float, float]:
        lows = _CLIPPED_SHARES if self.low < 0 else (0.0,)
        pairs = {self.clipped(low, high) for low in lows for high in _CLIPPED_SHARES}
        return min(sorted(pairs), key=lambda ends: self._squared_error(*ends))

    def _squared_error(self, low: float, high: float) -> float:
        """Of 8-bit codes in a range: rounding inside it, clipping outside."""
        width = (self.high - self.low) / self.counts.size
        centres = self.low + (np.arange(self.counts.size) + 0.5) * width
        step = (max(high, 0.0) - min(low, 0.0)) / _LEVELS
        beyond = centres - np.clip(centres, min(low, 0.0), max(high, 0.0))
        return float((self.counts * (beyond**2 + step**2 / 12)).sum())


class Activations:
    """The activations of a float TFLite model on calibration inputs, by tensor name."""

    def __init__(
        self,
        histograms: Mapping[str, Histogram],
        ranks: Mapping[str, int],
        known: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        self.histograms = dict(histograms)
        self._ranks = dict(ranks)
        self._known = dict(known or {})

    def statistics(self, ranges: Ranges) -> Statistics:
        """Least and largest values as ai-edge-quantizer takes them."""
        found: Statistics = {}
        for name, histogram in self.histograms.items():
            shape = (1,) * self._ranks[name]
            low, high = self._known.get(name) or histogram.range(ranges)
            found[name] = {
                "min": np.full(shape, low, np.float32),
                "max": np.full(shape, high, np.float32),
            }
        return found


def observe(
    model: bytes,
    inputs: Sequence[Floats],
    *,
    pixels: tuple[float, float] | None = None,
    count: Count = uncounted,
) -> Activations:
    """Runs a float TFLite model on calibration inputs, float32 [1, h, w, c], and counts.

    `pixels` is the range of the input itself, where it is known.
    """
    if not inputs:
        raise BuildError("quantization needs calibration tensors")
    (graph,) = load(model).subgraphs
    name = graph.tensors[int(graph.inputs[0])].name.decode()
    ticks = Ticks(count, TIMES_SHOWN * len(inputs))
    return collect(
        lambda see: each_activation(model, ticks.over(inputs), see),
        known={name: pixels} if pixels else {},
    )


def collect(
    show: Callable[[See], None], *, known: Mapping[str, tuple[float, float]] | None = None
) -> Activations:
    """Histograms of what `show` shows, which is called `TIMES_SHOWN`: first for their limits.

    Of a large tensor every k-th value is counted; its extremes are exact. `known` are ranges that
    need no calibration.
    """
    limits: dict[str, tuple[float, float]] = {}
    ranks: dict[str, int] = {}
    counts: dict[str, npt.NDArray[np.int64]] = {}

    def limit(name: str, values: Floats) -> None:
        least, most = float(values.min()), float(values.max())
        if not -_LARGEST < least <= most < _LARGEST:
            inside = values[np.abs(values) < _LARGEST]
            if not inside.size:
                return
            least, most = float(inside.min()), float(inside.max())
        low, high = limits.get(name, (np.inf, -np.inf))
        limits[name] = min(low, least), max(high, most)
        ranks[name] = values.ndim

    def count(name: str, values: Floats) -> None:
        if name not in limits:
            return
        some = values.ravel()[:: max(1, values.size // _SAMPLES)]
        low, high = limits[name]
        # numpy's own refuses ranges as narrow as those of an untrained net.
        scaled = (some.astype(np.float64) - low) * (_BINS / ((high - low) or 1.0))
        inside = np.clip(scaled[np.abs(some) < _LARGEST], 0, _BINS - 1).astype(np.int64)
        counts[name] = counts.get(name, 0) + np.bincount(inside, minlength=_BINS)

    show(limit)
    show(count)
    return Activations(
        {name: Histogram(*ends, counts[name]) for name, ends in limits.items()}, ranks, known
    )


def each_activation(model: bytes, inputs: Iterable[Floats], see: See) -> None:
    """Shows the real values of every tensor that is no constant, by name, input by input."""
    tree = load(model)
    (graph,) = tree.subgraphs
    names = {
        tensor.name.decode(): index
        for index, tensor in enumerate(graph.tensors)
        if tensor.type in (_FLOAT32, _INT8) and tree.buffers[tensor.buffer].data is None
    }
    with quiet("calibration"):
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(
            model_content=model, num_threads=1, experimental_preserve_all_tensors=True
        )
        interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    grids = {each["index"]: each["quantization"] for each in interpreter.get_tensor_details()}
    for tensor in inputs:
        interpreter.set_tensor(entry["index"], tensor)
        interpreter.invoke()
        for name, index in names.items():
            values = interpreter.get_tensor(index)
            if values.dtype == np.int8:
                scale, zero_point = grids[index]
                values = (values.astype(np.float32) - zero_point) * np.float32(scale)
            see(name, values)
