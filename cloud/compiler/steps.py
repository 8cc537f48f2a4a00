"""The conversions of a build, each taken from the cache when nothing that it depends on changed."""

import hashlib
import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from onnx import ModelProto, load_from_string

from ... import __version__
from ...shared.errors import BuildError
from ...shared.preprocess import PreprocessSpec
from .cache import StepCache
from .litert import Floats, Runner, compare_with_module, convert_module
from .onnx_fold import with_constant_reshapes
from .onnx_source import export_module, load_model
from .pairing import PairedCut, pair_cuts
from .pictures import PictureSet, read_picture
from .preprocess import build_preprocess, reference_pixels
from .quantize import quantize
from .sources import ModelSource

if TYPE_CHECKING:
    import torch

TOOLS = (
    "ai-edge-litert",
    "ai-edge-quantizer",
    "litert-torch",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "tensorflow-cpu",
    "torch",
)
_PAIRING_PICTURES = 4
_COMPARED_PICTURES = 4
_CONVERSION_ERROR = 1e-3
"""Relative to the largest output; float kernels of two runtimes differ by about 1e-6."""

Progress = Callable[[str, int, int], None]
"""Told (step, done, total); total is 0 where a step cannot say how far it is."""


def sha256(content: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def onnx_bytes(model: ModelProto) -> bytes:
    """The same bytes for the same model."""
    return bytes(model.SerializeToString(deterministic=True))


def tool_versions() -> dict[str, str]:
    """What a conversion depends on beside its inputs."""
    return {tool: importlib.metadata.version(tool) for tool in TOOLS} | {"hybridge": __version__}


@dataclass(frozen=True)
class ConvertedOnnx:
    """A float TFLite model, and the operator before which it ends ("" if it is the whole)."""

    model: bytes
    ended_by: str


@dataclass(frozen=True)
class Steps:
    """Conversions with one cache, one calibration set and one audience."""

    cache: StepCache
    calibration: PictureSet
    progress: Progress
    tools: dict[str, str] = field(default_factory=tool_versions)

    def preprocess(self, spec: PreprocessSpec) -> bytes:
        """TFLite with the signatures `resize` and `normalize`."""
        self.progress(f"preprocessing for {spec.size_px} px", 0, 0)

        def make() -> bytes:
            model = build_preprocess(spec)
            self._check_preprocess(model, spec)
            return model

        return self.cache.get(
            "preprocess", inputs=[asdict(spec), self.calibration.sha256, self.tools], make=make
        )

    def calibration_tensors(self, preprocess: bytes) -> list[Floats]:
        """The calibration pictures as a model sees them, float32 [1, s, s, 3] each."""
        resize, normalize = (Runner(preprocess, signature=name) for name in ("resize", "normalize"))
        return [
            normalize.run(resize.run(picture[None])).astype(np.float32, copy=False)
            for picture in self.calibration
        ]

    def onnx(self, source: ModelSource, spec: PreprocessSpec) -> ModelProto:
        """The model as ONNX: read, or exported."""
        self.progress("large model to ONNX", 0, 0)
        module, shape = source.module, (spec.size_px, spec.size_px, 3)
        if module is None:
            if source.file is None or source.suffix != ".onnx":
                raise BuildError("the large model must be a torch module or an .onnx file")
            return with_constant_reshapes(load_model(source.file, shape=shape))
        encoded = self.cache.get(
            "onnx",
            inputs=[source.sha256, shape, self.tools],
            make=lambda: onnx_bytes(export_module(module, shape=shape)),
        )
        return load_from_string(encoded)

    def litert(
        self, source: ModelSource, spec: PreprocessSpec, tensors: Sequence[Floats], *, what: str
    ) -> bytes:
        """The whole model as float TFLite, compared with the original on these tensors."""
        shape = (spec.size_px, spec.size_px, 3)
        module = source.module
        if module is None:
            if source.file is None or source.suffix != ".onnx":
                raise BuildError(f"the {what} model must be a torch module or an .onnx file")
            model = load_model(source.file, shape=shape)
            converted = self.litert_of_onnx(model, tensors, what=what)
            if converted.ended_by:
                raise BuildError(f"the {what} model: {converted.ended_by}")
            return converted.model
        self.progress(f"{what} model to LiteRT", 0, 0)
        return self.cache.get(
            "litert",
            inputs=[source.sha256, shape, self._digest(tensors), self.tools],
            make=lambda: _converted(module, tensors, what=what),
        )

    def litert_of_onnx(
        self, model: ModelProto, tensors: Sequence[Floats], *, what: str
    ) -> ConvertedOnnx:
        """An ONNX model, or its part before an operator that no device runs, as float TFLite."""
        self.progress(f"{what} model to LiteRT", 0, 0)

        def make() -> bytes:
            from .onnx_torch import torch_from_onnx  # torch: only who needs it pays for it

            made = torch_from_onnx(model, tensors[:_COMPARED_PICTURES])
            converted = _converted(
                made.module, tensors, what=what, channels_last=made.channels_last
            )
            return msgspec.msgpack.encode(ConvertedOnnx(converted, made.ended_by))

        encoded = self.cache.get(
            "litert-onnx",
            inputs=[sha256(onnx_bytes(model)), self._digest(tensors), self.tools],
            make=make,
        )
        return msgspec.msgpack.decode(encoded, type=ConvertedOnnx)

    def int8(self, model: bytes, tensors: Sequence[Floats], *, what: str) -> bytes:
        """The model as int8 TFLite, calibrated on these tensors."""
        self.progress(f"{what} model to int8", 0, 0)
        return self.cache.get(
            "int8",
            inputs=[sha256(model), self._digest(tensors), self.tools],
            make=lambda: quantize(model, tensors),
        )

    def pairs(
        self,
        model: ModelProto,
        float32: bytes,
        int8: bytes,
        tensors: Sequence[Floats],
        *,
        whole: bool = True,
    ) -> list[PairedCut]:
        """The cuts that ONNX and TFLite have in common, head and tail checked together.

        The TFLite models need not be `whole`: they may end before the ONNX model does.
        """
        self.progress("finding cuts, checking every head with its tail", 0, 0)
        few = tensors[:_PAIRING_PICTURES]
        encoded = self.cache.get(
            "pairs",
            inputs=[
                sha256(onnx_bytes(model)),
                sha256(float32),
                sha256(int8),
                self._digest(few),
                whole,
                self.tools,
            ],
            make=lambda: msgspec.json.encode(
                pair_cuts(model, float_model=float32, int8_model=int8, tensors=few, whole=whole)
            ),
        )
        return msgspec.json.decode(encoded, type=list[PairedCut])

    def _check_preprocess(self, model: bytes, spec: PreprocessSpec) -> None:
        """BuildError unless resizing is within one level of the reference on real pictures."""
        resize = Runner(model, signature="resize")
        for file in self.calibration.files[:_COMPARED_PICTURES]:
            picture = read_picture(file)
            wanted = reference_pixels(picture, spec).astype(np.int16)
            worst = int(np.abs(resize.run(picture[None])[0].astype(np.int16) - wanted).max())
            if worst > 1:
                raise BuildError(
                    f"preprocessing in TFLite is {worst} levels off its reference on {file.name}"
                )

    @staticmethod
    def _digest(tensors: Sequence[Floats]) -> str:
        digest = hashlib.sha256()
        for tensor in tensors:
            digest.update(tensor.tobytes())
        return digest.hexdigest()


def _converted(
    module: "torch.nn.Module",
    tensors: Sequence[Floats],
    *,
    what: str,
    channels_last: bool = False,
) -> bytes:
    """Float TFLite of a module; BuildError if it differs on real pictures."""
    _, height, width, channels = tensors[0].shape
    model = convert_module(module, shape=(height, width, channels), channels_last=channels_last)
    error = compare_with_module(
        model, module, tensors[:_COMPARED_PICTURES], channels_last=channels_last
    )
    if error > _CONVERSION_ERROR:
        raise BuildError(
            f"the {what} model in LiteRT is {error:.2g} off the original on real pictures, "
            f"{_CONVERSION_ERROR:g} is allowed"
        )
    return model
