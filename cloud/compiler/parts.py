"""The two models of a bundle as its manifest describes them; their files go into a blob store."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import msgspec
import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import ModelProto

from ...devices.pixel_input import value_range
from ...shared.codec import layers, pco
from ...shared.codec.channels import tenths_of
from ...shared.codec.klt_pco import is_transformed
from ...shared.contract import Contract
from ...shared.errors import BuildError
from ...shared.manifest import (
    Cut,
    Large,
    Light,
    OutputKind,
    Precision,
    Preprocessing,
    Runtime,
    Variant,
)
from ...shared.preprocess import PreprocessSpec
from ...shared.side import Tensors
from ...shared.tensor import TensorSpec
from ..weights import OWN
from .apart import counted_apart
from .checking import as_sent
from .contracts import cut_contract
from .conversion import served_whole
from .external import externalize, renamed
from .given_tflite import given_tflite
from .interface import name_outputs, side_inputs, with_answer_first
from .learned_cut import LearnedCut, Origin, learned_cut
from .litert import Floats, Runner, Tensor
from .onnx_graph import Wire, extract_tail, input_of, whole_from_pixels
from .onnx_source import onnx_bytes, takes_channels_last
from .paired_cut import PairedCut, Pairing
from .progress import Progress, counted, unwatched
from .quantization.onnx_models import float16
from .recipe import ModelRecipe
from .selection import Selection, select
from .sensitivity import Sample, Sensitivity, sensitivities
from .side_values import side_values
from .sources import ModelSource
from .steps import Steps, sha256
from .tflite_graph import HeadSource, TfliteCut, pack_heads, pack_sources
from .tflite_pixels import begins_with_pixels, on_pixels
from .transform_fit import transform_bands
from .writer import BlobStore

WHOLE = "whole"
_ONE = 1e-3
_WEIGHED = 8
_WEIGHED_WHOLE = 128
"""Pictures on which it is seen how much the answer depends on what crosses."""

_LOOKED_AT = 4
"""Pictures on which a model shows what its outputs are."""


@dataclass(frozen=True)
class LightPart:
    """The light model of a manifest, and what it was before it was quantized (None: as given)."""

    light: Light
    in_float: Light | None


def light_part(
    source: ModelSource, recipe: ModelRecipe, *, steps: Steps, store: BlobStore, classes: int
) -> LightPart:
    """The light model: converted and quantized, or taken as it is from a .tflite file.

    BuildError if any operator of an .onnx file cannot run on a device.
    """
    preprocess = steps.preprocess(recipe.preprocessing)
    tensors = steps.calibration_tensors(preprocess)
    float32 = None
    if source.suffix == ".tflite" and source.file is not None:
        model = given_tflite(source.file, recipe.preprocessing)
    else:
        float32 = steps.litert(source, tensors, what="light")
        spec = recipe.preprocessing
        int8 = steps.int8(float32, tensors, what="light", pixels=value_range(spec))
        model = on_pixels(int8, spec)
    light = Light(
        preprocessing=Preprocessing(spec=recipe.preprocessing, blob=store.add(preprocess)),
        blob=store.add(model),
        output=output_kind(
            np.concatenate([Runner(model).values(tensor) for tensor in tensors[:_LOOKED_AT]]),
            classes=classes,
            what="light",
        ),
    )
    if float32 is None:
        return LightPart(light, None)
    return LightPart(light, msgspec.structs.replace(light, blob=store.add(float32)))


@dataclass(frozen=True)
class LargeParts:
    """The converted large model, and all cuts at which it could be split.

    `inputs` are those beside the picture, `outputs` those beside the answer, which comes first;
    `further` has the model in other precisions, None where torch makes it of the float32 one.
    `learned` are cuts at bottlenecks that were trained for it.
    """

    spec: PreprocessSpec
    preprocess: bytes
    tensors: Sequence[Floats]
    onnx: ModelProto
    float32: bytes
    int8: bytes
    pairing: Pairing
    output: OutputKind
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    further: Mapping[Precision, ModelProto | None] = field(default_factory=dict)
    learned: tuple[LearnedCut, ...] = ()

    @classmethod
    def convert(
        cls, source: ModelSource, recipe: ModelRecipe, *, steps: Steps, classes: int
    ) -> "LargeParts":
        """Converts the large model.

        It has heads up to the first operator that no device runs; one that no road brings to a
        device is served whole, and `progress` and the bundle are told why.
        """
        spec = recipe.preprocessing
        preprocess = steps.preprocess(spec)
        tensors = steps.calibration_tensors(preprocess)
        # The largest step comes while nothing else is in memory; `_heads` finds it in the cache.
        failure = _failure(partial(steps.device_model, source, tensors, what="large"))
        model = steps.onnx(source, spec)
        inputs = side_inputs(model, picture=input_of(model)[0])
        sides = side_values(steps.calibration, inputs)
        made = _run_onnx(model, tensors[:_LOOKED_AT], sides)
        named = name_outputs(
            made, items=len(tensors[:_LOOKED_AT]), classes=classes, answer=recipe.answer
        )
        model = with_answer_first(model, named.answer)
        output = output_kind(made[named.answer], classes=classes, what="large")
        try:
            if failure is not None:
                raise failure
            float32, int8, pairs = _heads(source, model, (tensors, sides), steps, spec)
        except BuildError as error:
            steps.progress(f"large model without heads: {_first_line(error)}", 0, 0)
            steps.conversions["large"] = served_whole(error)
            float32, int8, pairs = b"", b"", Pairing(pairs=())
        feeds = feeds_of(model, tensors, sides)

        def in_precisions(
            model: ModelProto, pairs: Sequence[PairedCut]
        ) -> dict[Precision, ModelProto | None]:
            cuts = [part.tensor for pair in pairs for part in pair.onnx.tensors]
            return {
                precision: steps.in_precision(model, precision, feeds, cuts=cuts)
                for precision in recipe.tails
                if precision is not Precision.FLOAT32
            }

        further = in_precisions(model, pairs.pairs)
        learned = tuple(
            learned_cut(
                file,
                model,
                (tensors, sides),
                number=number,
                large_sha256=source.sha256,
                spec=spec,
                steps=steps,
            ).with_further(in_precisions)
            for number, file in enumerate(recipe.bottlenecks, start=1)
        )
        return cls(
            spec, preprocess, tensors, model, float32, int8, pairs, output, inputs,
            named.further, further, learned,
        )  # fmt: skip

    @property
    def pairs(self) -> Sequence[PairedCut]:
        """The cuts for which there are heads, from the input on."""
        return self.pairing.pairs

    @cached_property
    def _own(self) -> Origin:
        return Origin(self.onnx, self.float32, self.int8, self.further)

    def origins(self, pairs: Sequence[PairedCut]) -> list[tuple[Origin, list[PairedCut]]]:
        """Cuts by the model that they are made from: the large one itself, and with bottlenecks."""
        names = {each.pair.name for each in self.learned}
        own = [pair for pair in pairs if pair.name not in names]
        wanted = {pair.name for pair in pairs}
        learned = [(e.origin, [e.pair]) for e in self.learned if e.pair.name in wanted]
        return [*([(self._own, own)] if own else []), *learned]

    def selection(self, *, most: int) -> Selection:
        """Which cuts to measure, and why not the others; those that were learned always are."""
        chosen = select(self.pairs, pixels=self.spec.size_px**2 * 3, most=most)
        learned = (each.pair for each in self.learned)
        return replace(chosen, cuts=(*learned, *chosen.cuts))

    def work(self) -> dict[str, float]:
        """The share of the large model's multiply-adds before each cut."""
        return {pair.name: pair.work for pair in (*self.pairs, *(e.pair for e in self.learned))}

    def contracts(
        self,
        pairs: Sequence[PairedCut],
        *,
        codecs: Sequence[str],
        progress: Progress = unwatched,
    ) -> dict[str, Contract]:
        """What head and tail of each cut agree on, the codecs' parameters among it."""
        made: dict[str, Contract] = {}
        for origin, own in self.origins(pairs):
            digest = sha256(onnx_bytes(origin.onnx))
            offered = codecs if origin.codecs is None else origin.codecs
            heads = pack_heads(origin.int8, _int8_cuts(own))
            running = counted(own, partial(progress, "running heads"))
            sent = {pair.name: self._sent(heads, pair) for pair in running}
            whole = any(map(is_transformed, offered))
            by_answer = whole or any(map(_by_answer, offered))
            # The steps of a bottleneck were learned: every channel's is one.
            weighs = origin is self._own and by_answer
            weighed = self._sensitivities(own, sent, progress, whole=whole) if weighs else {}
            for pair in counted(own, partial(progress, "fitting codecs")):
                made[pair.name] = cut_contract(
                    pair,
                    sent[pair.name],
                    model_sha256=digest,
                    codecs=offered,
                    sensitivity=weighed.get(pair.name),
                )
        return made

    def _sensitivities(
        self,
        pairs: Sequence[PairedCut],
        sent: Mapping[str, Sequence[npt.NDArray[np.int8]]],
        progress: Progress,
        *,
        whole: bool,
    ) -> dict[str, Sensitivity | None]:
        """How much the answer depends on each int8 code of what crosses; see sensitivity.py.

        `whole`: with the metrics of transforms, which take more pictures.
        """
        if self.inputs:
            return {}
        samples, scales = [], []
        for pair in pairs:
            scale, zero_point = _grid(pair.int8_wire)
            bands = transform_bands(pair.int8_wire.shape) if whole else ()
            most = _WEIGHED_WHOLE if bands else _WEIGHED
            values = np.stack([each[0] for each in sent[pair.name][:most]])
            real = ((values.astype(np.float32) - zero_point) * scale).astype(np.float32)
            samples.append(Sample(pair.onnx, pair.float_wire, real, bands))
            scales.append(scale)
        found = counted_apart(
            "torch",
            partial(progress, "how much answers depend on it"),
            sensitivities,
            onnx_bytes(self.onnx),
            samples,
            logits=self.output is OutputKind.LOGITS,
        )
        return {
            pair.name: None if each is None else each.of_codes(scale)
            for pair, each, scale in zip(pairs, found, scales, strict=True)
        }

    def assemble(
        self, pairs: Sequence[PairedCut], *, contracts: Mapping[str, Contract], store: BlobStore
    ) -> Large:
        """The manifest's large model with these cuts, whose contracts are known."""
        digest = sha256(onnx_bytes(self.onnx))
        shared = externalize(self._graphs(self.origins(pairs)))
        heads: dict[Precision, bytes] = {}
        if pairs:
            origins = self.origins(pairs)
            heads[Precision.INT8] = pack_sources(
                [
                    HeadSource(o.int8, _int8_cuts(own), begins_with_pixels(o.int8, self.spec))
                    for o, own in origins
                ]
            )
            heads[Precision.FLOAT32] = pack_sources(
                [HeadSource(o.float32, {p.name: p.float32 for p in own}) for o, own in origins]
            )
        cuts = [
            Cut(
                name=pair.name,
                contract=contracts[pair.name],
                heads=dict.fromkeys(heads, pair.name),
                tail=store.add(shared.graphs[pair.name]),
            )
            for pair in pairs
        ]
        large = Large(
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
            inputs=self.inputs,
            outputs=self.outputs,
        )
        variants = {each: self._variant(each, pairs, large, store=store) for each in self.further}
        return msgspec.structs.replace(large, variants=variants)

    def _graphs(
        self, origins: Sequence[tuple[Origin, Sequence[PairedCut]]]
    ) -> dict[str, ModelProto]:
        """The whole and the tails of the large model in float32."""
        graphs = {WHOLE: whole_from_pixels(self.onnx, spec=self.spec)}
        for origin, pairs in origins:
            graphs |= _tails(origin.onnx, pairs)
        return graphs

    def _variant(
        self, precision: Precision, pairs: Sequence[PairedCut], large: Large, *, store: BlobStore
    ) -> Variant:
        model = self.further[precision]
        if model is None:
            own = large.variant(Precision.FLOAT32)
            return msgspec.structs.replace(own, runtime=Runtime.TORCH)
        origins = self.origins(pairs)
        if precision is Precision.FLOAT16:
            # Graph by graph: what comes in and its normalization stay float32 in each.
            full = self._graphs(origins)
            graphs = {name: float16(graph, front=OWN) for name, graph in full.items()}
        else:
            graphs = {WHOLE: whole_from_pixels(model, spec=self.spec)}
            for origin, own_pairs in origins:
                made = origin.further[precision]
                tails = _tails(origin.onnx if made is None else made, own_pairs)
                if origin is not self._own:  # whose weights were quantized by themselves
                    tails = {name: renamed(tail, f"{name}/") for name, tail in tails.items()}
                graphs |= tails
        shared = externalize(graphs)
        return Variant(
            whole=store.add(shared.graphs[WHOLE]),
            weights=store.add(shared.weights),
            weights_index=store.add(shared.table),
            tails={pair.name: store.add(shared.graphs[pair.name]) for pair in pairs},
        )

    def _sent(self, heads: bytes, pair: PairedCut) -> list[npt.NDArray[np.int8]]:
        runner = Runner(heads, signature=pair.name)
        return [as_sent(runner.outputs(tensor), pair.int8_wire) for tensor in self.tensors]


