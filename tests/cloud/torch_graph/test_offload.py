"""Weights that do not fit: the same answers, from a file that is read for every run."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from hybridge.cloud.backend import Offloaded
from hybridge.cloud.compiler.external import Externalized, externalize
from hybridge.cloud.torch_graph.backend import TorchBackend, torch_weights
from hybridge.cloud.torch_graph.stream import Stream, WeightsFile
from hybridge.cloud.torch_graph.weights import TorchWeights
from hybridge.cloud.weights import Weights
from hybridge.shared.errors import BundleError, ModelFault
from hybridge.shared.manifest import Precision
from hybridge.shared.tensor import Array

from ..bundles import SIZE
from ..deep import LAYER_BYTES, DeepModel

FLOAT32, BFLOAT16, INT8 = Precision.FLOAT32, Precision.BFLOAT16, Precision.INT8


@dataclass(frozen=True)
class Deep:
    """Eight layers, in a file."""

    parts: Externalized
    path: Path

    def weights(
        self, budget_bytes: int | None = None, *, precision: Precision = FLOAT32
    ) -> TorchWeights:
        mapped = Weights.from_file(self.path, table=self.parts.table)
        return torch_weights(mapped, precision=precision, on_cpu=True, budget_bytes=budget_bytes)

    def backend(self, weights: TorchWeights, graph: str = "whole") -> TorchBackend:
        return TorchBackend(self.parts.graphs[graph], weights=weights)


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Deep:
    parts = externalize(DeepModel().graphs())
    path = tmp_path_factory.mktemp("deep") / "weights"
    path.write_bytes(parts.weights)
    return Deep(parts, path)


def pixels(items: int, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (items, SIZE, SIZE, 3), np.uint8)


@pytest.mark.parametrize("precision", [FLOAT32, BFLOAT16])
@pytest.mark.parametrize("layers", [4, 7])
def test_answers_are_those_of_weights_in_memory(
    deep: Deep, layers: int, precision: Precision
) -> None:
    budget_bytes = (layers + 1) * LAYER_BYTES // (1 if precision is FLOAT32 else 2)
    there = deep.backend(deep.weights(precision=precision))
    short = deep.backend(deep.weights(budget_bytes, precision=precision))
    for items in (1, 3, 1):
        wanted = there.run(pixels(items), {}).answer
        np.testing.assert_array_equal(short.run(pixels(items), {}).answer, wanted)
    offloaded = short.offloaded(pixels(1), {})
    assert offloaded is not None
    assert 0 < offloaded.read_bytes < 9 * LAYER_BYTES
    assert offloaded.read_bytes % LAYER_BYTES == 0
    assert offloaded.resident_bytes < budget_bytes
    assert min(offloaded.run_ms, offloaded.computing_ms) > 0
    assert there.offloaded(pixels(1), {}) is None
    np.testing.assert_array_equal(short.run(pixels(1), {}).answer, wanted)


def test_the_slowdown_is_what_waiting_adds() -> None:
    offloaded = Offloaded(resident_bytes=1, read_bytes=2, run_ms=30.0, computing_ms=10.0)
    assert offloaded.slowdown == 3.0


def test_whole_and_tail_share_what_is_in_memory(deep: Deep) -> None:
    weights = deep.weights(5 * LAYER_BYTES)
    whole, tail = deep.backend(weights), deep.backend(weights, "tail")
    at_cut = np.zeros((2, 4, 4, 8), np.int8)
    whole.run(pixels(1), {})
    before = weights.bytes
    wanted = deep.backend(deep.weights(), "tail").run(at_cut, {}).answer
    np.testing.assert_array_equal(tail.run(at_cut, {}).answer, wanted)
    assert before <= weights.bytes < before + LAYER_BYTES
    assert weights.bytes < 5 * LAYER_BYTES


def test_several_runs_at_a_time(deep: Deep) -> None:
    there, short = deep.backend(deep.weights()), deep.backend(deep.weights(4 * LAYER_BYTES))
    batches = [pixels(1 + seed % 3, seed) for seed in range(12)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda batch: short.run(batch, {}).answer, batches))
    for batch, answer in zip(batches, answers, strict=True):
        np.testing.assert_array_equal(answer, there.run(batch, {}).answer)


def test_what_fits_is_not_offloaded(deep: Deep) -> None:
    assert deep.weights(9 * LAYER_BYTES).offload is None
    assert deep.weights(5 * LAYER_BYTES, precision=BFLOAT16).offload is None
    assert deep.weights(3 * LAYER_BYTES, precision=INT8).offload is None


@pytest.mark.parametrize("precision", [BFLOAT16, INT8])
def test_what_is_made_anew_is_read_from_the_file(deep: Deep, precision: Precision) -> None:
    wanted = deep.backend(deep.weights(precision=precision)).run(pixels(2), {}).answer
    short = deep.weights(5 * LAYER_BYTES, precision=precision)
    assert short.file is not None
    np.testing.assert_array_equal(deep.backend(short).run(pixels(2), {}).answer, wanted)


def test_less_than_a_layer_is_refused(deep: Deep) -> None:
    with pytest.raises(BundleError, match=r"largest layer takes 2.25 MiB.*--memory-limit"):
        deep.weights(LAYER_BYTES)


def test_a_file_that_is_cut_short_fails_its_runs_and_no_others(deep: Deep, tmp_path: Path) -> None:
    copy = Deep(deep.parts, tmp_path / "weights")
    copy.path.write_bytes(deep.path.read_bytes())
    short = copy.backend(copy.weights(4 * LAYER_BYTES))
    wanted = short.run(pixels(1), {}).answer
    os.truncate(copy.path, 6 * LAYER_BYTES)
    for _ in range(2):
        with pytest.raises(ModelFault, match="ends within 'layer"):
            short.run(pixels(1), {})
    copy.path.write_bytes(deep.path.read_bytes())
    np.testing.assert_array_equal(short.run(pixels(1), {}).answer, wanted)


def test_a_run_that_breaks_off_leaves_no_thread(deep: Deep) -> None:
    file = WeightsFile.of(Weights.from_file(deep.path, table=deep.parts.table))
    stream = Stream(file, buffer_bytes=LAYER_BYTES, buffers=2)
    before = threading.active_count()

    def broken_off() -> None:
        with stream.run([("layer0",), ("layer1",), ("layer2",)]):
            stream.arrive()
            raise ModelFault("the second layer cannot be computed")

    with pytest.raises(ModelFault, match="the second layer"):
        broken_off()
    assert threading.active_count() == before
    with stream.run([("layer1",)]):
        stream.arrive()
        taken = stream.take("layer1").numpy().copy()
    np.testing.assert_array_equal(taken, DeepModel().weights()["layer1"])
