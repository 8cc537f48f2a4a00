"""The conversions of a build, each taken from the cache when nothing that it depends on changed."""

import hashlib
import importlib.metadata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial

import msgspec
import numpy as np
from onnx import ModelProto, load_from_string

from ... import __version__
from ...devices.profile import StageTime
from ...shared.errors import BuildError
from ...shared.manifest import Blob, Conversion, Manifest, Precision, Quantized
from ...shared.preprocess import PreprocessSpec
from ...shared.side import Tensors
from .apart import apart, bytes_apart
from .cache import StepCache
from .conversion import DeviceModel, converted, exported, to_onnx
from .litert import Floats, Runner
from .onnx_source import onnx_bytes
from .paired_cut import Pairing
from .pairing import pair_cuts
from .pictures import PictureSet
from .preprocess import checked_preprocess
from .progress import Progress, counted, within
from .quantization.choice import Int8Model, choose_int8
from .quantization.onnx_choice import OnnxModel, in_precision
from .quantization.onnx_models import Feeds, digest_of
from .sources import ModelSource

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


def sha256(content: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def tool_versions() -> dict[str, str]:
    """What a conversion depends on beside its inputs."""
    return {tool: importlib.metadata.version(tool) for tool in TOOLS} | {"hybridge": __version__}


def without_names(manifest: Manifest) -> Manifest:
    """For the keys of steps that run a bundle: a new name, version or budget changes none."""
    return msgspec.structs.replace(
        manifest,
        name="any",
        version="1",
        default_budget_ms=0.0,
        labels=Blob(sha256="0" * 64, bytes=0),
    )


@dataclass(frozen=True)
class Steps:
    """Conversions with one cache, one calibration set and one audience.

    `tried` collects every way of quantizing that was measured, `times` what models took on this
    machine in float and in int8, by stage name.
    """

    cache: StepCache
    calibration: PictureSet
    progress: Progress
    tools: dict[str, str] = field(default_factory=tool_versions)
    conversions: dict[str, Conversion] = field(default_factory=dict)
    tried: list[Quantized] = field(default_factory=list)
    times: dict[str, StageTime] = field(default_factory=dict)

    def preprocess(self, spec: PreprocessSpec) -> bytes:
        """TFLite with the signatures `resize` and `normalize`."""
        self.progress(f"preprocessing for {spec.size_px} px", 0, 0)

        def make() -> bytes:
            files = self.calibration.files[:_COMPARED_PICTURES]
            # TensorFlow takes 600 MB that no later step needs.
            return apart("tensorflow", checked_preprocess, spec, files)

        return self.cache.get(
            "preprocess", inputs=[asdict(spec), self.calibration.sha256, self.tools], make=make
        )

    def calibration_tensors(self, preprocess: bytes) -> list[Floats]:
        """The calibration pictures as a model sees them, float32 [1, s, s, 3] each."""
        resize, normalize = (Runner(preprocess, signature=name) for name in ("resize", "normalize"))
        return [
            normalize.run(resize.run(picture[None])).astype(np.float32, copy=False)
            for picture in counted(self.calibration, partial(self.progress, "calibration pictures"))
        ]

    def onnx(self, source: ModelSource, spec: PreprocessSpec) -> ModelProto:
        """The model as ONNX: read, or exported."""
        self.progress("large model to ONNX", 0, 0)
        shape = (spec.size_px, spec.size_px, 3)
        if source.suffix == ".onnx":
            return to_onnx(source, shape=shape)
        encoded = self.cache.get(
            "onnx",
            inputs=[source.sha256, shape, self.tools, source.more_tools()],
            make=lambda: bytes_apart("torch", exported, source, shape=shape),
        )
        return load_from_string(encoded)

    def litert(self, source: ModelSource, tensors: Sequence[Floats], *, what: str) -> bytes:
        """The whole model as float TFLite, compared with the original on these tensors."""
        return self.device_model(source, tensors, what=what, whole=True).model

    def device_model(
        self,
        source: ModelSource,
        tensors: Sequence[Floats],
        *,
        what: str,
        whole: bool = False,
    ) -> DeviceModel:
        """The model as float TFLite, or its part before an operator that no device runs.

        BuildError if it has to be the whole one and is not.
        """
        self.progress(f"{what} model to LiteRT", 0, 0)
        few = tensors[:_COMPARED_PICTURES]

        encoded = self.cache.get(
            "litert",
            inputs=[source.sha256, self._digest(few), self.tools],
            make=lambda: bytes_apart("torch", converted, source, few, what=what),
        )
        made = msgspec.msgpack.decode(encoded, type=DeviceModel)
        self.conversions[what] = made.conversion
        if whole and made.conversion.ended_by:
            raise BuildError(
                f"the {what} model: {made.conversion.ended_by}; choose another, or train one "
                "(hybridge distill)"
            )
        return made

    def int8(
        self,
        model: bytes,
        tensors: Sequence[Floats],
        *,
        what: str,
        pixels: tuple[float, float],
    ) -> bytes:
        """The model as int8 TFLite, the best of several; `tried` and `times` learn of all.

        `pixels` are the least and the largest value that any picture can bring.
        """
        step = f"{what} model to int8"
        self.progress(step, 0, 0)
        encoded = self.cache.get(
            "int8",
            inputs=[sha256(model), self._digest(tensors), what, pixels, self.tools],
            make=lambda: msgspec.msgpack.encode(
                choose_int8(
                    model,
                    tensors,
                    part=what,
                    pixels=pixels,
                    progress=within(self.progress, step),
                )
            ),
        )
        chosen = msgspec.msgpack.decode(encoded, type=Int8Model)
        self._remember(chosen.tried, float_bytes=len(model))
        self.times.update((f"{what}/{each}", time) for each, time in chosen.times.items())
        return chosen.model

    def in_precision(
        self,
        model: ModelProto,
        precision: Precision,
        feeds: Sequence[Feeds],
        *,
        cuts: Sequence[str],
    ) -> ModelProto | None:
        """The whole ONNX model in a further precision, with the tensors at which it is cut.

        None where torch makes it of the float32 one.
        """
        step = f"large model to {precision} for the cloud"
        self.progress(step, 0, 0)
        encoded = self.cache.get(
            f"cloud-{precision}",
            inputs=[sha256(onnx_bytes(model)), digest_of(feeds), sorted(cuts), self.tools],
            make=lambda: msgspec.msgpack.encode(
                in_precision(
                    model, precision, feeds, kept=cuts, progress=within(self.progress, step)
                )
            ),
        )
        made = msgspec.msgpack.decode(encoded, type=OnnxModel)
        self._remember(made.tried, float_bytes=len(onnx_bytes(model)))
        return made.proto

    def pairs(
        self,
        model: ModelProto,
        float32: bytes,
        int8: bytes,
        tensors: Sequence[Floats],
        *,
        sides: Sequence[Tensors] = (),
        whole: bool = True,
    ) -> Pairing:
        """The cuts that ONNX and TFLite have in common, head and tail checked together.

        The TFLite models need not be `whole`: they may end before the ONNX model does.
        """
        step = "finding cuts, checking every head with its tail"
        self.progress(step, 0, 0)
        few, beside = tensors[:_PAIRING_PICTURES], sides[:_PAIRING_PICTURES]
        encoded = self.cache.get(
            "pairs",
            inputs=[
                sha256(onnx_bytes(model)),
                sha256(float32),
                sha256(int8),
                self._digest(few),
                digest_of(beside),
                whole,
                self.tools,
            ],
            make=lambda: msgspec.json.encode(
                pair_cuts(
                    model,
                    float_model=float32,
                    int8_model=int8,
                    tensors=few,
                    sides=beside,
                    whole=whole,
                    count=partial(self.progress, step),
                )
            ),
        )
        return msgspec.json.decode(encoded, type=Pairing)

    def _remember(self, tried: Sequence[Quantized], *, float_bytes: int) -> None:
        self.tried.extend(msgspec.structs.replace(e, float_bytes=float_bytes) for e in tried)

    @staticmethod
    def _digest(tensors: Sequence[Floats]) -> str:
        digest = hashlib.sha256()
        for tensor in tensors:
            digest.update(tensor.tobytes())
        return digest.hexdigest()
