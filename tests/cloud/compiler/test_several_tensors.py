"""Cuts of several tensors: found, sent as one, and finished to the whole model's answer."""

from dataclasses import dataclass

import numpy as np
import pytest
from onnx import ModelProto
from torch import nn

from hybridge.cloud.compiler.checking import as_sent
from hybridge.cloud.compiler.contracts import cut_contract
from hybridge.cloud.compiler.litert import Floats, Runner, Tensor, convert_module, relative_error
from hybridge.cloud.compiler.onnx_graph import OnnxCut, Wire, extract_tail
from hybridge.cloud.compiler.onnx_source import export_module
from hybridge.cloud.compiler.paired_cut import PairedCut, Pairing
from hybridge.cloud.compiler.pairing import pair_cuts
from hybridge.cloud.compiler.quantization.tflite import quantize
from hybridge.cloud.compiler.selection import records, select
from hybridge.cloud.compiler.tflite_graph import pack_heads
from hybridge.shared.codec import codec_by_name
from hybridge.shared.errors import BuildError
from hybridge.shared.frame import decode_payload, encode_frame, read_header

from .conftest import SHAPE, SIZE_PX, make_tensors
from .graphs import run
from .nets import TwoBranches, UShape, make

PIXELS = SIZE_PX * SIZE_PX * 3


@dataclass(frozen=True)
class Cut:
    """A net and what was found in it."""

    onnx: ModelProto
    float32: bytes
    int8: bytes
    tensors: list[Floats]
    found: Pairing

    @property
    def several(self) -> list[PairedCut]:
        return [pair for pair in self.found.pairs if pair.onnx.parts]


def cut_net(kind: type[nn.Module]) -> Cut:
    module, tensors = make(kind), make_tensors(8)
    onnx, float32 = export_module(module, shape=SHAPE), convert_module(module, shape=SHAPE)
    int8 = quantize(float32, tensors)
    found = pair_cuts(onnx, float_model=float32, int8_model=int8, tensors=tensors[:2])
    return Cut(onnx, float32, int8, tensors, found)


@pytest.fixture(scope="module")
def branches() -> Cut:
    return cut_net(TwoBranches)


def whole(cut: Cut, tensor: Floats) -> Tensor:
    return run(cut.onnx, tensor.transpose(0, 3, 1, 2))


def test_both_waists_together_are_a_cut(branches: Cut) -> None:
    (waists,) = branches.several
    assert waists.name.endswith("-320in2")
    assert sorted(part.shape for part in waists.onnx.parts) == [(2, 8, 8), (3, 8, 8)]
    assert waists.answer_error < 1e-5
    assert (waists.int8_snr_db or 0) > 20
    earlier = [pair for pair in branches.found.pairs if pair.work <= waists.work]
    assert all(pair.elements > waists.elements for pair in earlier if pair != waists)


def test_head_frame_and_tail_give_the_answer(branches: Cut) -> None:
    (pair,) = branches.several
    assert pair.int8 is not None
    head = Runner(pack_heads(branches.int8, {"h": pair.int8}))
    sent = [as_sent(head.outputs(tensor), pair.int8_wire) for tensor in branches.tensors]
    contract = cut_contract(pair, sent, model_sha256="ab" * 32, codecs=("affine8", "affine4"))
    assert contract.shape == sent[0][0].shape == (320,)
    tail = extract_tail(branches.onnx, cut=pair.onnx, wire=pair.int8_wire)
    for name, error in (("raw", 0.05), ("affine8", 0.05), ("affine4", 0.3)):
        codec = codec_by_name(name, contract)
        frames = [encode_frame(each[0], contract=contract, codec=codec) for each in sent]
        decoded = [decode_payload(f, read_header(f), contract=contract) for f in frames]
        answers = run(tail, np.stack(decoded))  # a batch of all
        wanted = np.concatenate([whole(branches, tensor) for tensor in branches.tensors])
        assert relative_error(answers, wanted) < error


def test_each_part_has_a_range_of_its_own(branches: Cut) -> None:
    (pair,) = branches.several
    sent = np.zeros((1, 320), np.int8)
    sizes = [int(np.prod(wire.shape)) for wire in pair.int8_wire.parts]
    sent[0, : sizes[0]] = np.arange(sizes[0]) % 5
    sent[0, sizes[0] :] = -100 + np.arange(sizes[1]) % 11
    contract = cut_contract(pair, [sent], model_sha256="ab" * 32, codecs=("affine4",))
    lows, highs = zip(
        *(
            (part.codecs["affine4"]["low"], part.codecs["affine4"]["high"])
            for part in contract.parts
        ),
        strict=True,
    )
    assert (lows, highs) == ((0.0, -100.0), (4.0, -90.0))
    codec = codec_by_name("affine4", contract)
    np.testing.assert_array_equal(
        codec.decode(codec.encode(sent[0]), shape=(320,), dtype="INT8"), sent[0]
    )


def test_every_cut_found_has_a_fate(branches: Cut) -> None:
    selection = select(branches.found.pairs, pixels=PIXELS, most=1)
    kept = {pair.name for pair in selection.cuts}
    found = records(branches.found, selection, kept=kept)
    assert len(found) == len(branches.found.pairs) + len(branches.found.refused)
    assert [record.name for record in found if record.fate == "kept"] == sorted(kept)
    assert [record.work for record in found] == sorted(record.work for record in found)
    fates = " ".join(record.fate for record in found)
    assert "elements, the picture has 768 itself" in fates
    assert "narrowest" in fates
    unused = records(branches.found, selection, kept=())
    assert "another plan is as good" in " ".join(record.fate for record in unused)


def test_what_goes_across_and_what_goes_down_are_a_cut_and_early_outputs_cross() -> None:
    cut = cut_net(UShape)
    answer, early = (value.name for value in cut.onnx.graph.output)
    across = next(pair for pair in cut.several if pair.elements == 256 + 256)
    assert sorted(part.shape for part in across.onnx.parts) == [(1, 16, 16), (4, 8, 8)]
    later = [pair for pair in cut.found.pairs if pair.work > across.work]
    assert later
    for pair in later:
        sent = {part.tensor for part in pair.onnx.tensors}
        assert early in sent
        assert answer not in sent
        assert pair.answer_error < 1e-5
    tail = extract_tail(cut.onnx, cut=later[-1].onnx, wire=later[-1].float_wire)
    assert [value.name for value in tail.graph.output] == [answer, early]


def test_a_wire_of_other_parts_is_refused(branches: Cut) -> None:
    (pair,) = branches.several
    single = Wire(shape=(320,))
    with pytest.raises(BuildError, match="are 2 tensors, the wire 1"):
        extract_tail(branches.onnx, cut=pair.onnx, wire=single)
    one = OnnxCut.joined([pair.onnx.parts[0]])
    with pytest.raises(BuildError, match="does not separate"):
        extract_tail(branches.onnx, cut=one, wire=pair.int8_wire.parts[0])
