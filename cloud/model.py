"""A model as it is served: one version of one bundle."""

from dataclasses import dataclass
from functools import cached_property

from ..shared.bundle import Bundle
from ..shared.contract import Contract
from ..shared.manifest import Blob, Precision
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
    precision: Precision = Precision.FLOAT32

    @classmethod
    def of(
        cls, bundle: Bundle, *, max_batch: int, precision: Precision = Precision.FLOAT32
    ) -> "ServedModel":
        """The model of a bundle, nothing loaded.

        BundleError if its weights make no sense, or if it was not built in this precision.
        """
        manifest, large = bundle.manifest, bundle.manifest.large
        graphs = large.variant(precision)
        weights = Weights.from_file(
            bundle.file(graphs.weights), table=bundle.read(graphs.weights_index)
        )

        def stage(cut: str, contract: Contract, graph: Blob) -> Stage:
            def open_graph() -> Backend:
                return OnnxBackend(
                    bundle.read(graph),
                    weights=weights,
                    inputs=[spec.name for spec in large.inputs],
                    outputs=[spec.name for spec in large.outputs],
                )

            return Stage(
                key=StageKey(manifest.name, manifest.version, cut),
                contract=contract,
                output=large.output,
                classes=manifest.classes,
                max_batch=max_batch,
                open=open_graph,
                inputs=large.inputs,
                outputs=large.outputs,
            )

        tails = (stage(cut.name, cut.contract, graphs.tails[cut.name]) for cut in large.cuts)
        return cls(bundle, (stage("", large.pixels, graphs.whole), *tails), precision)

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
