"""The two models of a bundle as its manifest describes them; their files go into a blob store."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import ModelProto

from ...shared.contract import Contract
from ...shared.errors import BuildError
from ...shared.manifest import Cut, Large, Light, OutputKind, Precision, Preprocessing
from ...shared.preprocess import PreprocessSpec
from .contracts import cut_contract
from .external import externalize
from .litert import Floats, Runner, Tensor
from .onnx_graph import extract_tail, input_of, whole_from_pixels
from .onnx_source import takes_channels_last
from .pairing import PairedCut
from .recipe import ModelRecipe
from .sources import ModelSource
from .steps import Steps, onnx_bytes, sha256
from .tflite_graph import pack_heads
from .writer import BlobStore

WHOLE = "whole"
_ONE = 1e-3


class _Runs(Protocol):
    def run(self, tensor: Tensor) -> Tensor: ...


def light_part(
    source: ModelSource, recipe: ModelRecipe, *, steps: Steps, store: BlobStore, classes: int
) -> Light:
    """The light model: converted and quantized, or taken as it is from a .tflite file.

    BuildError if any operator of an .onnx file cannot run on a device.
    """
    preprocess = steps.preprocess(recipe.preprocessing)
    tensors = steps.calibration_tensors(preprocess)
    if source.suffix == ".tflite" and source.file is not None:
        model = source.file.read_bytes()
    else:
        float32 = steps.litert(source, recipe.preprocessing, tensors, what="light")
        model = steps.int8(float32, tensors, what="light")
    return Light(
        preprocessing=Preprocessing(spec=recipe.preprocessing, blob=store.add(preprocess)),
        blob=store.add(model),
        output=output_kind(Runner(model), tensors, classes=classes, what="light"),
    )


@dataclass(frozen=True)
class LargeParts:
    """The converted large model, and all cuts at which it could be split."""

    spec: PreprocessSpec
    preprocess: bytes
    tensors: Sequence[Floats]
    onnx: ModelProto
    float32: bytes
    int8: bytes
    pairs: Sequence[PairedCut]
    output: OutputKind

    @classmethod
    def convert(
        cls, source: ModelSource, recipe: ModelRecipe, *, steps: Steps, classes: int
    ) -> "LargeParts":
        """Converts the large model.

        One that is ONNX alone has heads up to the first operator that no device runs; where that
        fails altogether it is served whole, and `progress` is told why.
        """
        spec = recipe.preprocessing
        preprocess = steps.preprocess(spec)
        tensors = steps.calibration_tensors(preprocess)
        model = steps.onnx(source, spec)
        output = output_kind(_OnnxRunner(model), tensors, classes=classes, what="large")
        if source.module is None:
            try:
                float32, int8, pairs = _heads_of_onnx(model, tensors, steps)
            except BuildError as error:
                steps.progress(f"large model without heads: {_first_line(error)}", 0, 0)
                float32, int8, pairs = b"", b"", []
            return cls(spec, preprocess, tensors, model, float32, int8, pairs, output)
        float32 = steps.litert(source, spec, tensors, what="large")
        int8 = steps.int8(float32, tensors, what="large")
        pairs = steps.pairs(model, float32, int8, tensors)
        return cls(spec, preprocess, tensors, model, float32, int8, pairs, output)

    def useful_pairs(self, *, most: int) -> list[PairedCut]:
        """Cuts with an int8 head, smaller than the pixels and than every useful cut before.

        A later cut that is not smaller costs more time on the device for no fewer bytes. Where
        there are too many, the widest go: they are the ones a picture codec beats.
        """
        useful: list[PairedCut] = []
        smallest = self.spec.size_px**2 * 3
        for pair in self.pairs:
            if pair.int8 is not None and pair.elements < smallest:
                useful.append(pair)
                smallest = pair.elements
        return useful[max(0, len(useful) - most) :]

    def depth(self) -> dict[str, float]:
        """The share of the large model's operators before each cut."""
        last = max((pair.float32.operator for pair in self.pairs), default=0) + 1
        return {pair.name: (pair.float32.operator + 1) / last for pair in self.pairs}

    def assemble(
        self, pairs: Sequence[PairedCut], *, codecs: Sequence[str], store: BlobStore
    ) -> Large:
        """The manifest's large model with these cuts."""
        digest = sha256(onnx_bytes(self.onnx))
        graphs = {WHOLE: whole_from_pixels(self.onnx, spec=self.spec)}
        for pair in pairs:
            graphs[pair.name] = extract_tail(self.onnx, cut=pair.onnx, wire=pair.int8_wire)
        shared = externalize(graphs)
        heads: dict[Precision, bytes] = {}
        if pairs:
            int8_cuts = {pair.name: pair.int8 for pair in pairs if pair.int8 is not None}
            heads[Precision.INT8] = pack_heads(self.int8, int8_cuts)
            heads[Precision.FLOAT32] = pack_heads(
                self.float32, {pair.name: pair.float32 for pair in pairs}
            )
        cuts = [
            Cut(
                name=pair.name,
                contract=cut_contract(
                    pair,
                    self._sent(heads[Precision.INT8], pair.name),
                    model_sha256=digest,
                    codecs=codecs,
                ),
                heads=dict.fromkeys(heads, pair.name),
                tail=store.add(shared.graphs[pair.name]),
            )
            for pair in pairs
        ]
        return Large(
            preprocessing=Preprocessing(spec=self.spec, blob=store.add(self.preprocess)),
            sha256=digest,
            pixels=Contract(
                tensor="pixels",
                shape=(self.spec.size_px, self.spec.size_px, 3),
                dtype="UINT8",
                model=digest,
            ),
            whole=store.add(shared.graphs[WHOLE]),
            weights=store.add(shared.weights),
            weights_index=store.add(shared.table),
            head_files={precision: store.add(content) for precision, content in heads.items()},
            cuts=tuple(cuts),
            output=self.output,
        )

    def _sent(self, heads: bytes, name: str) -> list[npt.NDArray[np.int8]]:
        runner = Runner(heads, signature=name)
        return [cast(npt.NDArray[np.int8], runner.run(tensor)) for tensor in self.tensors]


