"""A trained bottleneck as ONNX: convolutions with their norms folded in, and little else.

Written by hand, so that it says the same under every opset from 13 on and can stand in front of any
model.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper
from onnx.numpy_helper import from_array
from torch import nn

from ..compiler.bottleneck import FEATURES, LATENTS, OWN_PREFIX, PICTURES
from .bottleneck_net import Bottleneck, Features, Residual

_OPSET, _IR_VERSION = 13, 8

F32 = npt.NDArray[np.float32]


def as_onnx(net: Bottleneck, features: Features, *, size_px: int) -> ModelProto:
    """Normalized pictures [n, 3, s, s] by way of the latents to features; `net` is in eval mode."""
    writer = _Writer()
    latents = writer.sequence(net.encoder.layers, PICTURES)
    writer.node("Identity", [latents], LATENTS)
    made = writer.sequence(net.decoder.layers, LATENTS)
    scale = writer.constant(np.array(net.decoder.scale, np.float32))
    writer.node("Mul", [made, scale], FEATURES)
    sides = (features.side, features.side)
    graph = helper.make_graph(
        writer.nodes,
        "bottleneck",
        [_float(PICTURES, 3, size_px, size_px)],
        [_float(FEATURES, features.channels, *sides)],
        writer.weights,
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION
    )


def _float(name: str, *sizes: int) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *sizes])


class _Writer:
    """Nodes and weights, named in their order."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []

    def node(self, operator: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        output = output or f"{OWN_PREFIX}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def constant(self, values: F32) -> str:
        name = f"{OWN_PREFIX}w{len(self.weights)}"
        self.weights.append(from_array(np.ascontiguousarray(values), name))
        return name

    def sequence(self, layers: nn.Sequential, name: str) -> str:
        for layer, after in zip(layers, [*list(layers)[1:], None], strict=True):
            match layer:
                case nn.Sequential():
                    name = self.sequence(layer, name)
                case Residual():
                    name = self.node("Add", [name, self.sequence(layer.layers, name)])
                case nn.Conv2d():
                    norm = after if isinstance(after, nn.BatchNorm2d) else None
                    name = self._convolution(layer, norm, name)
                case nn.BatchNorm2d():
                    pass  # in the convolution before it
                case nn.ReLU6():
                    ends = (self.constant(np.array(end, np.float32)) for end in (0, 6))
                    name = self.node("Clip", [name, *ends])
                case nn.ReLU():
                    name = self.node("Relu", [name])
                case _:
                    raise TypeError(f"no ONNX is known for {type(layer).__name__}")
        return name

    def _convolution(self, layer: nn.Conv2d, norm: nn.BatchNorm2d | None, name: str) -> str:
        weight = layer.weight.detach().double().numpy()
        bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.detach().double().numpy()
        if norm is not None:
            parts = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
            gain, shift, mean, variance = (
                part.detach().double().numpy() for part in parts if part is not None
            )
            gain = gain / np.sqrt(variance + norm.eps)
            weight, bias = weight * gain[:, None, None, None], (bias - mean) * gain + shift
        down, right = (int(size) for size in layer.padding)
        return self.node(
            "Conv",
            [name, *(self.constant(each.astype(np.float32)) for each in (weight, bias))],
            kernel_shape=list(layer.kernel_size),
            strides=list(layer.stride),
            pads=[down, right, down, right],
            group=layer.groups,
        )
