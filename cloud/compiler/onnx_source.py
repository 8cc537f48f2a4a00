"""Where ONNX models come from: torch modules and .onnx files, brought into one plain form."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx.inliner
import onnxruntime
from google.protobuf.message import DecodeError, Message
from onnx import ModelProto, TensorProto, ValueInfoProto
from onnx.numpy_helper import from_array, to_array

from ...shared.errors import BuildError
from .litert import Tensor, refuse_training_mode, relative_error
from .quiet import quiet

if TYPE_CHECKING:
    import torch

BATCH = "n"

_STANDARD_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
_OLDEST_OPSET = 13  # DequantizeLinear, Clip and ReduceMean as the tails write or keep them
_SAME_ANSWER = 1e-4
_CHANNELS = (3, 1)
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


def export_module(
    module: "torch.nn.Module",
    *,
    shape: tuple[int, int, int],
    example: "tuple[torch.Tensor, ...]" = (),
) -> ModelProto:
    """The ONNX model of a torch module that takes float32 [n, c, h, w]; `shape` is (h, w, c).

    Its input is `input`, its output `logits`, or what the module itself calls them if it has
    several; its batch is dynamic where that can be. `example` are the inputs of a module that takes
    more than a picture.
    """
    refuse_training_mode(module)
    import torch

    from .torch_source import plain

    height, width, channels = shape
    one = example or (torch.zeros(1, channels, height, width),)
    names = ["input"] if len(one) == 1 else list(inspect.signature(module.forward).parameters)
    module, outputs = plain(module, one)
    try:
        with quiet("export to ONNX"):
            two = tuple(each.repeat_interleave(2, 0) for each in one)
            free = tuple({0: torch.export.Dim.DYNAMIC} for _ in two)
            return _exported(module, two, names[: len(one)], outputs, free)
    except BuildError:  # a program of one picture, or a module that counts its pictures
        with quiet("export to ONNX"):
            return free_batch(_exported(module, one, names[: len(one)], outputs, None))


def _exported(
    module: "torch.nn.Module",
    inputs: "tuple[torch.Tensor, ...]",
    names: list[str],
    outputs: tuple[str, ...],
    free: tuple[dict[int, Any], ...] | None,
) -> ModelProto:
    import torch

    from .torch_source import PlainOutputs

    program = torch.onnx.export(
        module,
        inputs,
        dynamo=True,
        verbose=False,
        input_names=names,
        output_names=list(outputs),
        dynamic_shapes=(free,) if free and isinstance(module, PlainOutputs) else free,
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
        model = _read(path)
        folder = path.parent.resolve()
        _external_files(model, path)
        onnx.load_external_data_for_model(model, str(folder))
        _refuse_nan(model, path.name)
        model = normalized(model)
        if shape is not None:
            _set_picture_shape(model, shape)
        return free_batch(model)


def external_files(path: Path) -> list[Path]:
    """The files beside an .onnx file that hold its weights; BuildError as `load_model` says."""
    with quiet(f"reading of {path.name}"):
        return _external_files(_read(path), path)


def _read(path: Path) -> ModelProto:
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError:
        model = ModelProto()
    if not model.graph.node or not model.opset_import:  # an empty file is a message, too
        raise BuildError(f"{path.name} is no ONNX model, or was cut off; export or copy it again")
    return model


def _external_files(model: ModelProto, path: Path) -> list[Path]:
    folder = path.parent.resolve()
    found: set[Path] = set()
    for tensor in _tensors(model):
        said = {entry.key: entry.value for entry in tensor.external_data}
        location = said.get("location")
        if location is None:
            continue
        weights = (folder / location).resolve()
        if not weights.is_relative_to(folder):
            raise BuildError(
                f"{path.name} keeps {tensor.name!r} outside its own folder; save the model again "
                "with its weights beside it"
            )
        if not weights.is_file():
            raise BuildError(
                f"{path.name} needs its external data file {location!r} beside it; copy it there"
            )
        needed = int(said.get("offset", 0)) + int(said.get("length", 0))
        if weights.stat().st_size < needed:
            raise BuildError(
                f"{path.name}: its external data file {location!r} was cut off before byte "
                f"{needed:,}; copy it again"
            )
        found.add(weights)
    return sorted(found)


def _tensors(message: Message) -> Iterator[TensorProto]:
    """Every tensor of a model: initializers, constants, those inside subgraphs and functions."""
    if isinstance(message, TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for part in value if field.is_repeated else (value,):
                yield from _tensors(part)


def takes_channels_last(model: ModelProto) -> bool:
    """Whether the picture comes as [n, h, w, c] rather than [n, c, h, w]."""
    dims = model.graph.input[0].type.tensor_type.shape.dim
    return len(dims) == 4 and dims[3].dim_value in _CHANNELS and dims[1].dim_value not in _CHANNELS


def random_inputs(model: ModelProto, *, items: int) -> dict[str, Tensor]:
    """One value for each input, always the same; `items` where the batch is dynamic."""
    generator = np.random.default_rng(0)
    made: dict[str, Tensor] = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        sizes = [dim.dim_value or items for dim in kind.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        made[value.name] = np.asarray(generator.random(sizes, np.float32)).astype(dtype)
    return made


def _picture_first(model: ModelProto, name: str) -> None:
    """Puts the picture before the side inputs: the only float one of four sizes, 3 or 1 channels.

    BuildError if there is none, or more than one.
    """
    inputs = list(model.graph.input)
    pictures = [value for value in inputs if _may_be_picture(value)]
    if len(inputs) > 1 and len(pictures) != 1:
        found = ", ".join(value.name for value in inputs)
        raise BuildError(
            f"{name} has {len(pictures)} inputs that may be pictures among {found}; one float "
            "input [n, 3, h, w] or [n, h, w, 3] is needed, the others must look different"
        )
    rest = [value for value in inputs if value not in pictures[:1]]
    del model.graph.input[:]
    model.graph.input.extend([*pictures[:1], *rest])


def _may_be_picture(value: ValueInfoProto) -> bool:
    kind = value.type.tensor_type
    sizes = [dim.dim_value for dim in kind.shape.dim]
    # A dynamic size counts as 0: it may become anything.
    return (
        kind.elem_type in _FLOATS
        and len(sizes) == 4
        and not {sizes[1], sizes[3]}.isdisjoint({*_CHANNELS, 0})
    )


def _refuse_nan(model: ModelProto, name: str) -> None:
    """Infinities may be masks; a NaN is never meant."""
    for tensor in _tensors(model):
        if tensor.data_type in _FLOATS and bool(np.isnan(to_array(tensor)).any()):
            raise BuildError(
                f"{name}: weights {tensor.name!r} hold NaN, so the training diverged; take those "
                "from before"
            )


def _set_picture_shape(model: ModelProto, shape: tuple[int, int, int]) -> None:
    """Gives the input's dynamic sizes the picture's; those that are fixed stay."""
    dims = model.graph.input[0].type.tensor_type.shape.dim
    if len(dims) != 4:
        raise BuildError(f"the model takes {len(dims)} axes, a picture has 4")
    height, width, channels = shape
    wanted = shape if takes_channels_last(model) else (channels, height, width)
    for dim, size in zip(dims[1:], wanted, strict=True):
        if not dim.HasField("dim_value"):
            dim.dim_value = size
    found = tuple(dim.dim_value for dim in dims[1:])
    if found != wanted:
        raise BuildError(
            f"the model takes {'x'.join(map(str, found))}, preprocessing makes "
            f"{'x'.join(map(str, wanted))}; set size_px of its preprocessing to its own size"
        )


def normalized(model: ModelProto) -> ModelProto:
    """A copy that depends on nothing but the model: functions inlined, no notes of the exporter.

    The batch dimension is renamed `n`; stack traces and source paths, which exporters leave in the
    metadata, are dropped. BuildError for operators that ONNX Runtime does not have, an opset below
    13, or several inputs of which not exactly one may be the picture; that one becomes the first.
    """
    with quiet("checking of the ONNX model"):
        result = onnx.inliner.inline_local_functions(model) if model.functions else copy_of(model)
        foreign = sorted({n.domain for n in result.graph.node} - _STANDARD_DOMAINS)
        if foreign:
            operators = sorted({n.op_type for n in result.graph.node if n.domain in foreign})
            raise BuildError(
                f"operators {', '.join(operators)} of domain {foreign[0]!r} are not ONNX's own; "
                "no code is loaded for them, export the model with standard operators"
            )
        opset = max(o.version for o in result.opset_import if o.domain in ("", "ai.onnx"))
        if opset < _OLDEST_OPSET:
            raise BuildError(f"opset {opset} is too old; export with {_OLDEST_OPSET} or later")
        graph = result.graph
        initializers = {tensor.name for tensor in graph.initializer}
        inputs = [value for value in graph.input if value.name not in initializers]
        del graph.input[:], graph.value_info[:], graph.quantization_annotation[:]
        graph.input.extend(inputs)
        if not inputs or not graph.output:
            raise BuildError(
                f"the model has {len(inputs)} inputs and {len(graph.output)} outputs; it needs one "
                "of each at least"
            )
        _picture_first(result, "the model")
        ends = (*graph.input, *graph.output)
        for message in (result, graph, *graph.node, *graph.initializer, *ends):
            message.ClearField("doc_string")
            message.ClearField("metadata_props")
        for value in ends:
            for first in value.type.tensor_type.shape.dim[:1]:
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
    for value in (*freed.graph.input, *freed.graph.output):
        for first in value.type.tensor_type.shape.dim[:1]:
            if first.dim_value in (0, 1):
                first.dim_param = BATCH
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
    pair = random_inputs(model, items=2)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        together = session.run(None, pair)
        apart = [
            session.run(None, {name: value[i : i + 1] for name, value in pair.items()})
            for i in range(2)
        ]
    except (
        onnxruntime.capi.onnxruntime_pybind11_state.Fail,
        onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument,
        onnxruntime.capi.onnxruntime_pybind11_state.InvalidGraph,
        onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException,
    ):
        return False
    return all(
        whole.ndim > 0
        and whole.shape == (one.shape[0] + two.shape[0], *one.shape[1:])
        and relative_error(whole, np.concatenate([one, two])) < _SAME_ANSWER
        for whole, one, two in zip(together, *apart, strict=True)
    )


def onnx_bytes(model: ModelProto) -> bytes:
    """The same bytes for the same model."""
    return bytes(model.SerializeToString(deterministic=True))


def copy_of(model: ModelProto) -> ModelProto:
    """A model of its own, to be changed."""
    result = ModelProto()
    result.CopyFrom(model)
    return result
