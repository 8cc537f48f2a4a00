"""The cloud's part of a bundle, run in this process: to measure with, not to serve."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from ...devices.models import DeviceModels
from ...devices.profile import StageTime, measure, tail_stage
from ...shared.bundle import Bundle
from ...shared.manifest import Precision
from ...shared.plan import Plan
from ...shared.tensor import Array
from ..weights import SessionSettings, SharedSession, Weights


@dataclass(frozen=True)
class CloudSide:
    """The whole model (under the name "") and the tails by cut, as the cloud will run them."""

    sessions: Mapping[str, SharedSession]

    @classmethod
    def open(cls, bundle: Bundle, *, threads: int = 1) -> "CloudSide":
        large = bundle.manifest.large
        weights = Weights.from_file(
            bundle.file(large.weights), table=bundle.read(large.weights_index)
        )
        graphs = {"": large.whole} | {cut.name: cut.tail for cut in large.cuts}
        settings = SessionSettings(threads=threads)
        return cls(
            {
                name: SharedSession(bundle.read(blob), weights=weights, settings=settings)
                for name, blob in graphs.items()
            }
        )

    def run(self, cut: str, tensor: Array) -> Array:
        """The last tensor [classes] for one decoded tensor of a cut, or pixels for cut ""."""
        session = self.sessions[cut]
        (name,) = (value.name for value in session.get_inputs())
        output: Array = session.run(None, {name: tensor[None]})[0][0]
        return output

    def answer(self, plan: Plan, tensor: Array) -> int:
        """The class of one decoded tensor."""
        return int(np.argmax(self.run(plan.cut, tensor)))


def measure_cloud(bundle: Bundle, picture: Array, *, runs: int = 20) -> dict[str, StageTime]:
    """Times the whole model and every tail on one thread of this machine."""
    models, cloud = DeviceModels(bundle), CloudSide.open(bundle)
    pixels = models.resize_large(picture)
    tensors = {"": pixels} | {
        cut.name: models.head(cut.name, Precision.INT8, pixels)
        for cut in bundle.manifest.large.cuts
    }
    return {
        tail_stage(cut): measure(partial(cloud.run, cut, tensor), runs=runs)
        for cut, tensor in tensors.items()
    }
