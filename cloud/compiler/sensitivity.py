"""How much the answer depends on the values of a cut: Fisher's information.

An error e in the values changes the answer's distribution p by KL(p || p') = e' F e / 2 to second
order, F = E[g g'], g the gradient of log p(y) for y drawn from p (Amari 1998). A few backward
passes per picture give all values at once, where perturbing one channel after the other would take
a run of the tail for each. All of F would be too large: what is kept is its diagonal, and for each
band of spatial frequencies the block of the channels.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from onnx import load_from_string

from ...shared.codec.transform import unit_cosines
from ...shared.errors import BuildError
from .onnx_graph import OnnxCut, Wire, extract_tail

if TYPE_CHECKING:
    from .onnx_torch import OnnxModule

_DRAWS = 4
_SEED = 20260101

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

    `metric` is float64 [bands, c, c]: of the channels of a frequency, in the mean over the band.
    The transform is the orthonormal cosine transform.
    """

    squares: F64
    metric: F64 | None = None

    def of_codes(self, scale: F64) -> "Sensitivity":
        """By errors of a code, of so much each, instead of errors of one."""
        square = np.square(scale)
        metric = None if self.metric is None else self.metric * square.flat[0]
        return Sensitivity(self.squares * square, metric)


def sensitivities(
    model: bytes, samples: Sequence[Sample], *, logits: bool
) -> list[Sensitivity | None]:
    """The sensitivity of each cut; None where torch has no such tail.

    `model` is the ONNX model, whose answer comes first and is logits or else probabilities.
    """
    from .onnx_fold import fold
    from .onnx_torch import OnnxModule

    onnx = load_from_string(model)
    made: list[Sensitivity | None] = []
    for sample in samples:
        try:
            tail = OnnxModule(fold(extract_tail(onnx, cut=sample.cut, wire=sample.wire)))
        except BuildError:
            made.append(None)
        else:
            made.append(_measured(tail, sample, logits=logits))
    return made


def _measured(tail: "OnnxModule", sample: Sample, *, logits: bool) -> Sensitivity:
    squares = np.zeros(sample.values.shape[1:], np.float64)
    channels = sample.values.shape[-1]
    metric = np.zeros((len(sample.bands), channels, channels))
    for share, slope in _slopes(tail, sample.values, logits=logits):
        squares += share * slope**2
        if sample.bands:
            height, width, _ = slope.shape
            rows = np.tensordot(unit_cosines(height), slope, axes=(1, 0))
            rows = np.matmul(unit_cosines(width), rows).reshape(-1, channels)
            for index, band in enumerate(sample.bands):
                metric[index] += share / band.size * (rows[band].T @ rows[band])
    return Sensitivity(squares, metric if sample.bands else None)


def _slopes(tail: "OnnxModule", values: F32, *, logits: bool) -> Iterator[tuple[float, F64]]:
    """Each g with its share in the mean."""
    import torch

    generator = torch.Generator().manual_seed(_SEED)
    for value in values:
        leaf = torch.from_numpy(value[None].copy()).requires_grad_(True)
        outputs = tail(leaf)
        answer = (outputs[0] if isinstance(outputs, tuple) else outputs)[0]
        chances = torch.log_softmax(answer, 0) if logits else answer.clamp_min(1e-12).log()
        drawn = torch.multinomial(
            chances.detach().exp(), _DRAWS, replacement=True, generator=generator
        )
        for each, count in Counter(drawn.tolist()).items():
            (slope,) = torch.autograd.grad(chances[each], leaf, retain_graph=True)
            yield count / _DRAWS / len(values), slope[0].double().numpy()
