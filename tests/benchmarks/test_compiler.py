from pathlib import Path

import numpy as np
import onnx
import pytest
from compiler.building import Disk, build
from compiler.exactness import composition_errors
from compiler.recipes import pictures_below, write_recipe
from compiler.speed import operator_times, slower, time_heads
from compiler.zoo import ZooModel, float_bytes
from PIL import Image

from hybridge.cloud.compiler.quantization.exclusions import OperatorTime
from hybridge.cloud.compiler.recipe import read_recipe
from hybridge.shared.errors import BuildError, ConfigError
from hybridge.shared.manifest import Precision
from hybridge.shared.preprocess import PreprocessSpec

from ..bundles import Small, picture

SPEC = PreprocessSpec(size_px=16, crop_padding_px=2, std=(58.0, 57.0, 57.0))


def labels() -> list[str]:
    return ["one", "two"]


def model(name: str = "some_net") -> ZooModel:
    return ZooModel(name=name, model="nowhere:some", preprocessing=SPEC, labels=labels)


def folder_of_pictures(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        Image.fromarray(picture(number)).save(folder / f"{number}.png")
    return folder


def test_a_recipe_reads_back_and_no_picture_is_in_both_sets(tmp_path: Path) -> None:
    pictures = pictures_below(folder_of_pictures(tmp_path / "all", 15))
    recipe = read_recipe(write_recipe(model(), pictures, tmp_path / "made", max_cuts=3))
    assert (recipe.name, recipe.max_cuts, recipe.large.model) == ("some-net", 3, "nowhere:some")
    assert recipe.large.preprocessing == SPEC
    sets = [
        {file.resolve() for file in folder.iterdir()}
        for folder in (recipe.pictures.calibration, recipe.pictures.evaluation)
    ]
    assert [len(files) for files in sets] == [10, 5]
    assert not sets[0] & sets[1]


def test_too_few_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds 3 pictures, at least 12"):
        pictures_below(folder_of_pictures(tmp_path / "all", 3))


def test_disk_counts_every_blob_of_the_large_model_once(small: Small) -> None:
    disk = Disk.of(small.bundle)
    large = small.bundle.manifest.large
    assert disk.float_heads == large.head_files[Precision.FLOAT32].bytes
    assert disk.large > large.weights.bytes + large.head_files[Precision.INT8].bytes
    assert disk.large + disk.float_heads + disk.light < disk.everything
    assert disk.everything == sum(
        file.stat().st_size for file in (small.bundle.path / "blobs").iterdir()
    )


def test_composition_of_a_sound_bundle_is_exact(small: Small) -> None:
    errors = composition_errors(small.bundle, [picture(seed) for seed in range(2)])
    assert errors.keys() == {cut.name for cut in small.bundle.manifest.large.cuts}
    assert max(errors.values()) < 1e-5


def test_composition_shows_a_tail_that_computes_otherwise(small: Small, tmp_path: Path) -> None:
    cut = small.bundle.manifest.large.cuts[0]
    path = small.rewrite(tmp_path, lambda manifest: manifest)
    file = path / "blobs" / cut.tail.sha256
    graph = onnx.load_from_string(file.read_bytes())
    (bias,) = (t for t in graph.graph.initializer if list(t.dims) == [5])
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(5, 9.0, np.float32), bias.name))
    file.write_bytes(graph.SerializeToString())
    altered = type(small.bundle)(path=path, manifest=small.bundle.manifest, sha256="")
    assert composition_errors(altered, [picture(0)])[cut.name] > 0.1


def test_heads_and_operators_are_timed(small: Small) -> None:
    (*_, deepest) = time_heads(small.bundle, rounds=3)
    assert deepest.cut == small.bundle.manifest.large.cuts[-1].name
    assert len(deepest.int8_ms) == len(deepest.float32_ms) == 30
    assert len(deepest.int8_cold_ms) == len(deepest.float32_cold_ms) == 3
    assert deepest.speedup > 0
    assert deepest.cold_speedup > 0
    kinds = {each.kind for each in operator_times(small.bundle)}
    assert "CONV_2D" in kinds


def test_slower_operators_have_a_margin() -> None:
    times = [
        OperatorTime("A", "a", int8_ms=1.2, float32_ms=1.0),
        OperatorTime("B", "b", int8_ms=1.4, float32_ms=1.0),
    ]
    assert [each.name for each in slower(times, margin=1.3)] == ["b"]


def test_a_build_that_fails_says_why(tmp_path: Path) -> None:
    pictures = pictures_below(folder_of_pictures(tmp_path / "all", 12))
    recipe = write_recipe(model(), pictures, tmp_path / "made")
    steps: list[str] = []
    with pytest.raises(BuildError, match="No module named 'nowhere'"):
        build(recipe, home=tmp_path / "home", on_step=steps.append)
    assert steps == ["checking pictures", "reading models"]


def test_a_model_that_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    file.write_bytes(b"1234")
    net = ZooModel(name="net", file=lambda: file, preprocessing=SPEC, labels=labels)
    pictures = pictures_below(folder_of_pictures(tmp_path / "all", 12))
    assert read_recipe(write_recipe(net, pictures, tmp_path / "made")).large.model == str(file)
    assert float_bytes(net) == 4
