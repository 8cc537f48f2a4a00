"""The cuts that a model's ONNX graph and its TFLite models have in common.

Names, layouts and fusions differ between the two graphs of one model; values do not: candidates.py
finds tensors of equal values that make a cut. A cut is offered only if head and tail, run one after
the other, give the whole model's answer: checking.py.
"""

from collections.abc import Sequence
from dataclasses import replace

from onnx import ModelProto

from ...shared.errors import BuildError
from ...shared.side import Tensors
from .candidates import LargeGraph, RealInputs, find_candidates, find_matches
from .checking import Check
from .litert import Floats
from .paired_cut import Limits, PairedCut, Pairing
from .progress import Count, uncounted
from .tflite_graph import find_activations


def pair_cuts(
    model: ModelProto,
    *,
    float_model: bytes,
    int8_model: bytes | None,
    tensors: Sequence[Floats],
    sides: Sequence[Tensors] = (),
    answer: str = "",
    limits: Limits | None = None,
    whole: bool = True,
    count: Count = uncounted,
) -> Pairing:
    """The cuts of an ONNX model for which its TFLite models have heads.

    `tensors` are real inputs, float32 [1, h, w, c], of which every one is run through every head
    and tail; `sides` what comes beside each. The TFLite models need not be `whole`: they may end
    before the ONNX model does. `answer` names the output that classifies (the first unless given).
    BuildError if the float models are not the same function.
    """
    if not tensors:
        raise BuildError("pairing needs real inputs")
    limits = limits or Limits()
    inputs = RealInputs(tuple(tensors), tuple(sides) or ({},) * len(tensors))
    large = LargeGraph.of(model, answer=answer, pixels=tensors[0].size)
    made = find_activations(float_model)
    matches, answers = find_matches(large, float_model, made, inputs, limits=limits, whole=whole)
    found, refused = find_candidates(large, {cut.tensor: cut for cut in made}, matches)
    pairs: list[PairedCut] = []
    check = Check(large, float_model, int8_model, inputs, answers, limits)
    for pair in check.run(found, count=count):
        if pair.answer_error > limits.answer_error:
            off = f"head and tail together are {pair.answer_error:.1e} off the whole model"
            refused.append(replace(pair, name=pair.onnx.tensor).record(off))
            continue
        pairs.append(replace(pair, name=f"c{len(pairs):02d}-{pair.name}"))
    return Pairing(pairs=tuple(pairs), refused=tuple(refused))
