"""ONNX operators with weights or windows, in torch; `operators` is their table."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from .call import Call

_CONVOLUTIONS = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}
_TRANSPOSED = {
    3: functional.conv_transpose1d,
    4: functional.conv_transpose2d,
    5: functional.conv_transpose3d,
}


def convolution(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Conv; asymmetric pads are put around before."""
    axes = x.ndim - 2
    window = Window(call, x, kernel=tuple(weight.shape[2:]))
    padded, padding = window.symmetric(x)
    result: Tensor = _CONVOLUTIONS[axes + 2](
        padded,
        weight,
        bias,
        stride=window.strides,
        padding=padding,
        dilation=window.dilations,
        groups=call.integer("group", 1),
    )
    return result


def transposed_convolution(
    call: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """ConvTranspose; asymmetric pads are cut off afterwards."""
    axes = x.ndim - 2
    if call.text("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or call.integers("output_shape"):
        raise call.unsupported("has its pads computed, which is not there yet")
    pads = call.integers("pads", (0,) * 2 * axes)
    begins, ends = pads[:axes], pads[axes:]
    symmetric = begins == ends
    result: Tensor = _TRANSPOSED[axes + 2](
        x,
        weight,
        bias,
        stride=call.integers("strides", (1,) * axes),
        padding=begins if symmetric else (0,) * axes,
        output_padding=call.integers("output_padding", (0,) * axes),
        groups=call.integer("group", 1),
        dilation=call.integers("dilations", (1,) * axes),
    )
    if not symmetric:
        for axis, (begin, end) in enumerate(zip(begins, ends, strict=True), start=2):
            result = result.narrow(axis, begin, result.shape[axis] - begin - end)
    return result


def max_pool(call: Call, x: Tensor) -> Tensor:
    """MaxPool over two axes."""
    if call.outputs != 1 or x.ndim != 4:
        raise call.unsupported("has indices or is not over two axes")
    window = Window(call, x, kernel=call.integers("kernel_shape"))
    padding = window.begins
    if not window.is_symmetric:
        if set(window.dilations) != {1}:
            raise call.unsupported("has asymmetric pads and dilations")
        # Repeating the edge changes no maximum, where -inf would spoil an int8 range.
        for axis, (begin, end) in enumerate(zip(window.begins, window.ends, strict=True), start=2):
            x = _repeat_edges(x, axis, begin, end)
        padding = (0, 0)
    return functional.max_pool2d(
        x,
        kernel_size=window.kernel,
        stride=window.strides,
        padding=padding,
        dilation=window.dilations,
        ceil_mode=bool(call.integer("ceil_mode", 0)),
    )


def average_pool(call: Call, x: Tensor) -> Tensor:
    """AveragePool over two axes."""
    if x.ndim != 4:
        raise call.unsupported("is not over two axes")
    window = Window(call, x, kernel=call.integers("kernel_shape"))
    if set(window.dilations) != {1}:
        raise call.unsupported("has dilations")
    with_pad = bool(call.integer("count_include_pad", 0))
    ceil = bool(call.integer("ceil_mode", 0))
    if window.is_symmetric:
        return functional.avg_pool2d(
            x,
            kernel_size=window.kernel,
            stride=window.strides,
            padding=window.begins,
            ceil_mode=ceil,
            count_include_pad=with_pad,
        )
    # Averages over zeros put around, scaled by how many elements of each window count.
    over = window.beyond_end(x) if ceil else (0, 0)
    padded = functional.pad(x, window.as_torch(extra=over))
    averages = functional.avg_pool2d(padded, kernel_size=window.kernel, stride=window.strides)
    return averages * torch.from_numpy(window.shares(x, over=over, with_pad=with_pad)).to(x)


def global_average_pool(call: Call, x: Tensor) -> Tensor:
    """GlobalAveragePool."""
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


def global_max_pool(call: Call, x: Tensor) -> Tensor:
    """GlobalMaxPool."""
    return x.amax(tuple(range(2, x.ndim)), keepdim=True)


def gemm(call: Call, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """Gemm; one LiteRT FULLY_CONNECTED where the bias is a row."""
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)
    left = a.T if call.integer("transA", 0) else a
    weight = b if call.integer("transB", 0) else b.T
    if alpha != 1:
        weight = weight * alpha
    if c is None:
        return functional.linear(left, weight)
    bias = c if beta == 1 else c * beta
    if bias.ndim and bias.numel() == weight.shape[0] == bias.shape[-1]:
        return functional.linear(left, weight, bias.reshape(-1))
    return functional.linear(left, weight) + bias


def matrix_product(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """MatMul; by constant weights it is FULLY_CONNECTED, which is quantized per channel."""
    if b.ndim == 2 and call.constant(1) is not None:
        return functional.linear(a, b.T)
    return torch.matmul(a, b)


def batch_normalization(
    call: Call, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    """BatchNormalization of a trained model."""
    if call.integer("training_mode", 0):
        raise call.unsupported("is in training mode")
    epsilon = call.number("epsilon", 1e-5)
    return functional.batch_norm(x, mean, variance, scale, bias, eps=epsilon)


def instance_normalization(call: Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """InstanceNormalization."""
    epsilon = call.number("epsilon", 1e-5)
    return functional.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


def layer_normalization(call: Call, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """LayerNormalization from an axis to the last."""
    if call.outputs != 1:
        raise call.unsupported("gives its mean too")
    shape = x.shape[call.integer("axis", -1) :]
    return functional.layer_norm(
        x,
        list(shape),
        scale.expand(shape),
        None if bias is None else bias.expand(shape),
        call.number("epsilon", 1e-5),
    )


def resize(call: Call, x: Tensor) -> Tensor:
    """Resize of the last two of four axes, nearest or linear."""
    mode = call.text("mode", "nearest")
    coordinates = call.text("coordinate_transformation_mode", "half_pixel")
    scales, sizes = call.constant(2), call.integers_at(3)
    if sizes is None:
        if scales is None:
            raise call.unsupported("has neither scales nor sizes")
        sizes = tuple(
            math.floor(size * float(scale)) for size, scale in zip(x.shape, scales, strict=True)
        )
    if x.ndim != 4 or len(sizes) != 4 or tuple(x.shape[:2]) != sizes[:2]:
        raise call.unsupported("resizes other axes than the last two of four")
    wanted = (sizes[2], sizes[3])
    grows = sizes[2] >= x.shape[2] and sizes[3] >= x.shape[3]
    if mode == "linear" and (grows or not call.integer("antialias", 0)):
        if coordinates in ("half_pixel", "pytorch_half_pixel"):
            return functional.interpolate(x, wanted, mode="bilinear", align_corners=False)
        if coordinates == "align_corners":
            return functional.interpolate(x, wanted, mode="bilinear", align_corners=True)
    if mode == "nearest":
        rounding = call.text("nearest_mode", "round_prefer_floor")
        whole = all(new % old == 0 for new, old in zip(wanted, x.shape[2:], strict=True))
        if coordinates == "asymmetric" and (rounding == "floor" or (whole and rounding != "ceil")):
            return functional.interpolate(x, wanted, mode="nearest")
        if coordinates == "half_pixel" and whole:
            return functional.interpolate(x, wanted, mode="nearest")
    raise call.unsupported(f"resizes by {mode} with {coordinates} coordinates")


class Window:
    """Kernel, strides, dilations and pads of a node, per axis, whatever way they are written."""

    def __init__(self, call: Call, x: Tensor, *, kernel: Sequence[int]) -> None:
        axes = x.ndim - 2
        if axes not in (1, 2, 3):
            raise call.unsupported(f"has {axes} axes")
        self.kernel = tuple(kernel)
        self.strides = call.integers("strides", (1,) * axes)
        self.dilations = call.integers("dilations", (1,) * axes)
        self.reach = tuple(
            (size - 1) * dilation + 1
            for size, dilation in zip(self.kernel, self.dilations, strict=True)
        )
        pads = call.integers("pads", (0,) * 2 * axes)
        self.begins, self.ends = pads[:axes], pads[axes:]
        automatic = call.text("auto_pad", "NOTSET")
        if automatic in ("SAME_UPPER", "SAME_LOWER"):
            totals = [
                max((math.ceil(size / stride) - 1) * stride + reach - size, 0)
                for size, stride, reach in zip(x.shape[2:], self.strides, self.reach, strict=True)
            ]
            less = tuple(total // 2 for total in totals)
            more = tuple(total - total // 2 for total in totals)
            self.begins, self.ends = (less, more) if automatic == "SAME_UPPER" else (more, less)

    @property
    def is_symmetric(self) -> bool:
        return self.begins == self.ends

    def as_torch(self, *, extra: Sequence[int] | None = None) -> list[int]:
        """The pads as `functional.pad` has them: last axis first."""
        ends = [end + more for end, more in zip(self.ends, extra or [0, 0, 0], strict=False)]
        pairs = list(zip(self.begins, ends, strict=True))
        return [pad for pair in reversed(pairs) for pad in pair]

    def symmetric(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """The tensor, padded with zeros where an operator cannot, and the pads that are left."""
        if self.is_symmetric:
            return x, self.begins
        return functional.pad(x, self.as_torch()), (0,) * len(self.begins)

    def shares(self, x: Tensor, *, over: Sequence[int], with_pad: bool) -> npt.NDArray[np.float32]:
        """What averages over whole windows are to be multiplied with, float32 [h, w]."""
        scales = []
        for axis, size in enumerate(x.shape[2:]):
            begin, end, kernel = self.begins[axis], self.ends[axis], self.kernel[axis]
            counts = np.zeros(begin + size + end + over[axis], np.float32)
            counts[: begin + size + end] = 1 if with_pad else 0
            counts[begin : begin + size] = 1
            windows = np.lib.stride_tricks.sliding_window_view(counts, kernel)
            scales.append(kernel / windows[:: self.strides[axis]].sum(axis=1))
        rows, columns = scales
        shares: npt.NDArray[np.float32] = (rows[:, None] * columns).astype(np.float32)
        return shares

    def beyond_end(self, x: Tensor) -> tuple[int, ...]:
        """How far ceil_mode's last windows reach beyond the padded tensor, per axis.

        A window that would begin behind the tensor and its first pads is left out.
        """
        over = []
        for axis, size in enumerate(x.shape[2:]):
            padded = size + self.begins[axis] + self.ends[axis]
            stride, reach = self.strides[axis], self.reach[axis]
            last = math.ceil((padded - reach) / stride)
            if last * stride >= size + self.begins[axis]:
                last -= 1
            over.append(max(0, last * stride + reach - padded))
        return tuple(over)


def _repeat_edges(x: Tensor, axis: int, begin: int, end: int) -> Tensor:
    parts = [x.narrow(axis, 0, 1)] * begin + [x] + [x.narrow(axis, x.shape[axis] - 1, 1)] * end
    return torch.cat(parts, dim=axis) if len(parts) > 1 else x
