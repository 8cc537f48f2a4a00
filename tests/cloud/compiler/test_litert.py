import numpy as np
import pytest
import torch
from torch import nn

from hybridge.cloud.compiler.litert import (
    Runner,
    compare_with_module,
    convert_module,
    relative_error,
    run_module,
)
from hybridge.shared.errors import BuildError

from .conftest import CLASSES, SHAPE, Converted, make_net


def test_converted_model_takes_channels_last_and_answers_as_the_module(
    converted: Converted,
) -> None:
    runner = Runner(converted.float32)
    answer = runner.run(converted.tensors[0])
    assert (answer.shape, answer.dtype) == ((1, CLASSES), np.float32)
    assert compare_with_module(converted.float32, converted.module, converted.tensors) < 1e-5


def test_comparison_sees_other_weights(converted: Converted) -> None:
    other = make_net(seed=1)
    assert compare_with_module(converted.float32, other, converted.tensors[:2]) > 0.01


def test_a_module_in_training_mode_is_refused() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout()).eval()
    module[1].train()
    with pytest.raises(BuildError, match="1 is in training mode"):
        convert_module(module, shape=SHAPE)


def test_a_module_is_compared_on_one_thread_whatever_torch_has() -> None:
    class Counting(nn.Module):
        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            return torch.full_like(pictures, torch.get_num_threads())

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        (seen,) = run_module(Counting().eval())(np.zeros((1, *SHAPE), np.float32))
        assert np.unique(seen).tolist() == [1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_what_cannot_be_converted_is_a_build_error() -> None:
    class Unsteady(nn.Module):
        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            return pictures if pictures.sum() > 0 else -pictures

    with pytest.raises(BuildError, match="conversion to LiteRT"):
        convert_module(Unsteady().eval(), shape=SHAPE)


def test_relative_error_of_zeros_is_absolute() -> None:
    assert relative_error(np.array([0.5]), np.array([0.0])) == 0.5
