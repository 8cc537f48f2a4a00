"""The operators of an int8 TFLite model one by one, each beside its float twin."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ..progress import Count, counted, uncounted
from ..quiet import quiet
from ..tflite_graph import load, save

_INT8 = schema.TensorType.INT8
_KINDS: dict[int, str] = {
    code: name for name, code in vars(schema.BuiltinOperator).items() if name.isupper()
}
_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")


@dataclass(frozen=True)
class Twins:
    """One operator alone as two models that take and give the same tensors.

    `int8` computes in int8. Where its tensors are int8 too, `float32` dequantizes, computes in
    float and quantizes again: what leaving the operator in float costs at most, since neighbours in
    float share the conversions. Where only its weights are int8, `float32` is the operator itself.
    `name` is the first output, `shape` tells operators apart that need not be measured twice.
    """

    kind: str
    name: str
    shape: str
    int8: bytes
    float32: bytes


def twins(float_model: bytes, int8_model: bytes, *, count: Count = uncounted) -> Iterator[Twins]:
    """Every operator that computes in int8 in the one model and in float in the other.

    Of a static int8 model those with int8 activations, of a dynamic one those with int8 weights.
    """
    float_tree, int8_tree = load(float_model), load(int8_model)
    (float_graph,), (int8_graph,) = float_tree.subgraphs, int8_tree.subgraphs
    in_float = {_output_name(float_graph, each): each for each in float_graph.operators}
    for operator in counted(int8_graph.operators, count):
        kind = kind_of(int8_tree, operator)
        name = _output_name(int8_graph, operator)
        twin = in_float.get(name)
        if kind in _CONVERSIONS or twin is None:
            continue
        if not _activations(int8_tree, int8_graph, operator):
            continue
        if _gives_int8(int8_graph, operator):
            float32 = _in_float((float_tree, twin), (int8_tree, operator))
        elif _has_int8_weights(int8_tree, int8_graph, operator):
            float32 = _alone(float_tree, float_graph, twin)
        else:
            continue
        yield Twins(
            kind=kind,
            name=name,
            shape=_shape(int8_tree, int8_graph, operator),
            int8=save(_alone(int8_tree, int8_graph, operator)),
            float32=save(float32),
        )


def kind_of(tree: Any, operator: Any) -> str:
    """The operator's name in TFLite, such as CONV_2D."""
    code = tree.operatorCodes[operator.opcodeIndex]
    builtin = max(int(code.builtinCode), int(code.deprecatedBuiltinCode))
    return _KINDS.get(builtin, str(builtin))


def runner(model: bytes, *, seed: int = 0) -> Callable[[], object]:
    """Runs a model on one thread, its inputs filled with noise once."""
    with quiet("loading of a single operator"):
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_content=model, num_threads=1)
        interpreter.allocate_tensors()
        noise = np.random.default_rng(seed)
        for entry in interpreter.get_input_details():
            shape, dtype = entry["shape"], entry["dtype"]
            values = (
                noise.integers(-128, 128, shape).astype(dtype)
                if np.issubdtype(dtype, np.integer)
                else noise.normal(size=shape).astype(dtype)
            )
            interpreter.set_tensor(entry["index"], values)
        interpreter.invoke()

    def run() -> object:
        return interpreter.invoke()

    return run


def _output_name(graph: Any, operator: Any) -> str:
    name: str = graph.tensors[int(operator.outputs[0])].name.decode()
    return name


def _gives_int8(graph: Any, operator: Any) -> bool:
    return all(graph.tensors[int(at)].type == _INT8 for at in operator.outputs)


def _has_int8_weights(tree: Any, graph: Any, operator: Any) -> bool:
    inputs = [graph.tensors[int(at)] for at in operator.inputs if int(at) >= 0]
    return any(
        tensor.type == _INT8 and tree.buffers[tensor.buffer].data is not None for tensor in inputs
    )


