"""How much the answer depends on each value of a cut: the diagonal of Fisher's information.

An error e in the values changes the answer's distribution p by KL(p || p') = e' F e / 2 to second
order, F = E[g g'], g the gradient of log p(y) for y drawn from p (Amari 1998). A few backward
passes per picture give all values at once, where perturbing one channel after the other would take
a run of the tail for each.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from onnx import load_from_string

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
    """A cut, its float wire, and what crosses it on calibration pictures: float32 [n, *shape]."""

    cut: OnnxCut
    wire: Wire
    values: F32


def sensitivities(model: bytes, samples: Sequence[Sample], *, logits: bool) -> list[F64 | None]:
    """For each cut the mean square of g, float64 of its shape; None where torch has no such tail.

    `model` is the ONNX model, whose answer comes first and is logits or else probabilities.
    """
    from .onnx_fold import fold
    from .onnx_torch import OnnxModule

    onnx = load_from_string(model)
    made: list[F64 | None] = []
    for sample in samples:
        try:
            tail = OnnxModule(fold(extract_tail(onnx, cut=sample.cut, wire=sample.wire)))
        except BuildError:
            made.append(None)
        else:
            made.append(_squared_slopes(tail, sample.values, logits=logits))
    return made


def _squared_slopes(tail: "OnnxModule", values: F32, *, logits: bool) -> F64:
    import torch

    generator = torch.Generator().manual_seed(_SEED)
    total = np.zeros(values.shape[1:], np.float64)
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
            total += count / _DRAWS * slope[0].double().numpy() ** 2
    return total / len(values)
