"""A learned bottleneck as a cut: its encoder on the device, decoder and rest in the cloud."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from onnx import ModelProto

from ...devices.pixel_input import value_range
from ...shared.errors import BuildError
from ...shared.manifest import Precision
from ...shared.preprocess import PreprocessSpec
from ...shared.side import Tensors
from .bottleneck import LATENTS, Bottleneck, bottleneck_of
from .litert import Floats
from .onnx_flow import OnnxFlow
from .onnx_source import onnx_bytes
from .paired_cut import PairedCut
from .sources import ModelSource
from .steps import Steps, sha256

InPrecisions = Callable[[ModelProto, Sequence[PairedCut]], dict[Precision, ModelProto | None]]


@dataclass(frozen=True)
class Origin:
    """What heads and tails of some cuts are made from: one model, for devices and for clouds.

    `further` has it in other precisions, None where torch makes it of the float32 one. `codecs` are
    those that its cuts are offered with, None for the recipe's.
    """

    onnx: ModelProto
    float32: bytes
    int8: bytes
    further: Mapping[Precision, ModelProto | None] = field(default_factory=dict)
    codecs: tuple[str, ...] | None = None

    @property
    def sha256(self) -> str:
        return sha256(onnx_bytes(self.onnx) + self.int8 + repr(self.codecs).encode())


@dataclass(frozen=True)
class LearnedCut:
    """The cut at a bottleneck's latents."""

    pair: PairedCut
    origin: Origin

    def with_further(self, made: InPrecisions) -> "LearnedCut":
        """The same with what clouds of other precisions compute."""
        further = made(self.origin.onnx, [self.pair])
        return replace(self, origin=replace(self.origin, further=further))


def learned_cut(
    file: Path,
    large: ModelProto,
    samples: tuple[Sequence[Floats], Sequence[Tensors]],
    *,
    number: int,
    large_sha256: str,
    spec: PreprocessSpec,
    steps: Steps,
) -> LearnedCut:
    """Reads a bottleneck, brings its encoder to the device, and checks head and tail together.

    `samples` are pictures as the large model takes them, and what comes beside each.
    """
    tensors, sides = samples
    learned = bottleneck_of(file, large_sha256=large_sha256)
    model, what = learned.before(large), f"bottleneck {number}"
    float32 = _encoder(learned, tensors, steps, what=what)
    int8 = steps.int8(float32, tensors, what=what, pixels=value_range(spec))
    pairing = steps.pairs(model, float32, int8, tensors, sides=sides, whole=False)
    pair = next((each for each in pairing.pairs if each.onnx.tensor == LATENTS), None)
    if pair is None or pair.int8 is None:
        raise BuildError(f"{file.name}: its encoder and the large model could not be joined")
    own, whole = OnnxFlow.of(model).flow, OnnxFlow.of(large).flow
    pair = replace(
        pair,
        name=f"b{number:02d}-{'x'.join(map(str, pair.shape))}",
        work=round(own.work_of([LATENTS]) / max(1, whole.total_work), 6),
    )
    return LearnedCut(pair, Origin(model, float32, int8, codecs=learned.codecs))


def _encoder(learned: Bottleneck, tensors: Sequence[Floats], steps: Steps, *, what: str) -> bytes:
    """As float TFLite."""
    encoded = onnx_bytes(learned.encoder())
    with tempfile.TemporaryDirectory(prefix="hybridge-encoder-") as folder:
        file = Path(folder) / "encoder.onnx"
        file.write_bytes(encoded)
        source = ModelSource(module=None, file=file, sha256=sha256(encoded))
        return steps.litert(source, tensors, what=what)
