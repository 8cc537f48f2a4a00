"""ONNX operators in torch: one table, a function each.

They are those of convolutional classifiers and vision transformers. A function takes the node and
its inputs as tensors, without those that the table calls static: these are known when the module is
made (shapes, axes, limits), so that nothing in the module depends on data.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor
from torch.nn import functional

from . import layers
from .call import Call

_DTYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.BOOL: torch.bool,
}
_PAD_MODES = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}


@dataclass(frozen=True, slots=True)
class Operator:
    """How an operator runs, and which of its inputs must be constants."""

    run: Callable[..., Tensor | tuple[Tensor, ...]]
    static: tuple[int, ...] = ()


def _plain(function: Callable[..., Tensor]) -> Operator:
    return Operator(lambda call, *tensors: function(*tensors))


def _power(call: Call, x: Tensor) -> Tensor:
    exponents, exponent = call.constant(1), call.number_at(1)
    if exponents is None or exponent is None or exponents.size != 1:
        raise call.unsupported("has more than one exponent")
    return x * x if exponent == 2 else torch.pow(x, exponent)


def _hard_sigmoid(call: Call, x: Tensor) -> Tensor:
    alpha, beta = call.number("alpha", 0.2), call.number("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return functional.hardsigmoid(x)
    return torch.clamp(x * alpha + beta, 0.0, 1.0)


def _leaky_relu(call: Call, x: Tensor) -> Tensor:
    return functional.leaky_relu(x, call.number("alpha", 0.01))


def _elu(call: Call, x: Tensor) -> Tensor:
    return functional.elu(x, call.number("alpha", 1.0))


def _prelu(call: Call, x: Tensor, slope: Tensor) -> Tensor:
    return torch.relu(x) - slope * torch.relu(-x)


def _clip(call: Call, x: Tensor) -> Tensor:
    low, high = call.number_at(1), call.number_at(2)
    if low is None and high is None:
        return x
    if low == 0 and high == 6:
        return functional.relu6(x)
    if low == 0 and high is None:
        return torch.relu(x)
    return torch.clamp(x, low, high)


def _gelu(call: Call, x: Tensor) -> Tensor:
    return functional.gelu(x, approximate=call.text("approximate", "none"))


def _softmax(call: Call, x: Tensor) -> Tensor:
    return functional.softmax(x, dim=call.integer("axis", -1))


def _log_softmax(call: Call, x: Tensor) -> Tensor:
    return functional.log_softmax(x, dim=call.integer("axis", -1))


def _cast(call: Call, x: Tensor) -> Tensor:
    dtype = _DTYPES.get(call.integer("to", 0))
    if dtype is None:
        raise call.unsupported(f"casts to type {call.integer('to', 0)}")
    return x.to(dtype)


def _reduced(function: Callable[..., Tensor]) -> Operator:
    def run(call: Call, x: Tensor) -> Tensor:
        axes = call.integers_at(1, "axes")
        if not axes:
            if call.integer("noop_with_empty_axes", 0):
                return x
            axes = tuple(range(x.ndim))
        return function(x, axes, keepdim=bool(call.integer("keepdims", 1)))

    return Operator(run, static=(1,))


def _concat(call: Call, *tensors: Tensor) -> Tensor:
    return torch.cat(tensors, dim=call.integer("axis", 0))


def _split(call: Call, x: Tensor) -> tuple[Tensor, ...]:
    axis = call.integer("axis", 0)
    sizes = call.integers_at(1, "split")
    if sizes is None:
        each = -(-x.shape[axis] // call.outputs)
        sizes = (*(each,) * (call.outputs - 1), x.shape[axis] - each * (call.outputs - 1))
    return torch.split(x, list(sizes), dim=axis)


def _slice(call: Call, x: Tensor) -> Tensor:
    starts, ends = call.integers_at(1, "starts") or (), call.integers_at(2, "ends") or ()
    axes = call.integers_at(3, "axes") or tuple(range(len(starts)))
    steps = call.integers_at(4) or (1,) * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        taken = range(*slice(start, end, step).indices(x.shape[axis]))
        if step < 0 and end < -x.shape[axis]:
            taken = range(*slice(start, None, step).indices(x.shape[axis]))
        x = _taken(x, axis, taken)
    return x


def _taken(x: Tensor, axis: int, taken: range) -> Tensor:
    if not taken:
        return x.narrow(axis, 0, 0)
    low, high = min(taken[0], taken[-1]), max(taken[0], taken[-1])
    index = [slice(None)] * x.ndim
    index[axis] = slice(low, high + 1, abs(taken.step))
    picked = x[tuple(index)]
    return picked.flip(axis) if taken.step < 0 else picked


def _gather(call: Call, x: Tensor) -> Tensor:
    indices = call.constant(1)
    assert indices is not None  # static
    axis = call.integer("axis", 0) % x.ndim
    wanted = np.where(indices < 0, indices + x.shape[axis], indices)
    if wanted.ndim == 0:
        return x.select(axis, int(wanted))
    picked = x.index_select(axis, torch.tensor(wanted.reshape(-1).tolist(), device=x.device))
    return picked.reshape([*x.shape[:axis], *wanted.shape, *x.shape[axis + 1 :]])


def _reshape(call: Call, x: Tensor) -> Tensor:
    wanted = call.integers_at(1) or ()
    if call.integer("allowzero", 0):
        return x.reshape(wanted)
    return x.reshape([x.shape[axis] if size == 0 else size for axis, size in enumerate(wanted)])


def _flatten(call: Call, x: Tensor) -> Tensor:
    axis = call.integer("axis", 1)
    before = int(np.prod(x.shape[:axis])) if axis else 1
    return x.reshape(before, -1)


def _squeeze(call: Call, x: Tensor) -> Tensor:
    axes = call.integers_at(1, "axes")
    dropped = {axis % x.ndim for axis in axes} if axes is not None else set()
    kept = [
        size
        for axis, size in enumerate(x.shape)
        if axis not in dropped and (axes is not None or size != 1)
    ]
    return x.reshape(kept)


def _unsqueeze(call: Call, x: Tensor) -> Tensor:
    axes = call.integers_at(1, "axes") or ()
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _transpose(call: Call, x: Tensor) -> Tensor:
    return x.permute(call.integers("perm", tuple(reversed(range(x.ndim)))))


def _expand(call: Call, x: Tensor) -> Tensor:
    shape = np.broadcast_shapes(tuple(x.shape), call.integers_at(1) or ())
    return x.expand(shape)


def _tile(call: Call, x: Tensor) -> Tensor:
    return x.repeat(call.integers_at(1) or ())


def _pad(call: Call, x: Tensor) -> Tensor:
    pads = call.integers_at(1, "pads") or ()
    axes = [axis % x.ndim for axis in call.integers_at(3) or range(x.ndim)]
    around = {axis: (pads[i], pads[i + len(axes)]) for i, axis in enumerate(axes)}
    flat = [pad for axis in reversed(range(x.ndim)) for pad in around.get(axis, (0, 0))]
    mode = call.text("mode", "constant")
    if mode == "constant":
        return functional.pad(x, flat, value=call.number_at(2) or 0.0)
    while len(flat) > 4 and flat[-2:] == [0, 0]:
        flat = flat[:-2]
    return functional.pad(x, flat, mode=_PAD_MODES[mode])


def _depth_to_space(call: Call, x: Tensor) -> Tensor:
    block = call.integer("blocksize", 1)
    n, c, h, w = x.shape
    if call.text("mode", "DCR") == "CRD":
        return functional.pixel_shuffle(x, block)
    split = x.reshape(n, block, block, c // block**2, h, w)
    return split.permute(0, 3, 4, 1, 5, 2).reshape(n, c // block**2, h * block, w * block)


def _first(call: Call, x: Tensor, *rest: Tensor) -> Tensor:
    return x


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return Operator(lambda call, *tensors: reduce(function, tensors))


def _mean_of(call: Call, *tensors: Tensor) -> Tensor:
    return reduce(torch.add, tensors) / len(tensors)


def _l2(x: Tensor, axes: Sequence[int], *, keepdim: bool) -> Tensor:
    return torch.sqrt(torch.sum(x * x, tuple(axes), keepdim=keepdim))


OPERATORS: dict[str, Operator] = {
    "Abs": _plain(torch.abs),
    "Add": _plain(torch.add),
    "AveragePool": Operator(layers.average_pool),
    "BatchNormalization": Operator(layers.batch_normalization),
    "Cast": Operator(_cast),
    "Clip": Operator(_clip, static=(1, 2)),
    "Concat": Operator(_concat),
    "Conv": Operator(layers.convolution),
    "ConvTranspose": Operator(layers.transposed_convolution),
    "DepthToSpace": Operator(_depth_to_space),
    "Div": _plain(torch.div),
    "Dropout": Operator(_first, static=(1, 2)),
    "Elu": Operator(_elu),
    "Erf": _plain(torch.erf),
    "Exp": _plain(torch.exp),
    "Expand": Operator(_expand, static=(1,)),
    "Flatten": Operator(_flatten),
    "Gather": Operator(_gather, static=(1,)),
    "Gelu": Operator(_gelu),
    "Gemm": Operator(layers.gemm),
    "GlobalAveragePool": Operator(layers.global_average_pool),
    "GlobalMaxPool": Operator(layers.global_max_pool),
    "HardSigmoid": Operator(_hard_sigmoid),
    "HardSwish": _plain(functional.hardswish),
    "Identity": Operator(_first),
    "InstanceNormalization": Operator(layers.instance_normalization),
    "IsNaN": _plain(torch.isnan),
    "LayerNormalization": Operator(layers.layer_normalization),
    "LeakyRelu": Operator(_leaky_relu),
    "Log": _plain(torch.log),
    "LogSoftmax": Operator(_log_softmax),
    "MatMul": Operator(layers.matrix_product),
    "Max": _folded(torch.maximum),
    "MaxPool": Operator(layers.max_pool),
    "Mean": Operator(_mean_of),
    "Min": _folded(torch.minimum),
    "Mul": _plain(torch.mul),
    "Neg": _plain(torch.neg),
    "PRelu": Operator(_prelu),
    "Pad": Operator(_pad, static=(1, 2, 3)),
    "Pow": Operator(_power, static=(1,)),
    "Reciprocal": _plain(torch.reciprocal),
    "ReduceL2": _reduced(_l2),
    "ReduceMax": _reduced(torch.amax),
    "ReduceMean": _reduced(torch.mean),
    "ReduceMin": _reduced(torch.amin),
    "ReduceSum": _reduced(torch.sum),
    "Relu": _plain(torch.relu),
    "Reshape": Operator(_reshape, static=(1,)),
    "Resize": Operator(layers.resize, static=(1, 2, 3)),
    "Sigmoid": _plain(torch.sigmoid),
    "Slice": Operator(_slice, static=(1, 2, 3, 4)),
    "Softmax": Operator(_softmax),
    "Softplus": _plain(functional.softplus),
    "Split": Operator(_split, static=(1,)),
    "Sqrt": _plain(torch.sqrt),
    "Squeeze": Operator(_squeeze, static=(1,)),
    "Sub": _plain(torch.sub),
    "Sum": _folded(torch.add),
    "Tanh": _plain(torch.tanh),
    "Tile": Operator(_tile, static=(1,)),
    "Transpose": Operator(_transpose),
    "Unsqueeze": Operator(_unsqueeze, static=(1,)),
    "Where": _plain(torch.where),
}
