"""A model as it is served: one version of one bundle."""

from dataclasses import dataclass
from functools import cached_property, partial

from ..shared.bundle import Bundle
from ..shared.contract import Contract
from ..shared.manifest import Blob, Precision, Runtime
from .graphs import Graphs
from .scheduler import StageKey
from .stage import Stage


@dataclass(frozen=True)
class ServedModel:
    """The stages of a bundle's large model; their graphs share one mapped file of weights."""

    bundle: Bundle
    stages: tuple[Stage, ...]
    """The whole first, then the tails in the order of the manifest."""
    precision: Precision = Precision.FLOAT32
    runtime: Runtime = Runtime.ONNXRUNTIME
    offloads: bool = False
    """Whether its weights do not fit, so that a part of them is read for every run."""

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        *,
        max_batch: int,
        precision: Precision = Precision.FLOAT32,
        runtime: Runtime | None = None,
        budget_bytes: int | None = None,
    ) -> "ServedModel":
        """The model of a bundle, nothing loaded, with the runtime it was built for unless told.

        BundleError if its weights make no sense, if it was not built in this precision, or if it
        cannot be made to fit into a budget.
        """
        manifest, large = bundle.manifest, bundle.manifest.large
        graphs = Graphs.of(bundle, precision=precision, runtime=runtime, budget_bytes=budget_bytes)

        def stage(cut: str, contract: Contract, graph: Blob) -> Stage:
            return Stage(
                key=StageKey(manifest.name, manifest.version, cut),
                contract=contract,
                output=large.output,
                classes=manifest.classes,
                max_batch=max_batch,
                open=partial(graphs.open, graph),
                inputs=large.inputs,
                outputs=large.outputs,
                shared_bytes=graphs.footprint.shared_bytes,
                own_bytes=graphs.footprint.own_bytes,
            )

        variant = graphs.variant
        tails = (stage(cut.name, cut.contract, variant.tails[cut.name]) for cut in large.cuts)
        stages = (stage("", large.pixels, variant.whole), *tails)
        return cls(bundle, stages, precision, graphs.runtime, graphs.footprint.offload)

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
