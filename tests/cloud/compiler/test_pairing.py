import numpy as np
import pytest
from onnx import helper
from torch import nn

from hybridge.cloud.compiler.checking import dequantize, signal_to_noise_db
from hybridge.cloud.compiler.litert import Runner, convert_module, relative_error
from hybridge.cloud.compiler.onnx_graph import extract_tail, find_cuts
from hybridge.cloud.compiler.onnx_source import copy_of, export_module
from hybridge.cloud.compiler.paired_cut import Limits, PairedCut
from hybridge.cloud.compiler.pairing import pair_cuts
from hybridge.cloud.compiler.quantization.tflite import quantize
from hybridge.cloud.compiler.tflite_graph import pack_heads
from hybridge.shared.errors import BuildError

from .conftest import CLASSES, SHAPE, Converted, make_net, make_tensors
from .graphs import run
from .watching import Watch


@pytest.fixture(scope="module")
def pairs(converted: Converted) -> tuple[PairedCut, ...]:
    watch = Watch()
    found = pair_cuts(
        converted.onnx,
        float_model=converted.float32,
        int8_model=converted.int8,
        tensors=converted.tensors[:3],
        count=watch.count,
    ).pairs
    assert watch.finished == {"": len(found)}
    return found


def test_each_cut_both_graphs_have_is_paired_once(pairs: tuple[PairedCut, ...]) -> None:
    assert [pair.name for pair in pairs] == ["c00-8x8x8", "c01-8x8x8", "c02-4x4x12", "c03-12"]
    assert [pair.elements for pair in pairs] == [512, 512, 192, 12]
    assert len({pair.onnx.tensor for pair in pairs}) == 4
    assert all(pair.channels_first == (len(pair.shape) == 3) for pair in pairs)


def test_pairs_carry_what_a_contract_needs(pairs: tuple[PairedCut, ...]) -> None:
    for pair in pairs:
        assert pair.int8 is not None
        assert pair.int8.name == pair.float32.name
        assert pair.int8_wire.scale == pair.int8.scale
        assert pair.int8_wire.zero_point == pair.int8.zero_point
        assert pair.float_wire.scale is None
        assert pair.value_error < 1e-5
        assert pair.answer_error < 1e-5
        assert pair.int8_snr_db is not None
        assert pair.int8_snr_db > 25


def test_head_and_tail_from_bytes_give_the_whole_answer(
    converted: Converted, pairs: tuple[PairedCut, ...]
) -> None:
    tensor = converted.tensors[5]
    whole = run(converted.onnx, tensor.transpose(0, 3, 1, 2))
    assert pairs
    for pair in pairs:
        assert pair.int8 is not None
        sent = Runner(pack_heads(converted.float32, {"h": pair.float32})).run(tensor)
        tail = extract_tail(converted.onnx, cut=pair.onnx, wire=pair.float_wire)
        assert relative_error(run(tail, sent), whole) < 1e-5
        sent = Runner(pack_heads(converted.int8, {"h": pair.int8})).run(tensor)
        tail = extract_tail(converted.onnx, cut=pair.onnx, wire=pair.int8_wire)
        assert relative_error(run(tail, sent), whole) < 0.05


def test_without_an_int8_model_there_are_float_heads(converted: Converted) -> None:
    pairs = pair_cuts(
        converted.onnx,
        float_model=converted.float32,
        int8_model=None,
        tensors=converted.tensors[:1],
    ).pairs
    assert len(pairs) == 4
    assert all(pair.int8 is None and pair.int8_agreement is None for pair in pairs)
    with pytest.raises(BuildError, match="c00-8x8x8 has no int8 head"):
        _ = pairs[0].int8_wire


def test_a_noisy_int8_tensor_is_left_out(
    converted: Converted, pairs: tuple[PairedCut, ...]
) -> None:
    noisiest = min(pairs, key=lambda pair: pair.int8_snr_db or 0.0)
    assert noisiest.int8_snr_db is not None
    again = pair_cuts(
        converted.onnx,
        float_model=converted.float32,
        int8_model=converted.int8,
        tensors=converted.tensors[:3],
        limits=Limits(int8_snr_db=noisiest.int8_snr_db + 0.01),
    ).pairs
    assert [pair.name for pair in again if pair.int8 is None] == [noisiest.name]


def test_models_with_other_weights_are_refused(converted: Converted) -> None:
    other = export_module(make_net(seed=1), shape=SHAPE)
    with pytest.raises(BuildError, match="differ by"):
        pair_cuts(
            other,
            float_model=converted.float32,
            int8_model=None,
            tensors=converted.tensors[:1],
        )


def test_a_tensor_of_other_values_is_not_paired(converted: Converted) -> None:
    model = copy_of(converted.onnx)
    (relu,) = [node for node in model.graph.node if node.op_type == "Relu"]
    plain = relu.output[0]
    relu.output[0] = "before"
    position = list(model.graph.node).index(relu) + 1
    # Negated and negated again: the answers stay, one more cut of the same shape appears.
    model.graph.node.insert(position, helper.make_node("Neg", ["before"], ["negated"]))
    model.graph.node.insert(position + 1, helper.make_node("Neg", ["negated"], [plain]))
    assert "negated" in {cut.tensor for cut in find_cuts(model)}
    pairs = pair_cuts(
        model, float_model=converted.float32, int8_model=None, tensors=converted.tensors[:1]
    ).pairs
    tensors = [pair.onnx.tensor for pair in pairs]
    assert len(tensors) == 4
    assert plain in tensors  # the later of two equal ones
    assert not {"before", "negated"}.intersection(tensors)


def test_nothing_is_paired_without_inputs(converted: Converted) -> None:
    with pytest.raises(BuildError, match="needs real inputs"):
        pair_cuts(converted.onnx, float_model=converted.float32, int8_model=None, tensors=[])


def test_dequantizing_and_its_noise() -> None:
    values = np.array([-128, 0, 127], np.int8)
    np.testing.assert_allclose(dequantize(values, scale=0.5, zero_point=-128), [0, 64, 127.5])
    assert signal_to_noise_db(np.ones(3), np.ones(3)) == float("inf")
    assert signal_to_noise_db(np.ones(3), np.zeros(3)) == float("-inf")


def test_a_cut_that_leaves_nothing_to_multiply_is_refused() -> None:
    module, tensors = nn.Sequential(make_net(), nn.Softmax(dim=1)).eval(), make_tensors(4)
    float32 = convert_module(module, shape=SHAPE)
    found = pair_cuts(
        export_module(module, shape=SHAPE),
        float_model=float32,
        int8_model=quantize(float32, tensors),
        tensors=tensors[:2],
    )
    (logits,) = [record for record in found.refused if "nothing is left" in record.fate]
    assert logits.shapes == ((CLASSES,),)
    assert [pair.shape for pair in found.pairs][-1] == (12,)
