"""Where ONNX models come from: torch modules and .onnx files, brought into one plain form."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx.inliner
import onnxruntime
from onnx import ModelProto, TensorProto
from onnx.numpy_helper import from_array, to_array

from ...shared.errors import BuildError
from .litert import Floats, refuse_training_mode, relative_error
from .quiet import quiet

if TYPE_CHECKING:
    import torch

BATCH = "n"

_STANDARD_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
_OLDEST_OPSET = 13  # DequantizeLinear, Clip and ReduceMean as the tails write or keep them
_SAME_ANSWER = 1e-4
_CHANNELS = 3
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


def export_module(module: "torch.nn.Module", *, shape: tuple[int, int, int]) -> ModelProto:
    """The ONNX model of a torch module that takes float32 [n, c, h, w]; `shape` is (h, w, c).

    Its input is `input`, its output `logits`, its batch dynamic.
    """
    refuse_training_mode(module)
    with quiet("export to ONNX"):
        import torch

        height, width, channels = shape
        program = torch.onnx.export(
            module,
            (torch.zeros(2, channels, height, width),),
            dynamo=True,
            verbose=False,
            input_names=["input"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        )
        if program is None:
            raise BuildError("torch exported nothing")
        return normalized(program.model_proto)


def load_model(path: Path, *, shape: tuple[int, int, int] | None = None) -> ModelProto:
    """An .onnx file with its external data, its batch dynamic where that can be.

    `shape`, (h, w, c), is what a picture's dynamic sizes become. BuildError names what is missing,
    foreign or too old, and weights that are not numbers.
    """
    if not path.is_file():
        raise BuildError(f"no ONNX model at {path}")
    with quiet(f"loading of {path.name}"):
        model = onnx.load(path, load_external_data=False)
        folder = path.parent.resolve()
        for tensor in model.graph.initializer:
            location = {entry.key: entry.value for entry in tensor.external_data}.get("location")
            if location is None:
                continue
            weights = (folder / location).resolve()
            if not weights.is_relative_to(folder):
                raise BuildError(f"{path.name} keeps {tensor.name!r} outside its own folder")
            if not weights.is_file():
                raise BuildError(f"{path.name} needs its external data file {location!r} beside it")
        onnx.load_external_data_for_model(model, str(folder))
        _refuse_nan(model, path.name)
        model = normalized(model)
        if shape is not None:
            _set_picture_shape(model, shape)
        return free_batch(model)


def takes_channels_last(model: ModelProto) -> bool:
    """Whether the input is [n, h, w, c] rather than [n, c, h, w]."""
    dims = model.graph.input[0].type.tensor_type.shape.dim
    return len(dims) == 4 and dims[3].dim_value == _CHANNELS != dims[1].dim_value


def _refuse_nan(model: ModelProto, name: str) -> None:
    """Infinities may be masks; a NaN is never meant."""
    for tensor in model.graph.initializer:
        if tensor.data_type in _FLOATS and bool(np.isnan(to_array(tensor)).any()):
            raise BuildError(f"{name}: weights {tensor.name!r} hold NaN")


def _set_picture_shape(model: ModelProto, shape: tuple[int, int, int]) -> None:
    """Gives the input's dynamic sizes the picture's; those that are fixed stay."""
    dims = model.graph.input[0].type.tensor_type.shape.dim
    if len(dims) != 4:
        raise BuildError(f"the model takes {len(dims)} axes, a picture has 4")
    height, width, channels = shape
    last = takes_channels_last(model)
    for dim, size in zip(dims[1:], shape if last else (channels, height, width), strict=True):
        if not dim.HasField("dim_value"):
            dim.dim_value = size


def normalized(model: ModelProto) -> ModelProto:
    """A copy that depends on nothing but the model: functions inlined, no notes of the exporter.

    The batch dimension is renamed `n`; stack traces and source paths, which exporters leave in the
    metadata, are dropped. BuildError for operators that ONNX Runtime does not have, an opset below
    13, or more than one input or output.
    """
    with quiet("checking of the ONNX model"):
        result = onnx.inliner.inline_local_functions(model) if model.functions else copy_of(model)
        foreign = sorted({n.domain for n in result.graph.node} - _STANDARD_DOMAINS)
        if foreign:
            operators = sorted({n.op_type for n in result.graph.node if n.domain in foreign})
            raise BuildError(
                f"operators {', '.join(operators)} of domain {foreign[0]!r} are not ONNX's own"
            )
        opset = max(o.version for o in result.opset_import if o.domain in ("", "ai.onnx"))
        if opset < _OLDEST_OPSET:
            raise BuildError(f"opset {opset} is too old; export with {_OLDEST_OPSET} or later")
        graph = result.graph
        initializers = {tensor.name for tensor in graph.initializer}
        inputs = [value for value in graph.input if value.name not in initializers]
        if len(inputs) != 1 or len(graph.output) != 1:
            raise BuildError(
                f"the model has {len(inputs)} inputs and {len(graph.output)} outputs, not one each"
            )
        del graph.input[:], graph.value_info[:], graph.quantization_annotation[:]
        graph.input.extend(inputs)
        for message in (result, graph, *graph.node, *graph.initializer, inputs[0], graph.output[0]):
            message.ClearField("doc_string")
            message.ClearField("metadata_props")
        for value in (graph.input[0], graph.output[0]):
            value.ClearField("metadata_props")
            first = value.type.tensor_type.shape.dim[0]
            if first.HasField("dim_param") or not first.HasField("dim_value"):
                first.dim_param = BATCH
        onnx.checker.check_model(result)
        return result


def free_batch(model: ModelProto) -> ModelProto:
    """The model with a dynamic batch instead of a batch of one, or as it was if that cannot be.

    The result is run on two inputs at once and apart; it is kept only if the answers agree.
    """
    size = model.graph.input[0].type.tensor_type.shape.dim[0]
    if not size.HasField("dim_value"):
        return model
    if size.dim_value != 1:
        raise BuildError(f"the model takes batches of exactly {size.dim_value}; export it with one")
    freed = copy_of(model)
    for value in (freed.graph.input[0], freed.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    shapes = {node.input[1] for node in freed.graph.node if node.op_type == "Reshape"}
    for tensor in freed.graph.initializer:
        if tensor.name in shapes:
            wanted = to_array(tensor).copy()
            if wanted.size > 1 and wanted[0] == 1:
                # 0 copies the size of the tensor that is reshaped, where -1 may be taken already.
                wanted[0] = 0 if -1 in wanted else -1
                tensor.CopyFrom(from_array(wanted, tensor.name))
    return freed if _batches_agree(freed) else model


def _batches_agree(model: ModelProto) -> bool:
    value = model.graph.input[0]
    rest = [dim.dim_value for dim in value.type.tensor_type.shape.dim][1:]
    pair: Floats = np.random.default_rng(0).random((2, *rest), np.float32)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        together = session.run(None, {value.name: pair})[0]
        apart = [session.run(None, {value.name: pair[i : i + 1]})[0] for i in range(2)]
    except (
        onnxruntime.capi.onnxruntime_pybind11_state.Fail,
        onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument,
        onnxruntime.capi.onnxruntime_pybind11_state.InvalidGraph,
        onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException,
    ):
        return False
    separate = np.concatenate(apart)
    return together.shape == separate.shape and (relative_error(together, separate) < _SAME_ANSWER)


def copy_of(model: ModelProto) -> ModelProto:
    """A model of its own, to be changed."""
    result = ModelProto()
    result.CopyFrom(model)
    return result
