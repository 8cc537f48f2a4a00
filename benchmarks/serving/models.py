"""The models that are served: as bundles for us, as plain .onnx files for everybody else.

    mobile_uint8   UINT8 [n,224,224,3] -> logits [n,1000]   EfficientNet-Lite0, 150 KB in
    mobile_float   FP32  [n,224,224,3] -> logits [n,1000]   the same behind float inputs, 602 KB in
    identity       FP32  [n,4096]      -> the same          16 KB in, 16 KB out

Nothing but the cloud's part is in these bundles: a device would refuse them.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper

from hybridge.cli.demo import models as demo
from hybridge.cloud.compiler.external import externalize
from hybridge.cloud.compiler.onnx_graph import whole_from_pixels
from hybridge.cloud.compiler.onnx_source import export_module
from hybridge.cloud.compiler.writer import write_bundle
from hybridge.shared.contract import Contract
from hybridge.shared.manifest import (
    FORMAT,
    Blob,
    Golden,
    Large,
    Light,
    Manifest,
    OutputKind,
    PlanRow,
    Preprocessing,
    Rate,
)
from hybridge.shared.paths import Paths
from hybridge.shared.preprocess import PreprocessSpec
from hybridge.shared.signing import SigningKey
from hybridge.shared.tensor import DTYPES, Array

_PX = demo.LIGHT_SIZE_PX
_IDENTITY = 4096
_BUDGET_MS = 60_000.0


@dataclass(frozen=True, kw_only=True)
class Served:
    """One model: what goes in and out per item, and how the cloud reads its answer."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    classes: int
    output: OutputKind

    @property
    def dtype(self) -> "np.dtype[np.generic]":
        return DTYPES[self.datatype]

    @cached_property
    def item(self) -> Array:
        """One input [1, ...], always the same."""
        noise = np.random.default_rng(0).integers(0, 255, (1, *self.shape))
        return noise.astype(self.dtype)


MOBILE_UINT8 = Served(
    name="mobile_uint8",
    datatype="UINT8",
    shape=(_PX, _PX, 3),
    classes=1000,
    output=OutputKind.LOGITS,
)
MOBILE_FLOAT = Served(
    name="mobile_float",
    datatype="FP32",
    shape=(_PX, _PX, 3),
    classes=1000,
    output=OutputKind.LOGITS,
)
IDENTITY = Served(
    name="identity",
    datatype="FP32",
    shape=(_IDENTITY,),
    classes=_IDENTITY,
    output=OutputKind.PROBABILITIES,
)
ALL = {served.name: served for served in (MOBILE_UINT8, MOBILE_FLOAT, IDENTITY)}


@dataclass(frozen=True)
class Store:
    """Where the models lie: `root/NAME.onnx`, and a folder of bundles for each."""

    root: Path

    def onnx(self, served: Served) -> Path:
        return self.root / f"{served.name}.onnx"

    def bundles(self, served: Served) -> Path:
        return self.root / "bundles" / served.name


def make_models() -> Store:
    """All models below $HYBRIDGE_HOME, made there unless they are there."""
    store = Store(Paths.from_environment().root / "benchmarks" / "serving")
    store.root.mkdir(parents=True, exist_ok=True)
    if not all(store.onnx(served).exists() for served in ALL.values()):
        for name, graph in _graphs().items():
            store.onnx(ALL[name]).write_bytes(graph.SerializeToString(deterministic=True))
    for served in ALL.values():
        write_served(served, root=store.bundles(served), graph=store.onnx(served).read_bytes())
    return store


def write_served(served: Served, *, root: Path, graph: bytes, version: str = "1") -> Path:
    """ROOT/NAME/VERSION: a signed bundle whose whole large model is this graph."""
    key = SigningKey.load_or_create(Paths.from_environment().signing_key)
    parts = externalize({"whole": ModelProto.FromString(graph)})
    blobs: dict[str, bytes] = {}

    def blob(content: bytes) -> Blob:
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        return Blob(sha256=digest, bytes=len(content))

    # The device's part of a bundle, which no cloud opens.
    preprocessing = Preprocessing(spec=PreprocessSpec(size_px=served.shape[0]), blob=blob(b""))
    model = hashlib.sha256(graph).hexdigest()
    manifest = Manifest(
        format=FORMAT,
        name=served.name,
        version=version,
        task="classification",
        labels=blob("\n".join(map(str, range(served.classes))).encode()),
        classes=served.classes,
        default_budget_ms=_BUDGET_MS,
        light=Light(preprocessing=preprocessing, blob=blob(b""), output=served.output),
        large=Large(
            preprocessing=preprocessing,
            sha256=model,
            pixels=Contract(
                tensor="pixels", shape=served.shape, dtype=served.datatype, model=model
            ),
            whole=blob(parts.graphs["whole"]),
            weights=blob(parts.weights),
            weights_index=blob(parts.table),
            head_files={},
            cuts=(),
            output=served.output,
        ),
        table=(
            PlanRow(plan="local", agreement=Rate.of(1, 1), accuracy=None, bytes_p50=0, bytes_p95=0),
        ),
        golden=Golden(blob=blob(b""), tolerance={}),
        provenance={},
    )
    return write_bundle(manifest, blobs, root=root, key=key)


def _graphs() -> Mapping[str, ModelProto]:
    spec = PreprocessSpec(size_px=_PX)
    pixels = whole_from_pixels(export_module(demo.light(), shape=(_PX, _PX, 3)), spec=spec)
    return {
        MOBILE_UINT8.name: pixels,
        MOBILE_FLOAT.name: _taking_floats(pixels),
        IDENTITY.name: _identity(),
    }


def _taking_floats(pixels: ModelProto) -> ModelProto:
    """The same graph for pixels that come as floats: the cast in front does nothing."""
    made = ModelProto()
    made.CopyFrom(pixels)
    made.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    return made


def _identity() -> ModelProto:
    kind = TensorProto.FLOAT
    shape: list[str | int | None] = ["n", _IDENTITY]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["pixels"], ["logits"])],
        "identity",
        [helper.make_tensor_value_info("pixels", kind, shape)],
        [helper.make_tensor_value_info("logits", kind, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
