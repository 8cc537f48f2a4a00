"""A model as it is served: one version of it."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Protocol

from ..protos import model_config_pb2 as pb
from ..shared import oip
from ..shared.bundle import Bundle
from ..shared.contract import Contract
from ..shared.errors import TensorError
from ..shared.manifest import Blob, Large, Precision, Runtime
from ..shared.security import MAX_MESSAGE_BYTES
from ..shared.side import wanted_outputs
from ..shared.tensor import Array, TensorSpec
from .backend import Backend
from .graphs import Graphs
from .job import StageKey
from .priorities import Priorities
from .stage import Stage
from .work import Answer

_PLATFORMS = {Runtime.ONNXRUNTIME: "onnxruntime_onnx", Runtime.TORCH: "pytorch_libtorch"}
"""As Triton calls them."""


@dataclass(frozen=True, slots=True)
class Told:
    """A tensor as metadata has it; -1 stands for a size that varies."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class OpenRemote(Protocol):
    """Connects to what computes the whole of a large model elsewhere."""

    def __call__(self, large: Large, *, max_batch: int) -> Backend: ...


class Model(ABC):
    """What requests, reports and those who load and unload need to know of any model."""

    stages: tuple[Stage, ...]
    """The whole first, then the tails if it has any."""
    precision: Precision
    offloads: bool = False
    """Whether its weights do not fit, so that a part of them is read for every run."""

    @property
    @abstractmethod
    def name(self) -> str: ...

    @property
    @abstractmethod
    def version(self) -> str: ...

    @property
    @abstractmethod
    def platform(self) -> str:
        """What runs it, in Triton's words."""

    @property
    @abstractmethod
    def default_budget_ms(self) -> float: ...

    @property
    def priorities(self) -> Priorities:
        return Priorities()

    @property
    @abstractmethod
    def labels(self) -> tuple[str, ...]: ...

    @property
    @abstractmethod
    def takes(self) -> tuple[Told, ...]: ...

    @property
    @abstractmethod
    def gives(self) -> tuple[Told, ...]: ...

    @property
    @abstractmethod
    def by_contract(self) -> Mapping[bytes, Stage]:
        """The stages that go on from what an edge sends."""

    @property
    @abstractmethod
    def config(self) -> pb.ModelConfig:
        """How it is set up, in Triton's words."""

    @abstractmethod
    def wanted(self, requested: Sequence[oip.RequestedOutput]) -> tuple[str, ...]:
        """The outputs that a request wants of those that not every response has.

        TensorError if there is none of that name.
        """

    @abstractmethod
    def answered(self, answer: Answer, *, wanted: Iterable[str]) -> dict[str, Array]:
        """The outputs of a response; TensorError for more than a message holds."""

    @property
    def whole(self) -> Stage:
        return self.stages[0]

    @property
    def ready(self) -> bool:
        """Whether it can answer, as far as is known without asking it."""
        return self.whole.ready


