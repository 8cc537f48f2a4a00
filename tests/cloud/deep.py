"""A tiny model with a deep middle: layers of 2.25 MiB, so that it may be larger than its memory."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, helper, numpy_helper

from .bundles import CHANNELS, CLASSES, GRID, TinyModel

WIDTH = 768
LAYER_BYTES = WIDTH * WIDTH * 4


@dataclass(frozen=True)
class DeepModel(TinyModel):
    """As the tiny one up to its features, then `layers` products of WIDTH x WIDTH with a relu."""

    layers: int = 8

    def graphs(self) -> dict[str, ModelProto]:
        return {name: self._deepened(model) for name, model in super().graphs().items()}

    def weights(self) -> dict[str, npt.NDArray[np.float32]]:
        rng = np.random.default_rng(self.seed + 1)

        def matrix(rows: int, columns: int) -> npt.NDArray[np.float32]:
            return (rng.normal(size=(rows, columns)) * (2 / rows) ** 0.5).astype(np.float32)

        middle = {f"layer{at}": matrix(WIDTH, WIDTH) for at in range(self.layers)}
        return (
            {"enter": matrix(CHANNELS * GRID * GRID, WIDTH)}
            | middle
            | {"leave": matrix(WIDTH, CLASSES)}
        )

    def _deepened(self, model: ModelProto) -> ModelProto:
        graph = model.graph
        product = graph.node.pop()
        assert product.input[1] == "matrix"
        kept = [each for each in graph.initializer if each.name != "matrix"]
        del graph.initializer[:]
        value = product.input[0]
        for name, array in self.weights().items():
            kept.append(numpy_helper.from_array(array, name))
            made = "logits" if name == "leave" else f"{name}/product"
            graph.node.append(helper.make_node("MatMul", [value, name], [made]))
            value = f"{name}/relu"
            if name != "leave":
                graph.node.append(helper.make_node("Relu", [made], [value]))
        graph.initializer.extend(kept)
        return model
