"""The file of a bottleneck, and the model that it makes with a large one."""

from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from onnx import ModelProto, TensorProto, helper, save

from hybridge.cloud.compiler.bottleneck import (
    FEATURES,
    LATENTS,
    PICTURES,
    Bottleneck,
    Facts,
    read_bottleneck,
    write_bottleneck,
)
from hybridge.cloud.compiler.onnx_graph import find_cuts
from hybridge.shared.errors import BuildError

FACTS = Facts(replaces="features", large_sha256="0" * 64, bits=1.2)


def pools(names: list[str], sizes: list[list[int | str]]) -> ModelProto:
    """A chain of average pools that halve."""
    nodes = [
        helper.make_node("AveragePool", [one], [two], kernel_shape=[2, 2], strides=[2, 2])
        for one, two in pairwise(names)
    ]
    ends = [
        helper.make_tensor_value_info(names[at], TensorProto.FLOAT, sizes[at]) for at in (0, -1)
    ]
    graph = helper.make_graph(nodes, "pools", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def learned() -> ModelProto:
    return pools([PICTURES, LATENTS, FEATURES], [["n", 3, 16, 16], ["n", 3, 4, 4]])


def large(side: int = 4) -> ModelProto:
    names = ["input", "early", "features", "end"]
    return pools(names, [["n", 3, 4 * side, 4 * side], ["n", 3, side // 2, side // 2]])


def test_it_takes_the_place_of_what_was_before(tmp_path: Path) -> None:
    write_bottleneck(learned(), FACTS, tmp_path / "b.onnx")
    joined = read_bottleneck(tmp_path / "b.onnx").before(large())
    made = [name for node in joined.graph.node for name in node.output]
    assert "early" not in made
    assert {"features", "end", LATENTS} <= set(made)
    assert LATENTS in [cut.tensor for cut in find_cuts(joined)]


def test_other_features_are_refused() -> None:
    for facts in (FACTS, msgspec.structs.replace(FACTS, replaces="nowhere")):
        wrong = large(8) if facts is FACTS else large()
        with pytest.raises(BuildError, match="train it again"):
            Bottleneck("b.onnx", learned(), facts).before(wrong)


def test_its_rates_lie_around_the_one_it_was_trained_at() -> None:
    own = Bottleneck("b.onnx", learned(), FACTS)
    assert own.codecs == ("rans-6", "rans-8", "rans-10", "rans-12", "rans-15", "rans-19")
    faint = Bottleneck("b.onnx", learned(), msgspec.structs.replace(FACTS, bits=0.1))
    assert faint.codecs == ("rans-1", "rans-2")


def test_what_is_no_bottleneck_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="hybridge compress"):
        read_bottleneck(tmp_path / "missing.onnx")
    save(large(), tmp_path / "plain.onnx")
    with pytest.raises(BuildError, match="is no bottleneck"):
        read_bottleneck(tmp_path / "plain.onnx")
    write_bottleneck(learned(), FACTS, tmp_path / "whole.onnx")
    whole = (tmp_path / "whole.onnx").read_bytes()
    for content in (b"no model", b"", whole[: len(whole) // 2]):
        (tmp_path / "other.onnx").write_bytes(content)
        with pytest.raises(BuildError, match=r"^other\.onnx is no bottleneck; `hybridge compress`"):
            read_bottleneck(tmp_path / "other.onnx")
    later = msgspec.structs.replace(FACTS, version=2)
    write_bottleneck(learned(), later, tmp_path / "later.onnx")
    with pytest.raises(BuildError, match="has version 2"):
        read_bottleneck(tmp_path / "later.onnx")


@pytest.mark.parametrize("bits", [-3.0, 0.0, 0.02, 1e9])
def test_latents_that_no_codec_can_send_are_told(tmp_path: Path, bits: float) -> None:
    write_bottleneck(learned(), msgspec.structs.replace(FACTS, bits=bits), tmp_path / "b.onnx")
    with pytest.raises(BuildError, match=r"beyond what a codec can send, 0\.1 to 8; train it"):
        read_bottleneck(tmp_path / "b.onnx")
