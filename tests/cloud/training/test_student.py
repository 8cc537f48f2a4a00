import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hybridge.cloud.compiler.litert import compare_with_module, convert_module
from hybridge.cloud.training.student import Student, freeze_below, make_student, student_of
from hybridge.shared.errors import BuildError


class Backbone(nn.Module):
    """As the packages' nets: features, a dropout and a classifier that is not the last child."""

    def __init__(self) -> None:
        super().__init__()
        self.classify = nn.ModuleDict({"last": nn.Linear(8, 5)})
        self.stem = nn.Conv2d(3, 8, 3, stride=2)

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.classify["last"](self.stem(pictures).mean((2, 3)))
        return logits


class Maps(nn.Module):
    """No classifier, and not pooled either."""

    def forward(self, pictures: Tensor) -> Tensor:
        return pictures


def size(net: nn.Module) -> int:
    return sum(weights.numel() for weights in net.parameters())


def test_at_full_size_it_is_as_large_as_efficientnet_lite0() -> None:
    # 4,652,008 parameters with 1,000 classes (tensorflow/tpu, lite/README.md: 4.7 M).
    assert size(make_student(width=1.0, depth=1.0, classes=1000)) == 4_652_008


def test_width_and_depth_scale() -> None:
    whole = size(make_student(width=1.0, depth=1.0, classes=4))
    narrow = size(make_student(width=0.5, depth=1.0, classes=4))
    shallow = size(make_student(width=1.0, depth=0.5, classes=4))
    assert 0.2 < narrow / whole < 0.35
    assert 0.5 < shallow / whole < 0.8


@pytest.mark.parametrize("size_px", [32, 57])
def test_it_takes_pictures_of_any_size(size_px: int) -> None:
    net = make_student(width=0.1, depth=0.1, classes=7).eval()
    assert net(torch.zeros(2, 3, size_px, size_px)).shape == (2, 7)


def test_every_nonlinearity_is_bounded_for_int8() -> None:
    net = make_student(width=0.5, depth=0.5, classes=4)
    kinds = {type(part) for part in net.modules() if not list(part.children())}
    assert kinds == {nn.Conv2d, nn.BatchNorm2d, nn.ReLU6, nn.Dropout, nn.Linear}


def test_the_seed_decides_the_weights() -> None:
    def made(seed: int) -> Student:
        torch.manual_seed(seed)
        return make_student(width=0.1, depth=0.1, classes=3)

    assert torch.equal(next(made(1).parameters()), next(made(1).parameters()))
    assert not torch.equal(next(made(1).parameters()), next(made(2).parameters()))


def test_a_backbone_keeps_its_features_and_loses_its_classifier() -> None:
    backbone = Backbone()
    pictures = torch.rand(2, 3, 16, 16)
    wanted = backbone.stem(pictures).mean((2, 3))
    net = student_of(backbone, size_px=16, classes=3)
    assert torch.equal(net.features(pictures), wanted)
    assert net(pictures).shape == (2, 3)


def test_a_backbone_without_pooled_features_is_refused() -> None:
    with pytest.raises(BuildError, match=r"gives \[2, 3, 16, 16\]; features \[n, width\]"):
        student_of(Maps(), size_px=16, classes=3)


def test_a_backbone_for_other_pictures_is_refused() -> None:
    with pytest.raises(BuildError, match=r"does not take pictures \[n, 3, 2, 2\]"):
        student_of(Backbone(), size_px=2, classes=3)


@pytest.mark.parametrize(("tuned", "learning"), [(0.0, 0), (0.5, 5), (1.0, 10)])
def test_only_the_last_layers_learn(tuned: float, learning: int) -> None:
    net = nn.Sequential(*(nn.Linear(2, 2) for _ in range(5)))
    freeze_below(net, tuned=tuned)
    flags = [weights.requires_grad for weights in net.parameters()]
    assert flags == [False] * (10 - learning) + [True] * learning


def test_it_computes_the_same_on_a_device() -> None:
    torch.manual_seed(0)
    net = make_student(width=0.1, depth=0.1, classes=3).eval()
    with torch.no_grad():
        net.head.weight *= 100
    pictures = np.random.default_rng(0).uniform(-1, 1, (2, 1, 32, 32, 3)).astype(np.float32)
    model = convert_module(net, shape=(32, 32, 3))
    assert compare_with_module(model, net, list(pictures)) < 1e-4
