"""A model as it is served: one version of one bundle."""

from dataclasses import dataclass
from functools import cached_property

from ..shared.bundle import Bundle
from ..shared.contract import Contract
from ..shared.manifest import Blob
from .backend import Backend, OnnxBackend
from .scheduler import StageKey
from .stage import Stage
from .weights import Weights


@dataclass(frozen=True)
class ServedModel:
    """The stages of a bundle's large model; their graphs share one mapped file of weights."""

    bundle: Bundle
    stages: tuple[Stage, ...]
    """The whole first, then the tails in the order of the manifest."""

    @classmethod
    def of(cls, bundle: Bundle, *, max_batch: int) -> "ServedModel":
        """The model of a bundle, nothing loaded; BundleError if its weights make no sense."""
        manifest, large = bundle.manifest, bundle.manifest.large
        weights = Weights.from_file(
            bundle.file(large.weights), table=bundle.read(large.weights_index)
        )

        def stage(cut: str, contract: Contract, graph: Blob) -> Stage:
            def open_graph() -> Backend:
                return OnnxBackend(bundle.read(graph), weights=weights)

            return Stage(
                key=StageKey(manifest.name, manifest.version, cut),
                contract=contract,
                output=large.output,
                classes=manifest.classes,
                max_batch=max_batch,
                open=open_graph,
            )

        tails = (stage(cut.name, cut.contract, cut.tail) for cut in large.cuts)
        return cls(bundle, (stage("", large.pixels, large.whole), *tails))

    @property
    def name(self) -> str:
        return self.bundle.manifest.name

    @property
    def version(self) -> str:
        return self.bundle.manifest.version

    @property
    def whole(self) -> Stage:
        return self.stages[0]

    @property
    def size_px(self) -> int:
        return self.whole.contract.shape[0]

    @cached_property
    def by_contract(self) -> dict[bytes, Stage]:
        return {stage.contract.digest: stage for stage in self.stages}
