"""ONNX graphs as torch modules, for models that have no torch source: to infer and to export.

An operator that cannot run on a device ends the list of possible cuts, and is no failure: the
module then is the graph up to the last cut before it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnxruntime
import torch
from onnx import ModelProto, NodeProto
from onnx.numpy_helper import to_array
from torch import Tensor

from ...shared.errors import BuildError
from ..torch_graph.call import Constant
from ..torch_graph.steps import run_step, step_of, with_deaths
from .litert import Floats, relative_error, run_module
from .litert import Tensor as Array
from .onnx_flow import reads
from .onnx_fold import fold, prefix, with_gelus, without_nan_guards
from .onnx_source import takes_channels_last

_SAME_VALUES = 1e-4


@dataclass(frozen=True)
class FromOnnx:
    """A module with the values of a model, or of its part before an operator that has no torch.

    `part` is the ONNX graph of the module, for a batch of one. `ended_by` names the operator or the
    side input that ended it and says why; it is empty where the module is the whole model.
    """

    module: "OnnxModule"
    part: ModelProto
    channels_last: bool
    ended_by: str

    def original(self) -> Callable[[Floats], list[Array]]:
        """ONNX Runtime's outputs of the same part, for float32 [1, h, w, c]."""
        run = _session_run(self.part)
        if self.channels_last:
            return run
        return lambda tensor: run(tensor.transpose(0, 3, 1, 2))


def torch_from_onnx(model: ModelProto, tensors: Sequence[Floats]) -> FromOnnx:
    """The model as a torch module, compared with ONNX Runtime on real inputs.

    `tensors` are float32 [1, h, w, c], the module takes what the model takes. Where not every
    operator runs, or some need a side input, the module ends before them: its outputs are all that
    they and the model's outputs still need. BuildError if that were the picture itself, or if the
    values differ.
    """
    channels_last = takes_channels_last(model)
    inputs = [tensor if channels_last else tensor.transpose(0, 3, 1, 2) for tensor in tensors]
    part, ended_by = _device_part(fold(model), inputs[0])
    module = OnnxModule(with_gelus(without_nan_guards(part)))
    error = _error(module, part, inputs)
    if error > _SAME_VALUES:
        raise BuildError(
            f"the ONNX model in torch is {error:.2g} off ONNX Runtime on real pictures, "
            f"{_SAME_VALUES:g} is allowed"
        )
    return FromOnnx(module=module, part=part, channels_last=channels_last, ended_by=ended_by)


class OnnxModule(torch.nn.Module):
    """A folded ONNX graph, node by node; its weights are buffers. BuildError as `step_of` says."""

    def __init__(self, model: ModelProto) -> None:
        super().__init__()
        graph = model.graph
        constants = _constants(model)
        steps = [step_of(node, constants) for node in graph.node if node.op_type != "Constant"]
        self._input = graph.input[0].name
        self._outputs = tuple(value.name for value in graph.output)
        self._steps = with_deaths(steps, keep=self._outputs)
        self._buffer_names: dict[str, str] = {}
        read = {name for step in steps for name in step.inputs if name is not None}
        for name in sorted(read & constants.keys()):
            self._buffer_names[name] = f"constant_{len(self._buffer_names)}"
            self.register_buffer(self._buffer_names[name], torch.from_numpy(constants[name].copy()))
        self.eval()

    def forward(self, tensor: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The output, or the outputs, for float32 [1, ...], as the graph's input has it."""
        values = {name: self.get_buffer(own) for name, own in self._buffer_names.items()}
        values[self._input] = tensor
        for step in self._steps:
            run_step(step, values)
        made = tuple(values[name] for name in self._outputs)
        return made if len(made) > 1 else made[0]


def _constants(model: ModelProto) -> dict[str, Constant]:
    constants = {tensor.name: to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = to_array(node.attribute[0].t)
    return constants


def _device_part(model: ModelProto, tensor: Floats) -> tuple[ModelProto, str]:
    """What of a graph runs in torch and needs only the picture, and what ended it ("": nothing)."""
    picture, *sides = (value.name for value in model.graph.input)
    nodes = [node for node in model.graph.node if node.op_type != "Constant"]
    sizes, failures = _trial(model, nodes, tensor, beyond=set(sides))
    if not sides and not failures:
        return model, ""
    reason = next(iter(failures.values()), f"side input {sides[0]!r} joins in" if sides else "")
    beyond = {*sides, *failures}
    while True:
        for node in nodes:
            if not beyond.isdisjoint(reads(node)):
                beyond.update(node.output)
        needed = {name for node in nodes if node.output[0] in beyond for name in reads(node)}
        needed |= {value.name for value in model.graph.output}
        ends = [name for name in sizes if name in needed and name not in beyond]
        wrong = {name for name in ends if sizes[name] is None}
        if not wrong:
            break
        beyond |= wrong  # only floats can be sent: whatever makes others stays behind the cut
    if picture in ends or not ends:
        raise BuildError(f"{reason}, and there is no cut before it")
    return prefix(model, {name: sizes[name] or () for name in ends}), reason


def _trial(
    model: ModelProto, nodes: Sequence[NodeProto], tensor: Floats, *, beyond: set[str]
) -> tuple[dict[str, tuple[int, ...] | None], dict[str, str]]:
    """Runs every node it can: sizes of what they make (None: no float32), and why others fail."""
    constants = _constants(model)
    values = {name: torch.from_numpy(value.copy()) for name, value in constants.items()}
    picture = model.graph.input[0].name
    values[picture] = torch.from_numpy(np.ascontiguousarray(tensor))
    last = {name: index for index, node in enumerate(nodes) for name in node.input}
    sizes: dict[str, tuple[int, ...] | None] = {picture: tuple(tensor.shape)}
    failures: dict[str, str] = {}
    for index, node in enumerate(nodes):
        if not beyond.isdisjoint(reads(node)):
            beyond.update(node.output)
            continue
        dead = tuple(name for name in node.input if name and last[name] == index)
        try:
            with torch.inference_mode():
                run_step(replace(step_of(node, constants), dead=dead), values)
            for name in node.output:
                if name in values:
                    is_float = values[name].dtype == torch.float32
                    sizes[name] = tuple(values[name].shape) if is_float else None
            continue
        except BuildError as error:
            failure = str(error)
        # What torch raises for a use of an operator that it does not have is nowhere listed.
        except (RuntimeError, TypeError, ValueError, IndexError, KeyError) as error:
            failure = f"operator {node.op_type} ({node.output[0]!r}) fails in torch: {error}"
        failures.update(dict.fromkeys(node.output, failure))
        beyond.update(node.output)
    return sizes, failures


def _session_run(model: ModelProto) -> Callable[[Floats], list[Array]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda tensor: list(session.run(None, {name: np.ascontiguousarray(tensor)}))


def _error(module: OnnxModule, model: ModelProto, inputs: Sequence[Floats]) -> float:
    original = _session_run(model)
    run = run_module(module, channels_last=True)  # as the graph has it
    worst = 0.0
    for tensor in inputs:
        for made, value in zip(run(tensor), original(tensor), strict=True):
            if made.shape != value.shape:
                raise BuildError(f"the ONNX model answers {value.shape}, in torch {made.shape}")
            worst = max(worst, relative_error(made, value))
    return worst
