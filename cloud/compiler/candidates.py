"""Which tensors of two graphs are the same, and which of them make a cut.

Every tensor of the device's model is compared with every tensor of the cloud's by its values on
real inputs, from one run of each. Which tensors make a cut, the cloud's graph says (flow.py): those
that alone separate the picture from the outputs, and sets of several where they are cheaper than
every single one of no more work.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from onnx import ModelProto

from ...shared.errors import BuildError
from ...shared.manifest import CutRecord
from ...shared.side import Tensors
from .flow import Flow, TensorSet
from .litert import Floats, Runner, Tensor, relative_error
from .onnx_flow import OnnxFlow
from .onnx_graph import OnnxCut, Wire
from .onnx_session import BareModel
from .paired_cut import Limits
from .tflite_graph import TfliteCut
from .values import Match, OnnxValues, TfliteValues, arrangements, match_values

_PRODUCTS = ("Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul")
_NO_TAIL = "nothing is left to multiply behind it: the device would run the whole model"


@dataclass(frozen=True)
class RealInputs:
    """Pictures as the model takes them, float32 [1, h, w, c], and what comes beside each."""

    tensors: Sequence[Floats]
    sides: Sequence[Tensors]

    def __iter__(self) -> Iterator[tuple[Floats, Tensors]]:
        return zip(self.tensors, self.sides, strict=True)


@dataclass(frozen=True)
class LargeGraph:
    """The ONNX model: its graph, its flow, and the sizes that tell what may be sent."""

    bare: BareModel
    flow: Flow
    shapes: Mapping[str, tuple[int, ...]]
    singles: Mapping[str, int]
    answer: str
    pixels: int

    @classmethod
    def of(cls, model: ModelProto, *, answer: str, pixels: int) -> "LargeGraph":
        bare = BareModel.of(model)
        found = OnnxFlow.of(bare.model)
        answer = answer or found.flow.results[0]
        if answer not in found.flow.results:
            raise BuildError(f"the model has no output {answer!r}")
        shapes = {name: shape for name, shape in found.shapes.items() if name != answer}
        singles = {name: step for step, name in found.flow.separators() if name in shapes}
        return cls(bare, found.flow, shapes, singles, answer, pixels)

    def elements(self, name: str) -> int:
        return math.prod(self.shapes[name])

    def wanted(self) -> list[str]:
        """The tensors that could be sent: alone, or with others if smaller than the picture."""
        return [
            name
            for name in self.flow.makers
            if name in self.singles or (name in self.shapes and self.elements(name) < self.pixels)
        ]

    def multiplies_behind(self, tensors: Sequence[str]) -> bool:
        """Whether a convolution or a matrix product is left for the cloud."""
        nodes = self.bare.model.graph.node
        return any(nodes[index].op_type in _PRODUCTS for index in self.flow.behind(tensors))

    def share(self, work: int) -> float:
        return round(work / max(1, self.flow.total_work), 6)


def find_matches(
    large: LargeGraph,
    float_model: bytes,
    made: Sequence[TfliteCut],
    inputs: RealInputs,
    *,
    limits: Limits,
    whole: bool,
) -> tuple[list[Match], list[dict[str, Tensor]]]:
    """Pairs of tensors equal on every input, and the whole model's outputs for each.

    One picture's activations are in memory at a time.
    """
    sizes = {math.prod(cut.shape) for cut in made}
    wanted = [name for name in large.wanted() if large.elements(name) in sizes]
    onnx, tflite = OnnxValues(large.bare, wanted), TfliteValues(float_model)
    results = [value.name for value in large.bare.model.graph.output]
    needed = {large.elements(name) for name in wanted}
    indices = [cut.tensor for cut in made if math.prod(cut.shape) in needed]
    matches: list[Match] | None = None
    answers: list[dict[str, Tensor]] = []
    for tensor, sides in inputs:
        values = onnx.run(tensor, sides)
        answers.append({name: values[name] for name in results})
        tflite.run(tensor)
        if matches is None:
            found = {name: values[name] for name in wanted}
            matches = match_values(
                {index: tflite[index] for index in indices}, found, error=limits.value_error
            )
        else:
            matches = list(_still_equal(matches, tflite, values, error=limits.value_error))
    del onnx, tflite
    if whole:
        _check_whole(float_model, inputs, answers, limits=limits)
    return matches or [], answers


def _still_equal(
    matches: Iterable[Match], tflite: TfliteValues, values: Mapping[str, Tensor], *, error: float
) -> Iterator[Match]:
    for match in matches:
        wanted = values[match.onnx]
        made = dict(arrangements(tflite[match.tensor], wanted.shape))[match.channels_first]
        off = relative_error(made, wanted)
        if off <= error:
            yield replace(match, error=max(off, match.error))


def _check_whole(
    float_model: bytes,
    inputs: RealInputs,
    answers: Sequence[Mapping[str, Tensor]],
    *,
    limits: Limits,
) -> None:
    runner = Runner(float_model)
    for tensor, wanted in zip(inputs.tensors, answers, strict=True):
        made = runner.outputs(tensor)
        if [each.shape for each in made] != [each.shape for each in wanted.values()]:
            raise BuildError(
                f"TFLite answers {[each.shape for each in made]}, "
                f"ONNX {[each.shape for each in wanted.values()]}"
            )
        error = max(relative_error(*pair) for pair in zip(made, wanted.values(), strict=True))
        if error > limits.answer_error:
            raise BuildError(f"the TFLite and the ONNX model differ by {error:.1e} on real inputs")


@dataclass(frozen=True)
class Candidate:
    """A cut whose head exists, not yet checked."""

    onnx: OnnxCut
    float32: TfliteCut
    wire: Wire
    work: float
    error: float


def find_candidates(
    large: LargeGraph, made: Mapping[int, TfliteCut], matches: Sequence[Match]
) -> tuple[list[Candidate], list[CutRecord]]:
    """The cuts of one tensor and of several, by work; and those of one that have no head."""
    alone = _heads_of_separators(large, matches)
    refused = [_refusal(large, name, alone, matches) for name in large.singles if name not in alone]
    first = dict(alone)
    for match in sorted(matches, key=lambda match: (match.reshaped, match.tensor)):
        if match.onnx not in large.singles:
            first.setdefault(match.onnx, match)
    sizes = {name: large.elements(name) for name in first}
    sizes[large.flow.picture] = large.pixels
    cuts = [
        TensorSet((name,), large.singles[name], large.flow.work_of([name]), sizes[name])
        for name in alone
    ]
    several = [each for each in large.flow.cheapest_sets(sizes) if len(each.tensors) > 1]
    cuts += [cut for cut in several if _is_cheaper(cut, cuts, pixels=large.pixels)]
    found = []
    for cut in sorted(cuts, key=lambda cut: (cut.work, cut.step)):
        if not large.multiplies_behind(cut.tensors):
            refused.append(_without_tail(large, cut))
            continue
        parts = [first[name] for name in cut.tensors]
        heads = [made[part.tensor] for part in parts]
        found.append(
            Candidate(
                onnx=OnnxCut.joined(
                    [
                        OnnxCut(large.flow.makers[part.onnx], part.onnx, large.shapes[part.onnx])
                        for part in parts
                    ]
                ),
                float32=TfliteCut.joined(heads),
                wire=Wire.joined(
                    [
                        Wire(shape=head.shape, channels_first=part.channels_first)
                        for head, part in zip(heads, parts, strict=True)
                    ]
                ),
                work=large.share(cut.work),
                error=max(part.error for part in parts),
            )
        )
    return found, refused


def _heads_of_separators(large: LargeGraph, matches: Sequence[Match]) -> dict[str, Match]:
    """One TFLite tensor for each cut of one tensor, no tensor for two.

    Of equal ONNX tensors the later one leaves the tail less to do; TFLite may hold a tensor twice,
    transposed, and the earlier head is the shorter one.
    """
    order = {name: position for position, name in enumerate(large.singles)}
    by_tensor: dict[int, list[Match]] = {}
    for match in matches:
        if match.onnx in order:
            by_tensor.setdefault(match.tensor, []).append(match)
    chosen: dict[str, Match] = {}
    for _, rivals in sorted(by_tensor.items()):
        best = min(rivals, key=lambda match: (match.reshaped, -order[match.onnx]))
        chosen.setdefault(best.onnx, best)
    return {name: chosen[name] for name in order if name in chosen}


def _refusal(
    large: LargeGraph, name: str, alone: Mapping[str, Match], matches: Sequence[Match]
) -> CutRecord:
    tensors = {match.tensor for match in matches if match.onnx == name}
    twin = next((match.onnx for match in alone.values() if match.tensor in tensors), None)
    fate = f"the same values as {twin}" if twin else "no tensor of the device's model holds it"
    return CutRecord(
        name=name,
        tensors=(name,),
        shapes=(large.shapes[name],),
        work=large.share(large.flow.work_of([name])),
        error=None,
        fate=fate,
    )


def _without_tail(large: LargeGraph, cut: TensorSet) -> CutRecord:
    return CutRecord(
        name="+".join(cut.tensors),
        tensors=cut.tensors,
        shapes=tuple(large.shapes[name] for name in cut.tensors),
        work=large.share(cut.work),
        error=None,
        fate=_NO_TAIL,
    )


def _is_cheaper(cut: TensorSet, singles: Iterable[TensorSet], *, pixels: int) -> bool:
    """Whether several tensors take less than the picture and than each one of no more work."""
    return cut.size < min(
        [
            pixels,
            *(each.size for each in singles if len(each.tensors) == 1 and each.work <= cut.work),
        ]
    )
