"""A bundle of any size: layers of random weights, written straight to disk, a layer at a time.

uint8 [n,16,16,3] -> /255 -> product 768x4096 -> (relu -> product 4096x4096) ... -> logits [n,10]
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper

from hybridge.cloud.weights import LOCATION, TABLE_VERSION
from hybridge.shared.contract import Contract
from hybridge.shared.errors import BuildError
from hybridge.shared.manifest import (
    FORMAT,
    Blob,
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
from hybridge.shared.signing import SigningKey
from hybridge.shared.sizes import written_bytes

NAME = "large"
SIZE, WIDTH, CLASSES = 16, 4096, 10
LAYER_BYTES = WIDTH * WIDTH * 4
_SPARE_BYTES = 1 << 30

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Layer:
    """A matrix of the model."""

    name: str
    rows: int
    columns: int

    @property
    def bytes(self) -> int:
        return self.rows * self.columns * 4

    def random(self, rng: np.random.Generator) -> Matrix:
        """Weights that keep the size of what passes through (He et al., 2015)."""
        made: Matrix = rng.standard_normal((self.rows, self.columns), dtype=np.float32)
        made *= np.float32((2 / self.rows) ** 0.5)
        return made


def layers_of(weights_bytes: int) -> list[Layer]:
    middle = [Layer(f"layer{at}", WIDTH, WIDTH) for at in range(weights_bytes // LAYER_BYTES)]
    return [Layer("enter", SIZE * SIZE * 3, WIDTH), *middle, Layer("leave", WIDTH, CLASSES)]


def write_bundle(root: Path, *, key: SigningKey, weights_bytes: int) -> Path:
    """Writes large/1 under a root; BuildError if the disk has no room."""
    layers = layers_of(weights_bytes)
    needed = sum(layer.bytes for layer in layers)
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if free < needed + _SPARE_BYTES:
        raise BuildError(f"{written_bytes(needed)} of weights, {written_bytes(free)} free: {root}")
    path = root / NAME / "1"
    blobs = _Blobs(path / "blobs")
    weights = blobs.stream(
        layer.random(np.random.default_rng(at)) for at, layer in enumerate(layers)
    )
    pixels = Contract(tensor="pixels", shape=(SIZE, SIZE, 3), dtype="UINT8", model=weights.sha256)
    preprocessing = Preprocessing(spec=PreprocessSpec(size_px=SIZE), blob=blobs.add(b"none"))
    manifest = Manifest(
        format=FORMAT,
        name=NAME,
        version="1",
        task="classification",
        labels=blobs.add("\n".join(f"class {at}" for at in range(CLASSES)).encode()),
        classes=CLASSES,
        default_budget_ms=600_000.0,
        light=Light(preprocessing=preprocessing, blob=blobs.add(b""), output=OutputKind.LOGITS),
        large=Large(
            preprocessing=preprocessing,
            sha256=weights.sha256,
            pixels=pixels,
            whole=blobs.add(_graph(layers)),
            weights=weights,
            weights_index=blobs.add(_table(layers)),
            head_files={Precision.INT8: blobs.add(b"")},
            cuts=(),
            output=OutputKind.LOGITS,
        ),
        table=(
            PlanRow(
                plan="local", agreement=Rate.of(10, 10), accuracy=None, bytes_p50=0, bytes_p95=0
            ),
        ),
        golden=Golden(blob=blobs.add(b""), tolerance={}),
        provenance={},
    )
    encoded = encode_manifest(manifest)
    (path / "manifest.json").write_bytes(encoded)
    (path / "manifest.sig").write_bytes(key.sign(encoded))
    return path


class _Blobs:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True)

    def add(self, content: bytes) -> Blob:
        digest = hashlib.sha256(content).hexdigest()
        (self._folder / digest).write_bytes(content)
        return Blob(sha256=digest, bytes=len(content))

    def stream(self, parts: Iterator[Matrix]) -> Blob:
        digest, size = hashlib.sha256(), 0
        unnamed = self._folder / "weights"
        with unnamed.open("wb") as file:
            for part in parts:
                file.write(part.data)
                digest.update(part.data)
                size += part.nbytes
        unnamed.rename(self._folder / digest.hexdigest())
        return Blob(sha256=digest.hexdigest(), bytes=size)


def _offsets(layers: list[Layer]) -> dict[str, int]:
    ends = np.cumsum([layer.bytes for layer in layers])
    return {layer.name: int(end) - layer.bytes for layer, end in zip(layers, ends, strict=True)}


def _table(layers: list[Layer]) -> bytes:
    offsets = _offsets(layers)
    tensors = {
        layer.name: {
            "offset": offsets[layer.name],
            "shape": [layer.rows, layer.columns],
            "dtype": "float32",
        }
        for layer in layers
    }
    total = sum(layer.bytes for layer in layers)
    return json.dumps({"version": TABLE_VERSION, "bytes": total, "tensors": tensors}).encode()


def _graph(layers: list[Layer]) -> bytes:
    offsets = _offsets(layers)
    nodes: list[NodeProto] = [
        helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "full"], ["scaled"]),
        helper.make_node("Flatten", ["scaled"], ["flat"]),
    ]
    initializers = [numpy_helper.from_array(np.array(255, np.float32), "full")]
    value = "flat"
    for layer in layers:
        weights = TensorProto(
            name=layer.name,
            data_type=TensorProto.FLOAT,
            dims=[layer.rows, layer.columns],
            data_location=TensorProto.EXTERNAL,
        )
        place = {"location": LOCATION, "offset": offsets[layer.name], "length": layer.bytes}
        for key, said in place.items():
            weights.external_data.add(key=key, value=str(said))
        initializers.append(weights)
        last = layer is layers[-1]
        made = "logits" if last else f"{layer.name}/product"
        nodes.append(helper.make_node("MatMul", [value, layer.name], [made]))
        if not last:
            value = f"{layer.name}/relu"
            nodes.append(helper.make_node("Relu", [made], [value]))
    graph = helper.make_graph(
        nodes,
        NAME,
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", SIZE, SIZE, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES])],
        initializers,
    )
    opsets = [helper.make_opsetid("", 17)]
    encoded: bytes = helper.make_model(
        graph, opset_imports=opsets, ir_version=8
    ).SerializeToString()
    return encoded
