"""A model in torch, cut where a decoder could come in."""

import pytest
import torch
from torch import nn

from hybridge.cloud.compiler.onnx_source import export_module
from hybridge.cloud.training.halves import Tail, Trunk, choose_cut, feature_cuts
from hybridge.shared.errors import BuildError

SIZE_PX = 16


class Net(nn.Module):
    """Halved twice; then features of one pixel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(8, 6, 3, 2, 1), nn.ReLU())
        self.classify = nn.Linear(6, 5)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classify(self.deep(self.stem(pictures)).mean((2, 3)))
        return logits


def test_both_halves_are_the_whole() -> None:
    net = Net().eval()
    model = export_module(net, shape=(SIZE_PX, SIZE_PX, 3))
    pictures = torch.randn(4, 3, SIZE_PX, SIZE_PX)
    cuts = feature_cuts(model, size_px=SIZE_PX)
    assert {(cut.channels, cut.side, cut.halvings) for cut in cuts} == {(8, 8, 1), (6, 4, 2)}
    with torch.inference_mode():
        wanted = net(pictures)
        for cut in cuts:
            trunk = Trunk(model, cut)
            features = torch.cat([trunk(pictures[at : at + 1]) for at in range(4)])
            made = Tail(model, cut, position=0)(features)
            assert torch.allclose(made, wanted, atol=1e-5)


def test_the_first_of_the_narrowest_is_taken_unless_one_is_named() -> None:
    model = export_module(Net().eval(), shape=(SIZE_PX, SIZE_PX, 3))
    cuts = feature_cuts(model, size_px=SIZE_PX)
    narrowest = choose_cut(cuts, size_px=SIZE_PX, wanted="")
    assert narrowest.elements == min(cut.elements for cut in cuts)
    assert narrowest == next(cut for cut in cuts if cut.elements == narrowest.elements)
    assert choose_cut(cuts, size_px=SIZE_PX, wanted=cuts[0].onnx.tensor) == cuts[0]
    with pytest.raises(BuildError, match="no bottleneck can end in 'x'"):
        choose_cut(cuts, size_px=SIZE_PX, wanted="x")
    with pytest.raises(BuildError, match="no cut deep enough"):
        choose_cut([], size_px=SIZE_PX, wanted="")
