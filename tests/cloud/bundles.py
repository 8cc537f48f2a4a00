"""A tiny bundle that is real: signed, hashed, with ONNX graphs that share their weights.

whole:  uint8 [n,16,16,3] -> /255 -> conv 4x4/4 -> relu -> matmul -> logits [n,5]
tail:   int8 [n,4,4,8] (the relu's output, channels last) -> matmul -> logits [n,5]

The TFLite blobs are placeholders: the cloud opens none.
"""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from hybridge.cloud.compiler.external import externalize
from hybridge.cloud.compiler.golden import pack_arrays
from hybridge.shared.answer import to_probabilities
from hybridge.shared.contract import Contract
from hybridge.shared.golden import FOR_LARGE, answer_name
from hybridge.shared.manifest import (
    FORMAT,
    Blob,
    Cut,
    Golden,
    Large,
    Light,
    Manifest,
    OutputKind,
    PlanRow,
    Precision,
    Preprocessing,
    Rate,
    encode_manifest,
)
from hybridge.shared.preprocess import PreprocessSpec
from hybridge.shared.side import Tensors
from hybridge.shared.signing import SigningKey
from hybridge.shared.tensor import Array, TensorSpec

SIZE, CLASSES, CHANNELS, GRID = 16, 5, 8, 4
SCALE, ZERO_POINT = 0.02, -128
CUT = "relu"
CODECS = {f"affine{bits}": {"low": -128.0, "high": 127.0} for bits in range(2, 9)}

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class TinyModel:
    """The large model in numpy; `poisoned` gives NaN for pictures that hold a 255."""

    seed: int = 0
    poisoned: bool = False
    inputs: tuple[TensorSpec, ...] = field(init=False, default=())
    outputs: tuple[TensorSpec, ...] = field(init=False, default=())
    kernel: npt.NDArray[np.float32] = field(init=False)
    matrix: npt.NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        kernel = rng.normal(size=(CHANNELS, 3, 4, 4)).astype(np.float32) / 4
        matrix = rng.normal(size=(CHANNELS * GRID * GRID, CLASSES)).astype(np.float32) / 8
        object.__setattr__(self, "kernel", kernel)
        object.__setattr__(self, "matrix", matrix)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.kernel.tobytes() + self.matrix.tobytes()).hexdigest()

    @property
    def pixels(self) -> Contract:
        return Contract(tensor="pixels", shape=(SIZE, SIZE, 3), dtype="UINT8", model=self.sha256)

    @property
    def at_cut(self) -> Contract:
        return Contract(
            tensor=CUT,
            shape=(GRID, GRID, CHANNELS),
            dtype="INT8",
            model=self.sha256,
            scale=SCALE,
            zero_point=ZERO_POINT,
            codecs=CODECS,
        )

    def head(self, pixels: Pixels) -> npt.NDArray[np.int8]:
        """The quantized tensor at the cut of one picture."""
        patches = (pixels / np.float32(255)).reshape(GRID, 4, GRID, 4, 3)
        features = np.maximum(np.einsum("yixjc,kcij->yxk", patches, self.kernel), 0)
        codes: npt.NDArray[np.int8] = np.clip(
            np.rint(features / SCALE) + ZERO_POINT, -128, 127
        ).astype(np.int8)
        return codes

    def tail(self, tensor: Array) -> npt.NDArray[np.float32]:
        """Probabilities [1, classes] of a tensor at the cut."""
        features = (tensor.astype(np.float32) - ZERO_POINT) * np.float32(SCALE)
        return to_probabilities(self._logits(features), OutputKind.LOGITS)

    def _logits(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        flat = np.moveaxis(features, -1, 0).reshape(1, -1)
        return (flat @ self.matrix).astype(np.float32)

    def graphs(self) -> dict[str, ModelProto]:
        return {"whole": self._whole(), "tail": self._tail()}

    def _whole(self) -> ModelProto:
        nodes = [
            helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["float", "full"], ["scaled"]),
            helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["planes", "kernel"], ["conv"], strides=[4, 4]),
            helper.make_node("Relu", ["conv"], ["features"]),
            helper.make_node("Flatten", ["features"], ["flat"]),
            helper.make_node("MatMul", ["flat", "matrix"], ["sum" if self.poisoned else "logits"]),
        ]
        values: dict[str, Any] = {
            "full": np.float32(255),
            "kernel": self.kernel,
            "matrix": self.matrix,
        }
        if self.poisoned:
            nodes += [
                helper.make_node("ReduceMax", ["scaled"], ["max"], axes=[1, 2, 3], keepdims=0),
                helper.make_node("Sub", ["almost", "max"], ["room"]),
                helper.make_node("Sqrt", ["room"], ["root"]),
                helper.make_node("Unsqueeze", ["root", "last"], ["column"]),
                helper.make_node("Add", ["sum", "column"], ["logits"]),
            ]
            values |= {"almost": np.float32(0.999), "last": np.array([1], np.int64)}
        shape: list[str | int | None] = ["n", SIZE, SIZE, 3]
        source = helper.make_tensor_value_info("pixels", TensorProto.UINT8, shape)
        return _model(nodes, source, values)

    def _tail(self) -> ModelProto:
        nodes = [
            helper.make_node("DequantizeLinear", [CUT, "scale", "zero_point"], ["features"]),
            helper.make_node("Transpose", ["features"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Flatten", ["planes"], ["flat"]),
            helper.make_node("MatMul", ["flat", "matrix"], ["logits"]),
        ]
        values: dict[str, Any] = {
            "scale": np.float32(SCALE),
            "zero_point": np.int8(ZERO_POINT),
            "matrix": self.matrix,
        }
        shape: list[str | int | None] = ["n", GRID, GRID, CHANNELS]
        return _model(nodes, helper.make_tensor_value_info(CUT, TensorProto.INT8, shape), values)


@dataclass(frozen=True)
class FloatModel(TinyModel):
    """Takes its pixels as float32."""

    @property
    def pixels(self) -> Contract:
        return replace(super().pixels, dtype="FP32")

    def graphs(self) -> dict[str, ModelProto]:
        whole = self._whole()
        whole.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
        return {"whole": whole, "tail": self._tail()}


@dataclass(frozen=True)
class SidedModel(TinyModel):
    """Takes `patient` (two floats) and `site` (0 to 3) too, and gives an `embedding` too."""

    inputs: tuple[TensorSpec, ...] = field(
        init=False, default=(TensorSpec("patient", "FP32", (2,)), TensorSpec("site", "INT64", ()))
    )
    outputs: tuple[TensorSpec, ...] = field(
        init=False, default=(TensorSpec("embedding", "FP32", (CHANNELS,)),)
    )

    @property
    def weigh(self) -> npt.NDArray[np.float32]:
        return np.arange(2 * CLASSES, dtype=np.float32).reshape(2, CLASSES) - 4

    @property
    def sites(self) -> npt.NDArray[np.float32]:
        return np.eye(4, CLASSES, dtype=np.float32) * 3

    def answer(self, tensor: Array, sides: Tensors) -> npt.NDArray[np.float32]:
        """Probabilities [1, classes] of a tensor at the cut and what came beside it."""
        features = (tensor.astype(np.float32) - ZERO_POINT) * np.float32(SCALE)
        logits = self._logits(features) + sides["patient"] @ self.weigh + self.sites[sides["site"]]
        return to_probabilities(logits.astype(np.float32), OutputKind.LOGITS)

    def embedding(self, tensor: Array) -> npt.NDArray[np.float32]:
        features = (tensor.astype(np.float32) - ZERO_POINT) * np.float32(SCALE)
        return features.mean((0, 1))[None]

    def graphs(self) -> dict[str, ModelProto]:
        return {
            "whole": self._sided(self._whole(), planes="features"),
            "tail": self._sided(self._tail(), planes="planes"),
        }

    def _sided(self, model: ModelProto, *, planes: str) -> ModelProto:
        graph = model.graph
        graph.node[-1].output[0] = "seen"
        graph.node.extend(
            [
                helper.make_node("MatMul", ["patient", "weigh"], ["known"]),
                helper.make_node("Gather", ["sites", "site"], ["there"]),
                helper.make_node("Sum", ["seen", "known", "there"], ["logits"]),
                helper.make_node("ReduceMean", [planes], ["embedding"], axes=[2, 3], keepdims=0),
            ]
        )
        for name in ("weigh", "sites"):
            graph.initializer.append(numpy_helper.from_array(getattr(self, name), name))
        graph.input.extend(
            [
                helper.make_tensor_value_info("patient", TensorProto.FLOAT, ["n", 2]),
                helper.make_tensor_value_info("site", TensorProto.INT64, ["n"]),
            ]
        )
        # Not last: the answer is found by its name, not by its place.
        embedding = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", CHANNELS])
        graph.output.insert(0, embedding)
        return model


def _model(nodes: list[NodeProto], source: ValueInfoProto, values: dict[str, Any]) -> ModelProto:
    initializers = [numpy_helper.from_array(np.asarray(v), name) for name, v in values.items()]
    result = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES])
    graph = helper.make_graph(nodes, "tiny", [source], [result], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_bundle(
    root: Path,
    *,
    key: SigningKey,
    name: str = "tiny",
    version: str = "1",
    model: TinyModel | None = None,
    answer: Array | None = None,
) -> Path:
    """Writes NAME/VERSION under a root; `answer` is the golden one to `random_pixels(0)`."""
    model = model or TinyModel()
    path = root / name / version
    (path / "blobs").mkdir(parents=True)

    def blob(content: bytes) -> Blob:
        sha256 = hashlib.sha256(content).hexdigest()
        (path / "blobs" / sha256).write_bytes(content)
        return Blob(sha256=sha256, bytes=len(content))

    parts = externalize(model.graphs())
    preprocessing = Preprocessing(spec=PreprocessSpec(size_px=SIZE), blob=blob(b"preprocessing"))
    rate = Rate.of(10, 10)
    golden = Golden(blob=blob(b"golden"), tolerance={})
    if answer is not None:
        arrays = {FOR_LARGE: random_pixels(0), answer_name(Precision.FLOAT32): answer}
        tolerance = {answer_name(Precision.FLOAT32): 0.01}
        golden = Golden(blob=blob(pack_arrays(arrays)), tolerance=tolerance)
    manifest = Manifest(
        format=FORMAT,
        name=name,
        version=version,
        task="classification",
        labels=blob("\n".join(f"class {at}" for at in range(CLASSES)).encode()),
        classes=CLASSES,
        default_budget_ms=5_000.0,
        light=Light(preprocessing=preprocessing, blob=blob(b"light"), output=OutputKind.LOGITS),
        large=Large(
            preprocessing=preprocessing,
            sha256=model.sha256,
            pixels=model.pixels,
            whole=blob(parts.graphs["whole"]),
            weights=blob(parts.weights),
            weights_index=blob(parts.table),
            head_files={Precision.INT8: blob(b"heads")},
            cuts=(
                Cut(
                    name=CUT,
                    contract=model.at_cut,
                    heads={Precision.INT8: CUT},
                    tail=blob(parts.graphs["tail"]),
                ),
            ),
            output=OutputKind.LOGITS,
            inputs=model.inputs,
            outputs=model.outputs,
        ),
        table=(PlanRow(plan="local", agreement=rate, accuracy=None, bytes_p50=0, bytes_p95=0),),
        golden=golden,
        provenance={},
    )
    encoded = encode_manifest(manifest)
    (path / "manifest.json").write_bytes(encoded)
    (path / "manifest.sig").write_bytes(key.sign(encoded))
    return path


def random_pixels(seed: int) -> Pixels:
    """A picture without a 255, so that no model is poisoned by it."""
    return np.random.default_rng(seed).integers(0, 250, (SIZE, SIZE, 3), np.uint8)
