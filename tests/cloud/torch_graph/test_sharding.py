"""Weights over several GPUs, as far as that can be seen without one."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from hybridge.cloud.torch_graph.offload import Offload
from hybridge.cloud.torch_graph.program import Program
from hybridge.cloud.torch_graph.sharding import device_map
from hybridge.cloud.torch_graph.stream import WeightsFile, made_bytes
from hybridge.cloud.torch_graph.weights import TorchWeights
from hybridge.cloud.weights import Weights

from ..deep import DeepModel
from .test_offload import Deep, deep, pixels

__all__ = ["deep"]
MIB = 1 << 20
LAYERS = {f"w{at}": 4 * MIB for at in range(10)}


@pytest.fixture(autouse=True)
def no_gpus(caplog: pytest.LogCaptureFixture) -> None:
    """Accelerate warns of every GPU that is reckoned with and not there."""
    caplog.set_level(logging.ERROR, "accelerate")


def test_gpus_are_filled_in_the_order_of_a_run() -> None:
    homes = device_map(LAYERS, {0: 18 * MIB, 1: 100 * MIB})
    assert list(homes) == list(LAYERS)
    assert list(homes.values()) == sorted(homes.values())
    assert set(homes.values()) == {0, 1}
    assert sum(LAYERS[name] for name, at in homes.items() if at == 0) <= 18 * MIB


def test_what_no_gpu_has_room_for_leaves_room_on_the_first_to_come_and_go() -> None:
    free = {0: 18 * MIB, 1: 13 * MIB}
    homes = device_map(LAYERS, free)
    for at, room in free.items():
        taken = sum(LAYERS[name] for name, home in homes.items() if home == at)
        assert taken <= room - (4 * MIB if at == 0 else 0)
    assert 0 < len(homes) < len(LAYERS)


def shared(deep: Deep) -> TorchWeights:
    return TorchWeights(Weights.from_file(deep.path, table=deep.parts.table).arrays)


def run(deep: Deep, weights: TorchWeights) -> list[torch.Tensor]:
    program = Program(deep.parts.graphs["whole"], weights=weights)
    fed = {"pixels": torch.from_numpy(np.asarray(pixels(2)))}
    return [program.run(fed)["logits"] for _ in range(2)]


def test_steps_follow_their_weights(deep: Deep) -> None:
    cpu, meta = torch.device("cpu"), torch.device("meta")
    wanted = run(deep, shared(deep))[0]
    together = replace(shared(deep), homes=dict.fromkeys(DeepModel().weights(), cpu))
    for made in run(deep, together):
        assert torch.equal(made, wanted)
    apart = replace(shared(deep), homes={"kernel": cpu, "enter": cpu, "layer3": meta})
    for made in run(deep, apart):
        assert made.device == meta
        assert made.shape == (2, 5)


def test_weights_beside_a_device_are_brought_to_it(deep: Deep) -> None:
    file = WeightsFile.of(Weights.from_file(deep.path, table=deep.parts.table))
    sizes = {name: made_bytes(extent, torch.float32) for name, extent in file.extents.items()}
    middle = {name: size for name, size in sizes.items() if name.startswith("layer")}
    meta = torch.device("meta")
    offload = Offload(file, middle, dtype=torch.float32, device=meta, budget_bytes=None)
    assert not offload.read
    weights = replace(shared(deep), device=meta, file=file, offload=offload)
    for made in run(deep, weights):
        assert made.device == meta
        assert made.shape == (2, 5)