def _by_answer(codec: str) -> bool:
    """Whether a codec's parameters depend on what the answer depends on."""
    return any(of(codec) for of in (tenths_of, pco.tenths_of, layers.tenths_of))


def _tails(model: ModelProto, pairs: Sequence[PairedCut]) -> dict[str, ModelProto]:
    return {p.name: extract_tail(model, cut=p.onnx, wire=p.int8_wire) for p in pairs}


def _int8_cuts(pairs: Sequence[PairedCut]) -> dict[str, TfliteCut]:
    return {pair.name: pair.int8 for pair in pairs if pair.int8 is not None}


def _grid(wire: Wire) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Scale and zero point of every value of an int8 wire, of its shape."""
    parts = [(each, math.prod(each.shape)) for each in wire.parts or (wire,)]
    scale = np.concatenate([np.full(size, each.scale, np.float64) for each, size in parts])
    zero = np.concatenate([np.full(size, each.zero_point, np.int64) for each, size in parts])
    return scale.reshape(wire.shape), zero.reshape(wire.shape)


def _heads(
    source: ModelSource,
    model: ModelProto,
    samples: tuple[Sequence[Floats], Sequence[Tensors]],
    steps: Steps,
    spec: PreprocessSpec,
) -> tuple[bytes, bytes, Pairing]:
    """Float and int8 TFLite of the large model, or of its part for devices, and its cuts."""
    tensors, sides = samples
    converted = steps.device_model(source, tensors, what="large")
    ended_by = converted.conversion.ended_by
    if ended_by:
        steps.progress(f"large model without later cuts: {ended_by}", 0, 0)
    int8 = steps.int8(converted.model, tensors, what="large", pixels=value_range(spec))
    pairs = steps.pairs(model, converted.model, int8, tensors, sides=sides, whole=not ended_by)
    return converted.model, int8, pairs


def _failure(step: Callable[[], object]) -> BuildError | None:
    try:
        step()
    except BuildError as error:
        return error
    return None


def _first_line(error: BuildError) -> str:
    return str(error).partition("\n")[0]


def _run_onnx(
    model: ModelProto, tensors: Sequence[Floats], sides: Sequence[Tensors]
) -> dict[str, Tensor]:
    """All outputs by name, for normalized pictures in our layout and what comes beside each."""
    session = onnxruntime.InferenceSession(onnx_bytes(model), providers=["CPUExecutionProvider"])
    runs = [session.run(None, feed) for feed in feeds_of(model, tensors, sides)]
    names = [value.name for value in session.get_outputs()]
    parts = zip(*runs, strict=True)
    return {
        name: np.concatenate(each) if each[0].ndim else each[0]
        for name, each in zip(names, parts, strict=True)
    }


def feeds_of(
    model: ModelProto, tensors: Sequence[Floats], sides: Sequence[Tensors]
) -> list[dict[str, Tensor]]:
    """All that an ONNX model takes, picture by picture, in its own layout."""
    name, _ = input_of(model)
    turn = not takes_channels_last(model)
    return [
        {name: tensor.transpose(0, 3, 1, 2) if turn else tensor, **beside}
        for tensor, beside in zip(tensors, sides, strict=False)
    ]


def output_kind(outputs: Tensor, *, classes: int, what: str) -> OutputKind:
    """Logits or probabilities, by what came out; BuildError unless there is one per class."""
    if outputs.shape[1:] != (classes,):
        raise BuildError(
            f"the {what} model gives {list(outputs.shape[1:])} values, there are {classes} labels; "
            "the recipe's file of labels needs a line per value, in their order"
        )
    if not np.isfinite(outputs).all():
        raise BuildError(f"the {what} model gives NaN or infinity on real pictures")
    positive = outputs.min() >= 0
    if positive and np.abs(outputs.sum(axis=1) - 1).max() < _ONE + 0.02:
        return OutputKind.PROBABILITIES
    return OutputKind.LOGITS
