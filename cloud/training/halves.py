"""A large model in torch, cut in two: what comes before a tensor, and what comes after it."""

from dataclasses import dataclass

import torch
from onnx import ModelProto
from torch import Tensor, nn

from ...shared.errors import BuildError
from ..compiler.onnx_flow import OnnxFlow
from ..compiler.onnx_fold import fold, prefix
from ..compiler.onnx_graph import OnnxCut, Wire, extract_tail, find_cuts
from ..compiler.onnx_source import takes_channels_last
from ..compiler.onnx_torch import OnnxModule

_MOST_HALVINGS = 5
_COARSEST = 16
"""A cut that is chosen by itself has a sixteenth of the picture's side, or more."""

_SAME = 1e-3


@dataclass(frozen=True)
class FeatureCut:
    """A tensor of features, [channels, side, side], that separates the picture from the answer.

    `halvings` is how often the picture's side has to be halved for it, odd sides rounded up.
    `work` is the share of the model's multiply-adds before it.
    """

    onnx: OnnxCut
    channels: int
    side: int
    halvings: int
    work: float

    @property
    def elements(self) -> int:
        return self.channels * self.side * self.side

    @property
    def wire(self) -> Wire:
        """As if it were sent in float32, channels last."""
        return Wire(shape=(self.side, self.side, self.channels), channels_first=True)


def feature_cuts(model: ModelProto, *, size_px: int) -> list[FeatureCut]:
    """Where a decoder could come in, from the input on."""
    flow = OnnxFlow.of(model).flow
    halvings = {_halved(size_px, times): times for times in range(1, _MOST_HALVINGS + 1)}
    found = []
    for cut in find_cuts(model):
        if len(cut.shape) != 3 or cut.shape[1] != cut.shape[2] or cut.shape[1] not in halvings:
            continue
        channels, side, _ = cut.shape
        work = flow.work_of([cut.tensor]) / max(1, flow.total_work)
        found.append(FeatureCut(cut, channels, side, halvings[side], round(work, 6)))
    return found


def choose_cut(cuts: list[FeatureCut], *, size_px: int, wanted: str) -> FeatureCut:
    """The one of a name, or else the first of those with the fewest elements that are fine enough.

    BuildError if there is none.
    """
    if wanted:
        for cut in cuts:
            if cut.onnx.tensor == wanted:
                return cut
        names = ", ".join(cut.onnx.tensor for cut in cuts) or "none"
        raise BuildError(f"no bottleneck can end in {wanted!r}; in this model it can in: {names}")
    fine = [cut for cut in cuts if cut.side * _COARSEST >= size_px]
    if not fine:
        raise BuildError(
            "this model has no cut deep enough for a bottleneck: a square tensor that every path "
            f"crosses, of a side of {size_px} px halved one to four times"
        )
    return min(fine, key=lambda cut: cut.elements)


def _halved(side: int, times: int) -> int:
    for _ in range(times):
        side = (side + 1) // 2
    return side


class Trunk(nn.Module):
    """Normalized pictures float32 [n, 3, s, s] to features [n, channels, side, side]."""

    def __init__(self, model: ModelProto, cut: FeatureCut) -> None:
        super().__init__()
        part = fold(prefix(model, {cut.onnx.tensor: (1, *cut.onnx.shape)}))
        self._module = OnnxModule(part)
        self._channels_last = takes_channels_last(model)

    def forward(self, pictures: Tensor) -> Tensor:
        arranged = pictures.permute(0, 2, 3, 1).contiguous() if self._channels_last else pictures
        features = self._module(arranged)
        assert isinstance(features, Tensor)
        return features


class Tail(nn.Module):
    """Features [n, channels, side, side] to the answer [n, classes], whatever else the model gives.

    `position` is that of the answer among the outputs.
    """

    def __init__(self, model: ModelProto, cut: FeatureCut, *, position: int) -> None:
        super().__init__()
        graph = extract_tail(model, cut=cut.onnx, wire=cut.wire)
        self._module = OnnxModule(fold(graph))
        self._position = position
        self._together = self._takes_several(cut)

    def forward(self, features: Tensor) -> Tensor:
        arranged = features.permute(0, 2, 3, 1)
        if self._together:
            return self._answer(arranged)
        return torch.cat([self._answer(arranged[at : at + 1]) for at in range(len(arranged))])

    def _answer(self, arranged: Tensor) -> Tensor:
        made = self._module(arranged)
        answer: Tensor = made[self._position] if isinstance(made, tuple) else made
        return answer

    def _takes_several(self, cut: FeatureCut) -> bool:
        """Folding writes sizes down for one item; most graphs do not mind."""
        random = torch.Generator().manual_seed(0)
        two = torch.rand(2, cut.side, cut.side, cut.channels, generator=random)
        with torch.inference_mode():
            one_by_one = torch.cat([self._answer(two[at : at + 1]) for at in range(2)])
            try:
                made = self._answer(two)
            except (RuntimeError, ValueError):
                return False
        return made.shape == one_by_one.shape and torch.allclose(
            made, one_by_one, rtol=_SAME, atol=_SAME * float(one_by_one.abs().max())
        )
