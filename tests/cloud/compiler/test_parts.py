"""Models that come as ONNX alone: what of them reaches a bundle, and what is said if nothing."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto
from onnx.numpy_helper import from_array
from PIL import Image

from hybridge.cloud.compiler.cache import StepCache
from hybridge.cloud.compiler.litert import Runner
from hybridge.cloud.compiler.onnx_source import copy_of, load_model
from hybridge.cloud.compiler.parts import LargeParts, light_part
from hybridge.cloud.compiler.pictures import open_pictures
from hybridge.cloud.compiler.recipe import ModelRecipe
from hybridge.cloud.compiler.sources import open_source
from hybridge.cloud.compiler.steps import Steps
from hybridge.cloud.compiler.writer import BlobStore
from hybridge.shared.errors import BuildError
from hybridge.shared.preprocess import PreprocessSpec

from .conftest import CLASSES, SIZE_PX, Converted
from .graphs import run
from .test_onnx_torch import channels_last, with_local_response_norm
from .watching import Watch

SPEC = PreprocessSpec(size_px=SIZE_PX)
CUTS = ["c00-8x8x8", "c01-8x8x8", "c02-4x4x12", "c03-12"]


@dataclass
class Bench:
    """Where models are built: what was said on the way, and what depends on nothing."""

    steps: Steps
    folder: Path
    said: list[str] = field(default_factory=list)

    def large(self, model: ModelProto) -> LargeParts:
        return LargeParts.convert(
            open_source(self._save(model)), self._recipe(), steps=self.steps, classes=CLASSES
        )

    def light(self, model: ModelProto) -> bytes:
        store = BlobStore()
        part = light_part(
            open_source(self._save(model)),
            self._recipe(),
            steps=self.steps,
            store=store,
            classes=CLASSES,
        )
        return store.read(part.light.blob)

    def _save(self, model: ModelProto) -> str:
        file = self.folder / "model.onnx"
        onnx.save(copy_of(model), file)
        return str(file)

    def _recipe(self) -> ModelRecipe:
        return ModelRecipe(model="", preprocessing=SPEC)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> StepCache:
    return StepCache(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def bench(tmp_path: Path, cache: StepCache) -> Bench:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for seed in range(8):
        pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(pixels).save(pictures / f"{seed}.png")
    said: list[str] = []
    steps = Steps(
        cache,
        open_pictures(pictures, labels=None, classes=CLASSES, minimum=8),
        lambda step, done, total: said.append(step),
    )
    return Bench(steps=steps, folder=tmp_path, said=said)


def test_a_large_model_that_is_onnx_alone_is_cut(bench: Bench, converted: Converted) -> None:
    parts = bench.large(converted.onnx)
    assert [pair.name for pair in parts.pairs] == CUTS
    assert all(pair.int8 is not None for pair in parts.pairs)
    cuts = parts.selection(most=8).cuts
    watch = Watch()
    contracts = parts.contracts(cuts, codecs=("affine8", "rans-30"), progress=watch)
    assert watch.finished == {
        "running heads": len(cuts),
        "how much answers depend on it": len(cuts) * 8,
        "fitting codecs": len(cuts),
    }
    large = parts.assemble(cuts, contracts=contracts, store=BlobStore())
    assert [cut.name for cut in large.cuts] == ["c00-8x8x8", "c02-4x4x12", "c03-12"]


def test_a_large_model_with_channels_last_is_cut(bench: Bench, converted: Converted) -> None:
    parts = bench.large(channels_last(converted.onnx))
    assert [pair.name for pair in parts.pairs] == CUTS


def test_dynamic_picture_sizes_become_those_of_the_recipe(
    bench: Bench, converted: Converted
) -> None:
    model = copy_of(converted.onnx)
    for dim, name in zip(
        model.graph.input[0].type.tensor_type.shape.dim[2:], ("h", "w"), strict=True
    ):
        dim.dim_param = name
    assert [pair.name for pair in bench.large(model).pairs] == CUTS


def test_cuts_end_at_an_operator_that_cannot_run(bench: Bench, converted: Converted) -> None:
    parts = bench.large(with_local_response_norm(converted.onnx))
    assert [pair.name for pair in parts.pairs] == CUTS[:3]
    (said,) = [step for step in bench.said if "without later cuts" in step]
    assert "operator LRN" in said


def test_a_large_model_that_cannot_be_converted_is_served_whole(
    bench: Bench, converted: Converted
) -> None:
    model = copy_of(converted.onnx)
    model.graph.node.insert(
        0, onnx.helper.make_node("LRN", [model.graph.input[0].name], ["normed"], size=3)
    )
    model.graph.node[1].input[0] = "normed"
    parts = bench.large(model)
    assert list(parts.pairs) == []
    (said,) = [step for step in bench.said if "without heads" in step]
    assert "operator LRN" in said
    large = parts.assemble(
        [], contracts=parts.contracts([], codecs=("affine8",)), store=BlobStore()
    )
    assert large.cuts == ()


def test_a_light_model_may_be_onnx(bench: Bench, converted: Converted) -> None:
    model = Runner(bench.light(converted.onnx))
    tensor = converted.tensors[0]
    wanted = run(converted.onnx, tensor.transpose(0, 3, 1, 2))
    assert model.run(tensor).argmax() == wanted.argmax()


def test_a_light_model_must_run_whole(bench: Bench, converted: Converted) -> None:
    with pytest.raises(BuildError, match=r"light model: operator LRN"):
        bench.light(with_local_response_norm(converted.onnx))


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, converted: Converted) -> None:
    model = copy_of(converted.onnx)
    weights = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    values = onnx.numpy_helper.to_array(weights).copy()
    values[0, 0, 0, 0] = np.nan
    name = weights.name
    weights.CopyFrom(from_array(values, name))
    onnx.save(model, tmp_path / "nan.onnx")
    with pytest.raises(BuildError, match=rf"nan\.onnx: weights '{name}' hold NaN"):
        load_model(tmp_path / "nan.onnx")
