"""How far two pictures are apart in the early features of the bundle's own large model.

After LPIPS (Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric",
CVPR 2018), of which it is the unweighted form: features of unit length at each place, the squared
distance between the two, the mean over places and layers. LPIPS proper has a net of its own and
weights learned from people's judgements; its figures and ours are not comparable.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch.nn import functional

from ...shared.bundle import Bundle
from ...shared.manifest import CutRecord
from ..compiler.onnx_fold import prefix
from ..weights import SessionSettings, Weights, open_session

_LAYERS = 3
_TINY = 1e-10

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Layer:
    """A tensor of the large model's graph, a map per picture."""

    tensor: str
    side: int


class FeatureDistance:
    """Distances under one bundle's model."""

    def __init__(self, bundle: Bundle, layers: tuple[Layer, ...], *, threads: int = 1) -> None:
        large = bundle.manifest.large
        whole = onnx.load_model_from_string(bundle.read(large.whole))
        graph = prefix(whole, {layer.tensor: () for layer in layers})
        for output in graph.graph.output:
            output.type.tensor_type.ClearField("shape")
        self.layers = layers
        self._session = open_session(
            graph.SerializeToString(),
            weights=Weights.from_file(
                bundle.file(large.weights), table=bundle.read(large.weights_index)
            ),
            settings=SessionSettings(threads=threads),
        )
        self._input = graph.graph.input[0].name
        self._size_px = large.preprocessing.spec.size_px

    def __call__(self, pictures: torch.Tensor, others: torch.Tensor) -> Floats:
        """Float [n, 3, s, s] in 0..1 of any size, both the same: a distance each, float32 [n]."""
        return self.between(self.features(pictures), self.features(others))

    def between(self, some: Sequence[Floats], others: Sequence[Floats]) -> Floats:
        """The distances of pictures of which there are the features, float32 [n]."""
        pairs = zip(some, others, strict=True)
        by_layer = [((one - other) ** 2).sum(1).mean((1, 2)) for one, other in pairs]
        distances: Floats = np.mean(by_layer, axis=0, dtype=np.float32)
        return distances

    def features(self, pictures: torch.Tensor) -> list[Floats]:
        """Of each layer, unit vectors [n, c, h, w]."""
        size = (self._size_px, self._size_px)
        enlarged = functional.interpolate(pictures, size, mode="bilinear", align_corners=False)
        pixels = (255 * enlarged).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
        made = self._session.run(
            [layer.tensor for layer in self.layers], {self._input: pixels.contiguous().numpy()}
        )
        return [_unit(maps) for maps in made]


def early_layers(bundle: Bundle) -> tuple[Layer, ...]:
    """The last recorded cut at each of the three finest grids; empty where none was recorded."""
    known = _tensors(bundle)
    found: dict[int, Layer] = {}
    for record in sorted(bundle.manifest.build.cuts, key=lambda record: record.work):
        layer = _layer(record)
        if layer is not None and layer.tensor in known:
            found[layer.side] = layer
    return tuple(found[side] for side in sorted(found, reverse=True)[:_LAYERS])


def _layer(record: CutRecord) -> Layer | None:
    """A cut of one square map, whether its record has the channels first or last."""
    if len(record.tensors) != 1 or len(record.shapes[0]) != 3:
        return None
    first, second, third = record.shapes[0]
    side = first if first == second else third if second == third else 1
    return Layer(record.tensors[0], side) if side > 1 else None


def _tensors(bundle: Bundle) -> set[str]:
    graph = onnx.load_model_from_string(bundle.read(bundle.manifest.large.whole)).graph
    return {name for node in graph.node for name in node.output}


def _unit(maps: Floats) -> Floats:
    """Channels first, whatever the graph has, and of unit length at each place."""
    first = maps if maps.shape[2] == maps.shape[3] else maps.transpose(0, 3, 1, 2)
    unit: Floats = first / np.sqrt((first**2).sum(1, keepdims=True) + _TINY)
    return unit