def _heads_of_onnx(
    model: ModelProto, tensors: Sequence[Floats], steps: Steps
) -> tuple[bytes, bytes, list[PairedCut]]:
    """Float and int8 TFLite and the cuts of a model that has no torch source."""
    converted = steps.litert_of_onnx(model, tensors, what="large")
    if converted.ended_by:
        steps.progress(f"large model without later cuts: {converted.ended_by}", 0, 0)
    int8 = steps.int8(converted.model, tensors, what="large")
    whole = not converted.ended_by
    return converted.model, int8, steps.pairs(model, converted.model, int8, tensors, whole=whole)


def _first_line(error: BuildError) -> str:
    return str(error).partition("\n")[0]


class _OnnxRunner:
    """An ONNX classifier that takes the normalized tensor in its own layout."""

    def __init__(self, model: ModelProto) -> None:
        self._session = onnxruntime.InferenceSession(
            onnx_bytes(model), providers=["CPUExecutionProvider"]
        )
        self._name, _ = input_of(model)
        self._channels_last = takes_channels_last(model)

    def run(self, tensor: Tensor) -> Tensor:
        arranged = tensor if self._channels_last else tensor.transpose(0, 3, 1, 2)
        output: Tensor = self._session.run(None, {self._name: arranged})[0]
        return output


def output_kind(model: _Runs, tensors: Sequence[Floats], *, classes: int, what: str) -> OutputKind:
    """Logits or probabilities, by what comes out; BuildError unless there is one per class."""
    outputs = np.concatenate([model.run(tensor) for tensor in tensors[:4]])
    if outputs.shape[1:] != (classes,):
        raise BuildError(
            f"the {what} model gives {list(outputs.shape[1:])} values, there are {classes} labels"
        )
    if not np.isfinite(outputs).all():
        raise BuildError(f"the {what} model gives NaN or infinity on real pictures")
    positive = outputs.min() >= 0
    if positive and np.abs(outputs.sum(axis=1) - 1).max() < _ONE + 0.02:
        return OutputKind.PROBABILITIES
    return OutputKind.LOGITS
