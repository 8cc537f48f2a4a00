"""A graph of a served model, run by torch for any number of items.

Graphs compute sizes as they go (Shape, Gather, Concat). All of that is known once the number of
items is, so the first run with each number writes down what is left to do on data, and the next
ones do only that.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto
from onnx.numpy_helper import to_array
from torch import Tensor

from ...shared.errors import BuildError, BundleError
from ...shared.manifest import Precision
from ..weights import OWN
from .call import Call, Constant
from .layers import Window
from .operators import Operator
from .serving import SERVED, SIZES, Activation, int8_product, packed_convolution
from .steps import Step, run_step, step_of, with_deaths
from .stream import Reads
from .weights import TorchWeights, borrowed, placed

_MAKES_FLOATS = ("Cast", "DequantizeLinear")


@dataclass(frozen=True)
class _Written:
    """What is to be done for one number of items: steps, and the constants they read."""

    steps: Sequence[Step]
    constants: Mapping[str, Tensor]
    reads: Reads
    """What has to be read for each run, where not all weights are in memory."""


class Program:
    """One graph over shared weights. Thread-safe.

    BundleError if graph and weights do not belong together, or if torch lacks an operator.
    """

    def __init__(self, graph: bytes, *, weights: TorchWeights) -> None:
        try:
            model = onnx.load_from_string(graph)
        except DecodeError as error:
            raise BundleError(f"damaged graph ({error})") from error
        self._weights = weights
        self._nodes = [node for node in model.graph.node if node.op_type != "Constant"]
        self._known = _constants(model.graph, weights)
        self.inputs = {value.name: _batch(value) for value in model.graph.input}
        """The size of the first axis by name; 0 where any number of items may come."""
        self.outputs = tuple(value.name for value in model.graph.output)
        self._last = {name: at for at, node in enumerate(self._nodes) for name in node.input}
        self._readers: dict[str, list[int]] = {}
        for at, node in enumerate(self._nodes):
            for name in node.input:
                self._readers.setdefault(name, []).append(at)
        self._own = {name for node in self._nodes if _is_own(node) for name in node.input}
        self._written: dict[int, _Written] = {}
        for node in self._nodes:
            if node.op_type not in (*SERVED, *SIZES, "Shape"):
                raise BundleError(f"torch has no operator {node.op_type} ({node.output[0]!r})")

    @torch.inference_mode()
    def run(self, feeds: Mapping[str, Tensor], *, dry: bool = False) -> dict[str, Tensor]:
        """All outputs by name, floats as float32; of a `dry` run, which reads no weights, any."""
        weights = self._weights
        items = len(next(iter(feeds.values())))
        values = {name: self._fed(name, tensor) for name, tensor in feeds.items()}
        written = self._written.get(items)
        if written is None:
            try:
                self._written[items] = self._write(values)
            except BuildError as error:  # as the compiler's operators say it
                raise BundleError(f"torch: {error}") from error
        else:
            values.update(written.constants)
            with self._reading(written.reads, dry=dry):
                for step in written.steps:
                    run_step(step, values)
        made = {name: values[name] for name in self.outputs}
        if weights.dtype is torch.float32:
            return made
        return {name: t.float() if t.dtype is weights.dtype else t for name, t in made.items()}

    def read_bytes(self, items: int) -> int:
        """What a run of so many items reads of the weights; there has been one."""
        offload, reads = self._weights.offload, self._written[items].reads
        return 0 if offload is None else offload.read_bytes(reads)

    def _reading(self, reads: Reads, *, dry: bool = False) -> AbstractContextManager[None]:
        offload = self._weights.offload
        return offload.run(reads, dry=dry) if offload is not None and reads else nullcontext()

    def _fed(self, name: str, tensor: Tensor) -> Tensor:
        tensor = tensor.to(self._weights.device)
        lowered = tensor.is_floating_point() and name not in self._own
        return tensor.to(self._weights.dtype) if lowered else tensor

    def _write(self, values: dict[str, Tensor]) -> _Written:
        """Runs every node, and keeps those that are not known for this number of items."""
        known = dict(self._known)
        steps: list[Step] = []
        reads: list[tuple[str, ...]] = []
        constants: dict[str, Tensor] = {}
        offload = self._weights.offload
        done: set[int] = set()
        for at, node in enumerate(self._nodes):
            given = [name for name in node.input if name]
            if node.op_type == "Shape":
                known[node.output[0]] = _shape(node, values, known)
            elif all(name in known for name in given):
                known.update(_computed(node, known))
            elif at not in done:
                step = self._step(node, known)
                if self._is_packed(node, step, values):
                    behind = self._activation(node, known)
                    done.update(behind)
                    step = self._packed(step, values, known, *(self._nodes[i] for i in behind))
                read = offload.reads_of(step) if offload is not None else ()
                if offload is not None and offload.concerns(step):
                    step = offload.layer(step, self._dtype_of(node))
                if read:
                    reads.append(read)
                if self._weights.homes:
                    step = self._aligned(step)
                for name in step.inputs:
                    if name is not None and name not in values:
                        values[name] = constants[name] = self._constant(name, node, known)
                with self._reading([read] if read else []):
                    run_step(step, values)
                steps.append(step)
            for name in given:
                if self._last[name] == at and name not in self.outputs:
                    values.pop(name, None)
        for name in set(self.outputs) - values.keys():
            values[name] = constants[name] = borrowed(known[name])
        return _Written(with_deaths(steps, keep=self.outputs), constants, reads)

    def _step(self, node: NodeProto, known: Mapping[str, Constant]) -> Step:
        if self._weights.precision is Precision.INT8 and self._is_int8(node, known):
            matrix = self._weights.int8_matrix(
                node.input[1], transposed=bool(Call.of(node, known).integer("transB", 0))
            )
            return Step(
                Operator(int8_product(matrix)),
                Call.of(node, known),
                (node.input[0], *node.input[2:]),
                tuple(node.output),
            )
        step = step_of(node, known, SERVED)
        ends_own = _is_own(node) and not node.output[0].startswith(OWN)
        if ends_own or (node.op_type in _MAKES_FLOATS and not _is_own(node)):
            lowered = partial(_lowered, step.operator, dtype=self._weights.dtype)
            return replace(step, operator=Operator(lowered))
        return step

    def _aligned(self, step: Step) -> Step:
        from .sharding import aligned  # with accelerate

        return aligned(step, self._weights.homes)

    def _is_packed(self, node: NodeProto, step: Step, values: Mapping[str, Tensor]) -> bool:
        """Whether it is a convolution over two axes by weights."""
        weights = self._weights
        return (
            node.op_type == "Conv"
            and weights.packs
            and node.input[1] in weights.arrays
            and weights.arrays[node.input[1]].ndim == 4
            and values[node.input[0]].dtype is weights.dtype
        )

    def _activation(self, node: NodeProto, known: Mapping[str, Constant]) -> list[int]:
        """The index of what alone reads a convolution and can be done with it, if there is one."""
        readers = self._readers.get(node.output[0], [])
        if len(readers) != 1 or node.output[0] in self.outputs:
            return []
        call = Call.of(self._nodes[readers[0]], known)
        return readers if Activation.of(call) is not None else []

    def _packed(
        self,
        step: Step,
        values: Mapping[str, Tensor],
        known: Mapping[str, Constant],
        *behind: NodeProto,
    ) -> Step:
        name, *bias = step.inputs[1:]
        assert name is not None
        x = values[step.inputs[0] or ""]
        kernel = self._weights.arrays[name].shape[2:]
        window = Window(step.call, x, kernel=kernel)
        padded, padding = window.symmetric(x)
        packed = self._weights.packed(
            name,
            strides=window.strides,
            padding=padding,
            dilations=window.dilations,
            groups=step.call.integer("group", 1),
            like=padded.shape,
        )
        found = [Activation.of(Call.of(node, known)) for node in behind]
        activation = next((each for each in found if each is not None), Activation())
        return Step(
            Operator(packed_convolution(packed, kernel=kernel, activation=activation)),
            step.call,
            (step.inputs[0], *bias),
            tuple(behind[-1].output) if behind else step.outputs,
        )

    def _is_int8(self, node: NodeProto, known: Mapping[str, Constant]) -> bool:
        """Whether it is a product with a matrix of weights."""
        if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in self._weights.arrays:
            return False
        call = Call.of(node, known)
        plain = call.number("alpha", 1) == 1 == call.number("beta", 1)
        return (
            plain
            and not call.integer("transA", 0)
            and self._weights.arrays[node.input[1]].ndim == 2
        )

    def _dtype_of(self, node: NodeProto) -> torch.dtype:
        """That of the floats a node computes with."""
        return torch.float32 if _is_own(node) else self._weights.dtype

    def _constant(self, name: str, node: NodeProto, known: Mapping[str, Constant]) -> Tensor:
        own = self._dtype_of(node)
        if name in self._weights.arrays:
            return self._weights.tensor(name, dtype=own)
        return placed(known[name], dtype=own, device=self._weights.device)


def _lowered(operator: Operator, call: Call, *tensors: Tensor, dtype: torch.dtype) -> Tensor:
    made = operator.run(call, *tensors)
    assert isinstance(made, Tensor)
    return made.to(dtype) if made.is_floating_point() else made


def _is_own(node: NodeProto) -> bool:
    return bool(node.name.startswith(OWN))


def _batch(value: ValueInfoProto) -> int:
    sizes = value.type.tensor_type.shape.dim
    return int(sizes[0].dim_value) if sizes else 0


def _constants(graph: GraphProto, weights: TorchWeights) -> dict[str, Constant]:
    """Those in the graph itself; BundleError if one that is not lies differently in the weights."""
    found: dict[str, Constant] = {}
    for tensor in graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            found[tensor.name] = to_array(tensor)
            continue
        array = weights.arrays.get(tensor.name)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        if array is None or array.shape != tuple(tensor.dims) or array.dtype != dtype:
            raise BundleError(f"the weights hold no {tensor.name!r} as the graph needs it")
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = to_array(node.attribute[0].t)
    return found


def _shape(
    node: NodeProto, values: Mapping[str, Tensor], known: Mapping[str, Constant]
) -> Constant:
    (name,) = node.input
    shape = values[name].shape if name in values else known[name].shape
    call = Call.of(node, known)
    end = call.attributes.get("end")
    return np.array(shape[call.integer("start", 0) : end], np.int64)


def _computed(node: NodeProto, known: Mapping[str, Constant]) -> dict[str, Constant]:
    """What an operator makes of constants."""
    if node.op_type in SIZES:
        made = SIZES[node.op_type](Call.of(node, known), *(known[name] for name in node.input))
        return {node.output[0]: np.asarray(made)}
    step = step_of(node, known, SERVED)
    values = {name: borrowed(known[name]) for name in step.inputs if name is not None}
    run_step(step, values)
    return {name: values[name].numpy() for name in step.outputs}
