import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from hybridge.cloud.compiler.litert import Runner
from hybridge.cloud.compiler.tflite_graph import (
    HeadSource,
    TfliteCut,
    find_cuts,
    load,
    pack_heads,
    pack_sources,
    save,
)
from hybridge.shared.errors import BuildError

from .conftest import Converted


def named(cuts: list[TfliteCut]) -> dict[str, TfliteCut]:
    return {f"cut{index}": cut for index, cut in enumerate(cuts)}


def test_no_cut_inside_the_residual_part(converted: Converted) -> None:
    cuts = find_cuts(converted.float32)
    operators = [cut.operator for cut in cuts]
    eight = [cut for cut in cuts if cut.shape == (8, 8, 8)]
    assert operators == sorted(set(operators))
    assert len(eight) == 2
    assert eight[1].operator - eight[0].operator == 3  # depthwise, projection, addition
    assert cuts[-1].shape == (12,)


def test_int8_cuts_say_how_to_read_them(converted: Converted) -> None:
    for cut in find_cuts(converted.int8):
        assert cut.dtype == "int8"
        assert cut.scale is not None
        assert cut.scale > 0
        assert cut.zero_point is not None
        assert -128 <= cut.zero_point <= 127
    assert all(cut.scale is None for cut in find_cuts(converted.float32))


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_saved_model_answers_as_before(converted: Converted, precision: str) -> None:
    model: bytes = getattr(converted, precision)
    tensor = converted.tensors[0]
    again = Runner(save(load(model))).run(tensor)
    np.testing.assert_array_equal(again, Runner(model).run(tensor))


def test_each_head_gives_its_cut(converted: Converted) -> None:
    for model in (converted.float32, converted.int8):
        cuts = named(find_cuts(model))
        packed = pack_heads(model, cuts)
        for name, cut in cuts.items():
            value = Runner(packed, signature=name).run(converted.tensors[0])
            assert (value.shape, str(value.dtype)) == ((1, *cut.shape), cut.dtype)


def test_heads_of_two_models_in_one_file_are_what_they_were(converted: Converted) -> None:
    tensor = converted.tensors[0]
    cuts = {name: find_cuts(getattr(converted, name))[1] for name in ("float32", "int8")}
    packed = pack_sources(
        [HeadSource(getattr(converted, name), {name: cut}) for name, cut in cuts.items()]
    )
    for name, cut in cuts.items():
        alone = pack_heads(getattr(converted, name), {name: cut})
        np.testing.assert_array_equal(
            Runner(packed, signature=name).run(tensor), Runner(alone, signature=name).run(tensor)
        )


def test_a_head_continued_in_int8_gives_the_whole_answer(converted: Converted) -> None:
    cuts = find_cuts(converted.int8)
    last = cuts[-1]  # the int8 logits, before the DEQUANTIZE that ends the model
    head = Runner(pack_heads(converted.int8, {"logits": last}))
    for tensor in converted.tensors:
        values = head.run(tensor).astype(np.float32)
        real = (values - last.zero_point) * np.float32(last.scale)
        np.testing.assert_allclose(real, Runner(converted.int8).run(tensor), rtol=1e-6)


def test_heads_share_their_weights(converted: Converted) -> None:
    cuts = find_cuts(converted.float32)
    weights = 3 * 3 * 8 * 12 * 4  # of `widen`, in every head from there on
    alone = len(pack_heads(converted.float32, {"a": cuts[-1]}))
    thrice = len(pack_heads(converted.float32, {"a": cuts[-1], "b": cuts[-1], "c": cuts[-2]}))
    assert thrice < alone + weights


def test_the_same_heads_are_the_same_bytes_in_any_order(converted: Converted) -> None:
    cuts = named(find_cuts(converted.int8))
    backwards = dict(reversed(cuts.items()))
    assert pack_heads(converted.int8, cuts) == pack_heads(converted.int8, backwards)


def test_buffers_are_aligned_for_the_runtime(converted: Converted) -> None:
    packed = pack_heads(converted.int8, named(find_cuts(converted.int8)))
    start = np.frombuffer(packed, np.uint8).__array_interface__["data"][0]
    model = schema.Model.GetRootAs(packed, 0)
    offsets = [
        model.Buffers(index).DataAsNumpy().__array_interface__["data"][0] - start
        for index in range(model.BuffersLength())
        if not model.Buffers(index).DataIsNone()
    ]
    assert len(offsets) > 5
    assert not [offset for offset in offsets if offset % 16]


def test_bytes_of_something_else_are_refused() -> None:
    with pytest.raises(BuildError, match="not a TFLite model"):
        find_cuts(b"ONNX, perhaps")


def test_a_cut_of_another_model_is_refused(converted: Converted) -> None:
    (cut, *_) = find_cuts(converted.int8)
    with pytest.raises(BuildError, match="belongs to another model"):
        pack_heads(converted.float32, {"a": cut})


def test_no_cuts_make_no_heads(converted: Converted) -> None:
    with pytest.raises(BuildError, match="no cuts"):
        pack_heads(converted.float32, {})
