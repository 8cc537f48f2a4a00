"""Operators that a served graph has beside those a device may run: of sizes, int8, packed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from onnx.numpy_helper import to_array
from torch import Tensor

from .call import Call, Constant
from .layers import Window
from .operators import OPERATORS, Operator
from .weights import Int8Matrix

_LEVELS = 127
_LEAST = 1e-12


def _gather(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    axis = call.integer("axis", 0) % x.ndim
    wanted = torch.where(indices < 0, indices + x.shape[axis], indices).to(x.device)
    picked = x.index_select(axis, wanted.reshape(-1))
    return picked.reshape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])


def _dequantized(call: Call, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    if scale.ndim:
        sizes = [1] * x.ndim
        sizes[call.integer("axis", 1)] = -1
        scale, zero = scale.reshape(sizes), None if zero is None else zero.reshape(sizes)
    return (x.to(scale.dtype) if zero is None else x.to(scale.dtype) - zero) * scale


SERVED: Mapping[str, Operator] = OPERATORS | {
    "DequantizeLinear": Operator(_dequantized),
    "Gather": Operator(_gather),
}
"""Operators on data."""


def _constant_of_shape(call: Call, shape: Constant) -> Constant:
    value = call.attributes.get("value")
    filled = to_array(value) if value is not None else np.zeros(1, np.float32)
    return np.full(shape.tolist(), filled.reshape(-1)[0], filled.dtype)


SIZES: Mapping[str, Callable[..., Constant]] = {
    "ConstantOfShape": _constant_of_shape,
    "Div": lambda call, a, b: a // b if a.dtype.kind in "iu" else a / b,
    "Equal": lambda call, a, b: np.equal(a, b),
    "Greater": lambda call, a, b: np.greater(a, b),
    "Less": lambda call, a, b: np.less(a, b),
    "Mod": lambda call, a, b: np.mod(a, b),
    "Not": lambda call, a: np.logical_not(a),
    "Range": lambda call, start, end, step: np.arange(start, end, step, dtype=start.dtype),
}
"""Further operators on what is known once the number of items is."""


def int8_product(matrix: Int8Matrix) -> Callable[..., Tensor]:
    """X [..., in] by a matrix, plus a bias: activations become int8 row by row.

    A scale for each row, not for the batch: an answer does not depend on who is in it, too.
    """

    def run(call: Call, x: Tensor, bias: Tensor | None = None) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        scales = rows.abs().amax(1, keepdim=True).clamp_min(_LEAST) / _LEVELS
        codes = (rows / scales).round_().to(torch.int8)
        made = torch._int_mm(codes, matrix.codes).to(torch.float32).mul_(scales)
        made.mul_(matrix.scales)
        if bias is not None:
            made.add_(bias)
        return made.reshape(*x.shape[:-1], made.shape[-1])

    return run


@dataclass(frozen=True, slots=True)
class Activation:
    """What oneDNN does to a convolution's result in the same pass."""

    name: str = "none"
    limits: tuple[float, ...] = ()

    @classmethod
    def of(cls, call: Call) -> "Activation | None":
        """A Relu, or a Clip with both limits; None for any other operator."""
        if call.operator == "Relu":
            return cls("relu")
        low, high = call.number_at(1), call.number_at(2)
        if call.operator == "Clip" and low is not None and high is not None:
            return cls("hardtanh", (low, high))
        return None


def packed_convolution(
    packed: Tensor, *, kernel: tuple[int, ...], activation: Activation
) -> Callable[..., Tensor]:
    """Conv over two axes by weights in oneDNN's own layout, and the activation behind it.

    Torch's own way lays the weights out anew for every run, and leaves a batch of one to a slow
    kernel: 98 instead of 41 ms for a ResNet-50 on one thread.
    """

    def run(call: Call, x: Tensor, bias: Tensor | None = None) -> Tensor:
        window = Window(call, x, kernel=kernel)
        padded, padding = window.symmetric(x)
        made: Tensor = torch.ops.mkldnn._convolution_pointwise(
            padded,
            packed,
            bias,
            padding,
            window.strides,
            window.dilations,
            call.integer("group", 1),
            activation.name,
            activation.limits,
            "",
        )
        return made

    return run
