"""How much the answer depends on the values of a cut: Fisher's information.

An error e in the values changes the answer's distribution p by KL(p || p') = e' F e / 2 to second
order, F = E[g g'], g the gradient of log p(y) for y drawn from p (Amari 1998). A few backward
passes per picture give all values at once, where perturbing one channel after the other would take
a run of the tail for each. All of F would be too large: what is kept is its diagonal, and for each
band of spatial frequencies the block of the channels.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
from onnx import load_from_string

from ...shared.codec.transform import unit_cosines
from ...shared.errors import BuildError
from .onnx_graph import OnnxCut, Wire, extract_tail
from .progress import Count, Ticks

if TYPE_CHECKING:
    from .onnx_torch import OnnxModule

_DRAWS = 4
_SEED = 20260101
_LEAST_POWER = 0.05

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """A cut, its float wire, and what crosses it on calibration pictures: float32 [n, *shape].

    `bands` are groups of flat frequencies of a [h, w, c]; without them no metric is made.
    """

    cut: OnnxCut
    wire: Wire
    values: F32
    bands: tuple[npt.NDArray[np.int64], ...] = ()


@dataclass(frozen=True)
class Sensitivity:
    """The mean square of g, float64 of the cut's shape, and the mean g g' of its spectrum.

    `window` [h, w] says how much the answer minds errors at a position, of mean square 1: what is
    near the middle counts for more. `metric` [bands, c, c] is, in the mean over each band, that of
    a frequency's channels after the values were multiplied by the window and transformed by the
    orthonormal cosine transform.
    """

    squares: F64
    window: F64 | None = None
    metric: F64 | None = None

    def of_codes(self, scale: F64) -> "Sensitivity":
        """By errors of a code, of so much each, instead of errors of one."""
        square = np.square(scale)
        metric = None if self.metric is None else self.metric * square.flat[0]
        return Sensitivity(self.squares * square, self.window, metric)


def sensitivities(
    count: Count, model: bytes, samples: Sequence[Sample], *, logits: bool
) -> list[Sensitivity | None]:
    """The sensitivity of each cut; None where torch has no such tail. Counts pictures.

    `model` is the ONNX model, whose answer comes first and is logits or else probabilities.
    """
    from .onnx_fold import fold
    from .onnx_torch import OnnxModule
    from .torch_source import one_thread

    onnx = load_from_string(model)
    made: list[Sensitivity | None] = []
    ticks = Ticks(count, sum(len(sample.values) for sample in samples))
    for sample in samples:
        try:
            tail = OnnxModule(fold(extract_tail(onnx, cut=sample.cut, wire=sample.wire)))
        except BuildError:
            made.append(None)
            ticks.skip(len(sample.values))
        else:
            with one_thread():
                made.append(_measured(tail, sample, ticks, logits=logits))
    return made


def _measured(tail: "OnnxModule", sample: Sample, ticks: Ticks, *, logits: bool) -> Sensitivity:
    squares = np.zeros(sample.values.shape[1:], np.float64)
    slopes: list[F32] = []
    for share, slope in _slopes(tail, sample.values, ticks, logits=logits):
        squares += share * slope.astype(np.float64) ** 2
        if sample.bands:
            slopes.append(np.float32(np.sqrt(share)) * slope)
    if not sample.bands:
        return Sensitivity(squares)
    window = window_of(squares)
    return Sensitivity(squares, window, spectral_metric(slopes, window, sample.bands))


def window_of(squares: F64) -> F64:
    """Of mean squares [h, w, c]: a row's weight times a column's, none below a twentieth."""
    power = squares.sum(axis=-1)
    outer = np.outer(power.mean(axis=1), power.mean(axis=0))
    made: F64 = np.maximum(outer, _LEAST_POWER * max(outer.mean(), 1e-300))
    return cast(F64, np.sqrt(made / made.mean()))


def spectral_metric(
    slopes: Iterable[F32], window: F64, bands: Sequence[npt.NDArray[np.int64]]
) -> F64:
    """The sum of all g g', as `Sensitivity` says."""
    height, width = window.shape
    made: F64 | None = None
    for slope in slopes:
        channels = slope.shape[-1]
        made = np.zeros((len(bands), channels, channels)) if made is None else made
        rows = np.tensordot(unit_cosines(height), slope / window[..., None], axes=(1, 0))
        rows = np.matmul(unit_cosines(width), rows).reshape(-1, channels)
        for index, band in enumerate(bands):
            made[index] += rows[band].T @ rows[band] / band.size
    assert made is not None
    return made


def _slopes(
    tail: "OnnxModule", values: F32, ticks: Ticks, *, logits: bool
) -> Iterator[tuple[float, F32]]:
    """Each g with its share in the mean."""
    import torch

    generator = torch.Generator().manual_seed(_SEED)
    for value in ticks.over(values):
        leaf = torch.from_numpy(value[None].copy()).requires_grad_(True)
        outputs = tail(leaf)
        answer = (outputs[0] if isinstance(outputs, tuple) else outputs)[0]
        chances = torch.log_softmax(answer, 0) if logits else answer.clamp_min(1e-12).log()
        drawn = torch.multinomial(
            chances.detach().exp(), _DRAWS, replacement=True, generator=generator
        )
        for each, count in Counter(drawn.tolist()).items():
            (slope,) = torch.autograd.grad(chances[each], leaf, retain_graph=True)
            yield count / _DRAWS / len(values), slope[0].numpy()
