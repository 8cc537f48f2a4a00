"""Int8 and float16 ONNX models of float ones, by ONNX Runtime's own tools.

The names of activations stay, so that a cut of the float model is a cut of these: behind a tensor
stand the nodes that quantize it.
"""

import hashlib
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto

from ....shared.tensor import Array
from ..onnx_session import BareModel
from ..onnx_source import copy_of
from ..progress import Count, Ticks, uncounted
from ..quiet import quiet
from .ranges import TIMES_SHOWN, Activations, Ranges, See, collect

Feeds = Mapping[str, Array]
"""All inputs of a model, by name, one item each."""

_DYNAMIC = ("MatMul",)
_MERGED = ("Relu", "Clip")


def digest_of(feeds: Sequence[Feeds]) -> str:
    """SHA-256 over all names and values, in hexadecimal."""
    digest = hashlib.sha256()
    for feed in feeds:
        for name, values in sorted(feed.items()):
            digest.update(name.encode() + np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def observe_onnx(
    model: ModelProto, feeds: Sequence[Feeds], *, count: Count = uncounted
) -> Activations:
    """Runs a float ONNX model on calibration inputs and counts its activations."""
    names = _float_activations(model)
    bare = BareModel.of(model)
    session = bare.session(bare.model, outputs=names)
    inputs = {value.name for value in session.get_inputs()}
    ticks = Ticks(count, TIMES_SHOWN * len(feeds))

    def show(see: See) -> None:
        for feed in ticks.over(feeds):
            for name, values in zip(names, session.run(names, dict(feed)), strict=True):
                see(name, values)
            for name in inputs:
                if feed[name].dtype == np.float32:
                    see(name, np.asarray(feed[name], np.float32))

    return collect(show)


def static_int8(
    model: ModelProto, seen: Activations, *, ranges: Ranges, kept: Collection[str] = ()
) -> ModelProto:
    """Quantize and dequantize nodes around every operator that has int8 kernels.

    U8 activations and S8 weights per output channel, what ONNX Runtime's CPU kernels are quickest
    at. Without VNNI or AMX they saturate where a sum of two products leaves 16 bits. A tensor
    before a ReLU is merged with what comes out of it, unless it is among the `kept` ones.
    """
    with quiet("quantization of the ONNX model"):
        from onnxruntime.quantization import CalibrationMethod, QuantType
        from onnxruntime.quantization.calibrate import TensorsData
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
        from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

        limits = {
            name: tuple(np.asarray(end, np.float32) for end in histogram.range(ranges))
            for name, histogram in seen.histograms.items()
        }
        prepared, kept = _with_shapes(model), frozenset(kept)
        everything = sorted({*QDQRegistry, *QLinearOpsRegistry})
        quantizer = QDQQuantizer(
            prepared,
            True,  # per channel
            False,  # the whole range of weights
            QuantType.QInt8,
            QuantType.QUInt8,
            TensorsData(CalibrationMethod.MinMax, limits),
            [],
            [
                node.name
                for node in prepared.graph.node
                if node.op_type in _MERGED and not kept.isdisjoint(node.input)
            ],
            everything,
            {},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()  # the new nodes stand at the end
        return _plain(quantizer.model.model)


def dynamic_int8(model: ModelProto) -> ModelProto:
    """Int8 weights of matrix products; activations are float, quantized at run time."""
    with quiet("quantization of the ONNX model"), tempfile.TemporaryDirectory() as folder:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        file = Path(folder) / "int8.onnx"
        quantize_dynamic(
            _with_shapes(model),
            file,
            op_types_to_quantize=list(_DYNAMIC),
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
        return _plain(onnx.load(file))


def float16(model: ModelProto, *, front: str = "") -> ModelProto:
    """Weights and activations in half precision; inputs and outputs stay as they were.

    So do nodes whose names begin with `front`.
    """
    with quiet("conversion to float16"):
        from onnxruntime.transformers.float16 import convert_float_to_float16

        return _plain(
            convert_float_to_float16(
                copy_of(model),
                keep_io_types=True,
                node_block_list=[
                    node.name for node in model.graph.node if front and node.name.startswith(front)
                ],
            )
        )


def _float_activations(model: ModelProto) -> list[str]:
    """In the order of the graph, the answer included."""
    shaped = onnx.shape_inference.infer_shapes(_bare(model), data_prop=True)
    values = (*shaped.graph.value_info, *shaped.graph.output)
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    made = [name for node in model.graph.node for name in node.output]
    return [name for name in made if kinds.get(name) == TensorProto.FLOAT]


def _bare(model: ModelProto) -> ModelProto:
    return BareModel.of(model).model


def _with_shapes(model: ModelProto) -> ModelProto:
    """A copy that ORT's quantizers need not prepare: with the types of its tensors in it."""
    result = copy_of(model)
    shaped = onnx.shape_inference.infer_shapes(_bare(model), data_prop=True)
    result.graph.value_info.extend(shaped.graph.value_info)
    for number, node in enumerate(result.graph.node):
        node.name = f"{number}:{node.op_type}"
    return result


def _plain(model: ModelProto) -> ModelProto:
    """Without what only depends on the tool: notes, and the shapes put in for it."""
    for message in (model, model.graph, *model.graph.node):
        message.ClearField("doc_string")
        message.ClearField("metadata_props")
    del model.graph.value_info[:]
    model.producer_name, model.producer_version = "hybridge", ""
    return model
