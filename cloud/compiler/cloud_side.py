"""The cloud's part of a bundle, run in this process: to measure with, not to serve."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np

from ...devices.models import DeviceModels
from ...devices.profile import StageTime, measure, tail_stage
from ...shared.bundle import Bundle
from ...shared.manifest import Precision, Runtime
from ...shared.plan import Plan
from ...shared.side import Tensors
from ...shared.tensor import Array
from ..backend import Backend
from ..graphs import Graphs
from .progress import Count, counted, uncounted


@dataclass(frozen=True)
class CloudSide:
    """The whole model (under the name "") and the tails by cut, as the cloud will run them."""

    backends: Mapping[str, Backend]

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        *,
        threads: int = 1,
        precision: Precision = Precision.FLOAT32,
        runtime: Runtime | None = None,
    ) -> "CloudSide":
        graphs = Graphs.of(
            bundle, precision=precision, runtime=runtime, threads=threads, on_cpu=True
        )
        blobs = {"": graphs.variant.whole} | graphs.variant.tails
        return cls({name: graphs.open(blob) for name, blob in blobs.items()})

    def run(self, cut: str, tensor: Array, beside: Tensors | None = None) -> Array:
        """The answer [classes] to one decoded tensor of a cut, or pixels for cut "".

        `beside` holds what the model takes beside the picture, [1, ...] each.
        """
        output = self.backends[cut].run(tensor[None], beside or {}).answer
        assert output is not None
        return cast(Array, output[0])

    def answer(self, plan: Plan, tensor: Array, beside: Tensors | None = None) -> int:
        """The class of one decoded tensor."""
        return int(np.argmax(self.run(plan.cut, tensor, beside)))


def measure_cloud(
    bundle: Bundle, picture: Array, *, runs: int = 20, count: Count = uncounted
) -> dict[str, StageTime]:
    """Times the whole model and every tail, in every precision, on one thread of this machine."""
    models, large = DeviceModels(bundle), bundle.manifest.large
    clouds = {each: CloudSide.open(bundle, precision=each) for each in large.precisions}
    pixels = models.resize_large(picture)
    tensors = {"": pixels} | {
        cut.name: models.head(cut.name, Precision.INT8, pixels) for cut in large.cuts
    }
    beside = {spec.name: np.zeros((1, *spec.shape), spec.dtype) for spec in large.inputs}
    return {
        tail_stage(cut, precision): measure(partial(cloud.run, cut, tensor, beside), runs=runs)
        for cut, tensor in counted(tensors.items(), count)
        for precision, cloud in clouds.items()
    }
