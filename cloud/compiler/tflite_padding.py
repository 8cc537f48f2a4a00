"""PADV2, which pads with any value, becomes PAD, which pads with zero and has fast kernels.

torch pads before a max pooling with the lowest value there is. Behind a ReLU zero does as well, as
long as no window lies in the padding alone. LiteRT's delegates know PAD and do not know PADV2.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from .tflite_graph import load, save

_Operators = schema.BuiltinOperator
_NEVER_BELOW_ZERO = (
    schema.ActivationFunctionType.RELU,
    schema.ActivationFunctionType.RELU6,
)
_RELUS = (_Operators.RELU, _Operators.RELU6, _Operators.RELU_0_TO_1)


def padded_by_zero(model: bytes) -> bytes:
    """A float model with PAD for every PADV2 that pads by zero, or might; any other as it is."""
    tree = load(model)
    graph = _Graph(tree)
    found = [operator for operator in graph.of(_Operators.PADV2) if graph.may_be_zero(operator)]
    if not found:
        return model
    pad = schema.OperatorCodeT()
    pad.builtinCode = pad.deprecatedBuiltinCode = _Operators.PAD
    pad.version = 1
    tree.operatorCodes.append(pad)
    for operator in found:
        operator.opcodeIndex = len(tree.operatorCodes) - 1
        operator.inputs = list(operator.inputs[:2])
        operator.builtinOptionsType = schema.BuiltinOptions.PadOptions
        operator.builtinOptions = schema.PadOptionsT()
    return save(tree)


class _Graph:
    """A model's only graph: who makes a tensor, who reads it, what a constant holds."""

    def __init__(self, tree: Any) -> None:
        self._tree = tree
        (self._graph,) = tree.subgraphs

    def of(self, code: int) -> Iterator[Any]:
        return (each for each in self._graph.operators if self._code(each) == code)

    def may_be_zero(self, padding: Any) -> bool:
        """Whether nothing that comes after a PADV2 changes if it pads by zero."""
        value = self._constant(padding.inputs[2], np.float32)
        sides = self._constant(padding.inputs[1], np.int32)
        if value is None or sides is None:
            return False
        if not value.any():
            return True
        before, after = sides.reshape(-1, 2).T
        return bool(
            (value <= 0).all()
            and self._is_never_negative(int(padding.inputs[0]))
            and int(padding.outputs[0]) not in map(int, self._graph.outputs)
            and all(
                self._reaches_inside(reader, before, after)
                for reader in self._graph.operators
                if int(padding.outputs[0]) in map(int, reader.inputs)
            )
        )

    def _is_never_negative(self, tensor: int) -> bool:
        makers = [each for each in self._graph.operators if tensor in map(int, each.outputs)]
        return len(makers) == 1 and (
            self._code(makers[0]) in _RELUS
            or getattr(makers[0].builtinOptions, "fusedActivationFunction", None)
            in _NEVER_BELOW_ZERO
        )

    def _reaches_inside(
        self, reader: Any, before: npt.NDArray[np.int32], after: npt.NDArray[np.int32]
    ) -> bool:
        """Whether a reader is a max pooling without a window that holds nothing but padding."""
        if self._code(reader) != _Operators.MAX_POOL_2D:
            return False
        options = reader.builtinOptions
        window = np.array([1, options.filterHeight, options.filterWidth, 1])
        valid = options.padding == schema.Padding.VALID
        return bool(valid and (before < window).all() and (after < window).all())

    def _constant(self, tensor: int, dtype: Any) -> npt.NDArray[Any] | None:
        data = self._tree.buffers[self._graph.tensors[int(tensor)].buffer].data
        return None if data is None else np.frombuffer(bytes(data), dtype)

    def _code(self, operator: Any) -> int:
        code = self._tree.operatorCodes[operator.opcodeIndex]
        return max(int(code.builtinCode), int(code.deprecatedBuiltinCode))