def _activations(tree: Any, graph: Any, operator: Any) -> list[int]:
    """The inputs that are no constants."""
    return [
        int(at)
        for at in operator.inputs
        if int(at) >= 0 and tree.buffers[graph.tensors[int(at)].buffer].data is None
    ]


def _shape(tree: Any, graph: Any, operator: Any) -> str:
    """All that its time depends on, weights' values apart."""
    tensors = [graph.tensors[int(at)] for at in (*operator.inputs, *operator.outputs) if at >= 0]
    sizes = ["x".join(map(str, tensor.shape)) + f":{tensor.type}" for tensor in tensors]
    options = operator.builtinOptions
    said = sorted(vars(options).items()) if options is not None else []
    return f"{kind_of(tree, operator)} {' '.join(sizes)} {said}"


class _Model:
    """A model of few operators under construction."""

    def __init__(self, tree: Any) -> None:
        self.tree = schema.ModelT()
        self.tree.version = tree.version
        self.tree.operatorCodes, self.tree.buffers = [], [schema.BufferT()]
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.graph.inputs, self.graph.outputs = [], []
        self.tree.subgraphs = [self.graph]

    def tensor(self, source: Any, data: Any = None) -> int:
        """A copy of a tensor, with these contents if it is a constant."""
        tensor = copy.copy(source)
        tensor.buffer = 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = data
            tensor.buffer = len(self.tree.buffers)
            self.tree.buffers.append(buffer)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def add(self, operator: Any, code: Any, inputs: list[int], outputs: list[int]) -> None:
        added = copy.copy(operator)
        added.inputs, added.outputs, added.intermediates = inputs, outputs, None
        added.opcodeIndex = len(self.tree.operatorCodes)
        self.tree.operatorCodes.append(code)
        self.graph.operators.append(added)

    def convert(self, kind: str, source: int, target: int) -> None:
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = 2
        self.add(schema.OperatorT(), code, [source], [target])


def _alone(tree: Any, graph: Any, operator: Any) -> Any:
    model = _Model(tree)
    moved = {-1: -1}
    for at in map(int, (*operator.inputs, *operator.outputs)):
        if at not in moved:
            source = graph.tensors[at]
            moved[at] = model.tensor(source, tree.buffers[source.buffer].data)
    model.graph.inputs = [moved[at] for at in dict.fromkeys(_activations(tree, graph, operator))]
    model.graph.outputs = [moved[int(at)] for at in operator.outputs]
    model.add(
        operator,
        tree.operatorCodes[operator.opcodeIndex],
        [moved[int(at)] for at in operator.inputs],
        model.graph.outputs,
    )
    return model.tree


def _in_float(twin: tuple[Any, Any], int8: tuple[Any, Any]) -> Any:
    """The float twin between the int8 operator's activations, converted at both ends."""
    (tree, operator), (int8_tree, int8_operator) = twin, int8
    (graph,), (int8_graph,) = tree.subgraphs, int8_tree.subgraphs
    model = _Model(tree)
    moved = {-1: -1}
    for at, in_int8 in zip(operator.inputs, int8_operator.inputs, strict=True):
        if int(at) in moved:
            continue
        source, outer = graph.tensors[int(at)], int8_graph.tensors[int(in_int8)]
        data = tree.buffers[source.buffer].data
        moved[int(at)] = model.tensor(source, data)
        if data is None and outer.type == _INT8:
            model.graph.inputs.append(model.tensor(outer))
            model.convert("DEQUANTIZE", model.graph.inputs[-1], moved[int(at)])
        elif data is None:
            model.graph.inputs.append(moved[int(at)])
    outputs = [model.tensor(graph.tensors[int(at)]) for at in operator.outputs]
    code = tree.operatorCodes[operator.opcodeIndex]
    model.add(operator, code, [moved[int(at)] for at in operator.inputs], outputs)
    for at, made in zip(int8_operator.outputs, outputs, strict=True):
        model.graph.outputs.append(model.tensor(int8_graph.tensors[int(at)]))
        model.convert("QUANTIZE", made, model.graph.outputs[-1])
    return model.tree