@dataclass(frozen=True)
class ServedModel(Model):
    """The stages of a bundle's large model; their graphs share one mapped file of weights."""

    bundle: Bundle
    stages: tuple[Stage, ...]
    precision: Precision = Precision.FLOAT32
    runtime: Runtime = Runtime.ONNXRUNTIME
    offloads: bool = False

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        *,
        max_batch: int,
        precision: Precision = Precision.FLOAT32,
        runtime: Runtime | None = None,
        revision: int = 0,
        remote: OpenRemote | None = None,
        budget_bytes: int | None = None,
    ) -> "ServedModel":
        """The model of a bundle, nothing loaded, with the runtime it was built for unless told.

        With `remote` the whole is computed elsewhere. BundleError if the weights make no sense, if
        it was not built in this precision, or if it cannot be made to fit into a budget.
        """
        manifest, large = bundle.manifest, bundle.manifest.large
        graphs = Graphs.of(bundle, precision=precision, runtime=runtime, budget_bytes=budget_bytes)

        def stage(cut: str, contract: Contract, graph: Blob) -> Stage:
            return Stage(
                key=StageKey(manifest.name, manifest.version, cut, revision),
                contract=contract,
                output=large.output,
                classes=manifest.classes,
                max_batch=max_batch,
                open=partial(graphs.open, graph),
                inputs=large.inputs,
                outputs=large.outputs,
                reads_weights=graphs.footprint.offload,
                shared_bytes=graphs.footprint.shared_bytes,
                own_bytes=graphs.footprint.own_bytes,
            )

        variant = graphs.variant
        tails = (stage(cut.name, cut.contract, variant.tails[cut.name]) for cut in large.cuts)
        whole = stage("", large.pixels, variant.whole)
        if remote is not None:
            whole.open = partial(remote, large, max_batch=max_batch)
        stages = (whole, *tails)
        return cls(bundle, stages, precision, graphs.runtime, graphs.footprint.offload)

    @property
    def name(self) -> str:
        return self.bundle.manifest.name

    @property
    def version(self) -> str:
        return self.bundle.manifest.version

    @property
    def platform(self) -> str:
        return _PLATFORMS[self.runtime]

    @property
    def default_budget_ms(self) -> float:
        return self.bundle.manifest.default_budget_ms

    @property
    def labels(self) -> tuple[str, ...]:
        return self.bundle.labels

    @property
    def takes(self) -> tuple[Told, ...]:
        contract = self.whole.contract
        pixels = Told(oip.PIXELS, contract.dtype, (-1, *contract.shape))
        return (pixels, *(_beside(spec) for spec in self.whole.inputs))

    @property
    def gives(self) -> tuple[Told, ...]:
        answer = Told(oip.PROBABILITIES, "FP32", (-1, self.bundle.manifest.classes))
        return (answer, *(_beside(spec) for spec in self.whole.outputs))

    @property
    def config(self) -> pb.ModelConfig:
        return pb.ModelConfig(
            name=self.name,
            platform=self.platform,
            backend=str(self.runtime),
            max_batch_size=self.whole.max_batch,
            version_policy=pb.ModelVersionPolicy(all=pb.ModelVersionPolicy.All()),
            dynamic_batching=pb.ModelDynamicBatching(
                priority_levels=self.priorities.levels,
                default_priority_level=self.priorities.default,
            ),
            input=[
                pb.ModelInput(name=each.name, data_type=_type(each), dims=each.shape[1:])
                for each in self.takes
            ],
            output=[
                pb.ModelOutput(name=each.name, data_type=_type(each), dims=each.shape[1:])
                for each in self.gives
            ],
        )

    def wanted(self, requested: Sequence[oip.RequestedOutput]) -> tuple[str, ...]:
        return wanted_outputs(requested, own=(oip.PROBABILITIES,), specs=self.whole.outputs)

    def answered(self, answer: Answer, *, wanted: Iterable[str]) -> dict[str, Array]:
        assert answer.probabilities is not None
        beside = {name: answer.outputs[name] for name in wanted}
        return sendable({oip.PROBABILITIES: answer.probabilities, **beside})

    @property
    def size_px(self) -> int:
        return self.whole.contract.shape[0]

    @cached_property
    def by_contract(self) -> dict[bytes, Stage]:
        return {stage.contract.digest: stage for stage in self.stages}


def sendable(outputs: dict[str, Array]) -> dict[str, Array]:
    """The same; TensorError if no message holds them."""
    size_bytes = sum(array.nbytes for array in outputs.values())
    if size_bytes > MAX_MESSAGE_BYTES:
        raise TensorError(
            f"the answer takes {size_bytes} bytes, and a message holds {MAX_MESSAGE_BYTES}; "
            "send fewer items, or name the outputs that are wanted"
        )
    return outputs


def _beside(spec: TensorSpec) -> Told:
    return Told(spec.name, spec.datatype, (-1, *spec.shape))


def _type(told: Told) -> pb.DataType.ValueType:
    return pb.DataType.Value(f"TYPE_{told.datatype}")
