"""ONNX graphs as torch modules, for models that have no torch source: to infer and to export.

An operator that cannot run on a device ends the list of possible cuts, and is no failure: the
module then is the graph up to the last cut before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnxruntime
import torch
from onnx import ModelProto, NodeProto
from onnx.numpy_helper import to_array
from torch import Tensor

from ...shared.errors import BuildError
from .litert import Floats, relative_error
from .onnx_call import Call, Constant
from .onnx_fold import fold, prefix, with_gelus
from .onnx_graph import find_cuts
from .onnx_operators import OPERATORS, Operator
from .onnx_source import takes_channels_last

_SAME_VALUES = 1e-4
_ONNX_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class FromOnnx:
    """A module with the values of a model, or of its part before an operator that has no torch.

    `ended_by` names that operator and says why; it is empty where the module is the whole model.
    """

    module: "OnnxModule"
    channels_last: bool
    ended_by: str


def torch_from_onnx(model: ModelProto, tensors: Sequence[Floats]) -> FromOnnx:
    """The model as a torch module, compared with ONNX Runtime on real inputs.

    `tensors` are float32 [1, h, w, c], the module takes what the model takes. BuildError names the
    operator if there is no cut before one that cannot run, or says how far the values differ.
    """
    channels_last = takes_channels_last(model)
    inputs = [tensor if channels_last else tensor.transpose(0, 3, 1, 2) for tensor in tensors]
    folded = fold(model)
    runs, ended_by = _reach(folded, inputs[0])
    if ended_by:
        cuts = [cut for cut in find_cuts(folded) if cut.node < runs]
        if not cuts:
            raise BuildError(f"{ended_by}, and there is no cut before it")
        folded = model = prefix(folded, cuts[-1])
    module = OnnxModule(with_gelus(folded))
    error = _error(module, model, inputs)
    if error > _SAME_VALUES:
        raise BuildError(
            f"the ONNX model in torch is {error:.2g} off ONNX Runtime on real pictures, "
            f"{_SAME_VALUES:g} is allowed"
        )
    return FromOnnx(module=module, channels_last=channels_last, ended_by=ended_by)


@dataclass(frozen=True)
class _Step:
    """A node: where its tensors come from (None: not given) and what is not needed after it."""

    operator: Operator
    call: Call
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    dead: tuple[str, ...] = ()


class OnnxModule(torch.nn.Module):
    """A folded ONNX graph, node by node; its weights are buffers. BuildError as `_step` says."""

    def __init__(self, model: ModelProto) -> None:
        super().__init__()
        graph = model.graph
        constants = _constants(model)
        steps = [_step(node, constants) for node in graph.node if node.op_type != "Constant"]
        self._input, self._output = graph.input[0].name, graph.output[0].name
        self._steps = _with_deaths(steps, keep=self._output)
        self._buffer_names: dict[str, str] = {}
        read = {name for step in steps for name in step.inputs if name is not None}
        for name in sorted(read & constants.keys()):
            self._buffer_names[name] = f"constant_{len(self._buffer_names)}"
            self.register_buffer(self._buffer_names[name], torch.from_numpy(constants[name].copy()))
        self.eval()

    def forward(self, tensor: Tensor) -> Tensor:
        """The output for float32 [1, ...], as the graph's input has it."""
        values = {name: self.get_buffer(own) for name, own in self._buffer_names.items()}
        values[self._input] = tensor
        for step in self._steps:
            _run(step, values)
        return values[self._output]


def _run(step: _Step, values: dict[str, Tensor]) -> None:
    """Adds what a step makes to the values, and drops what nothing needs any more."""
    given = [None if name is None else values[name] for name in step.inputs]
    made = step.operator.run(step.call, *given)
    values.update(zip(step.outputs, made if isinstance(made, tuple) else (made,), strict=True))
    for name in step.dead:
        values.pop(name, None)


def _step(node: NodeProto, constants: dict[str, Constant]) -> _Step:
    """BuildError if the operator is not in the table or takes data where a constant must be."""
    call = Call.of(node, constants)
    operator = OPERATORS.get(node.op_type)
    if operator is None or node.domain not in _ONNX_DOMAINS:
        raise call.unsupported("cannot run on a device")
    for index in operator.static:
        if index < len(node.input) and node.input[index] and call.constant(index) is None:
            raise call.unsupported(f"takes input {index} from data")
    inputs = [name or None for i, name in enumerate(node.input) if i not in operator.static]
    while inputs and inputs[-1] is None:
        inputs.pop()
    outputs = tuple(node.output)
    while len(outputs) > 1 and not outputs[-1]:
        outputs = outputs[:-1]
    return _Step(operator, call, tuple(inputs), outputs)


def _with_deaths(steps: Sequence[_Step], *, keep: str) -> list[_Step]:
    last = {name: index for index, step in enumerate(steps) for name in step.inputs}
    dead: dict[int, list[str]] = {}
    for name, index in last.items():
        if name is not None and name != keep:
            dead.setdefault(index, []).append(name)
    return [replace(step, dead=tuple(dead.get(index, ()))) for index, step in enumerate(steps)]


def _constants(model: ModelProto) -> dict[str, Constant]:
    constants = {tensor.name: to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = to_array(node.attribute[0].t)
    return constants


def _reach(model: ModelProto, tensor: Floats) -> tuple[int, str]:
    """How many nodes run, from the first one on, and what ended it ("" if they all do)."""
    constants = _constants(model)
    values = {name: torch.from_numpy(value.copy()) for name, value in constants.items()}
    values[model.graph.input[0].name] = torch.from_numpy(np.ascontiguousarray(tensor))
    last = {name: index for index, node in enumerate(model.graph.node) for name in node.input}
    for index, node in enumerate(model.graph.node):
        if node.op_type == "Constant":
            continue
        dead = tuple(name for name in node.input if last[name] == index)
        try:
            with torch.inference_mode():
                _run(replace(_step(node, constants), dead=dead), values)
        except BuildError as error:
            return index, str(error)
        # What torch raises for a use of an operator that it does not have is nowhere listed.
        except (RuntimeError, TypeError, ValueError, IndexError, KeyError) as error:
            return index, f"operator {node.op_type} ({node.output[0]!r}) fails in torch: {error}"
    return len(model.graph.node), ""


def _error(module: OnnxModule, model: ModelProto, inputs: Sequence[Floats]) -> float:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    worst = 0.0
    for tensor in inputs:
        wanted = session.run(None, {name: np.ascontiguousarray(tensor)})[0]
        with torch.inference_mode():
            made = module(torch.from_numpy(np.ascontiguousarray(tensor))).numpy()
        if made.shape != wanted.shape:
            raise BuildError(f"the ONNX model answers {wanted.shape}, in torch {made.shape}")
        worst = max(worst, relative_error(made, wanted))
    return worst
