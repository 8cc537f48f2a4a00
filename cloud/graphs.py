"""The graphs of a bundle's large model in one precision, opened by the runtime that serves them."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

from ..shared.bundle import Bundle
from ..shared.errors import BundleError, ConfigError
from ..shared.manifest import Blob, Precision, Runtime, Variant
from .backend import Backend, OnnxBackend
from .weights import Weights

Open = Callable[[bytes], Backend]


@dataclass(frozen=True)
class Graphs:
    """The whole and the tails, one mapped file of weights behind them all."""

    bundle: Bundle
    variant: Variant
    runtime: Runtime
    _open: Open = field(repr=False)
    _origin: "_Origin" = field(repr=False)

    def __reduce__(self) -> "tuple[Callable[[_Origin], Graphs], tuple[_Origin]]":
        """For another process: there they share one mapped file again."""
        return _opened_once, (self._origin,)

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        *,
        precision: Precision = Precision.FLOAT32,
        runtime: Runtime | None = None,
        threads: int = 1,
        on_cpu: bool = False,
    ) -> "Graphs":
        """Nothing opened yet, by the runtime the bundle was built for unless one is named.

        On CUDA where the runtime finds it, unless `on_cpu`.

        BundleError if its weights make no sense or it was not built so; ConfigError without torch.
        """
        large = bundle.manifest.large
        variant = large.variant(precision)
        runtime = runtime or variant.runtime
        if runtime is not variant.runtime and precision is not Precision.FLOAT32:
            raise BundleError(
                f"its {precision} was made for and measured with {variant.runtime}; serve it with "
                f"--runtime {variant.runtime}, or in another precision"
            )
        weights = Weights.from_file(
            bundle.file(variant.weights), table=bundle.read(variant.weights_index)
        )
        settings = _Settings(
            inputs=tuple(spec.name for spec in large.inputs),
            outputs=tuple(spec.name for spec in large.outputs),
            threads=threads,
            on_cpu=on_cpu,
        )
        origin = _Origin(bundle, precision, runtime, threads, on_cpu)
        if runtime is Runtime.TORCH:
            return cls(bundle, variant, runtime, _torch(weights, precision, settings), origin)
        return cls(bundle, variant, runtime, _onnx(weights, settings), origin)

    def open(self, graph: Blob) -> Backend:
        """One of them, ready to run; BundleError if it cannot be."""
        return self._open(self.bundle.read(graph))


@dataclass(frozen=True, slots=True)
class _Origin:
    """What graphs were opened from."""

    bundle: Bundle
    precision: Precision
    runtime: Runtime
    threads: int
    on_cpu: bool

    @property
    def key(self) -> tuple[object, ...]:
        bundle = self.bundle
        return (
            bundle.path,
            bundle.sha256,
            self.precision,
            self.runtime,
            self.threads,
            self.on_cpu,
        )


_elsewhere: "weakref.WeakValueDictionary[tuple[object, ...], Graphs]" = (
    weakref.WeakValueDictionary()
)
"""Graphs that came from another process, as long as a stage of theirs is there."""


def _opened_once(origin: _Origin) -> Graphs:
    if (graphs := _elsewhere.get(origin.key)) is None:
        graphs = _elsewhere[origin.key] = Graphs.of(
            origin.bundle,
            precision=origin.precision,
            runtime=origin.runtime,
            threads=origin.threads,
            on_cpu=origin.on_cpu,
        )
    return graphs


@dataclass(frozen=True, kw_only=True)
class _Settings:
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    threads: int
    on_cpu: bool


def _onnx(weights: Weights, settings: _Settings) -> Open:
    return lambda graph: OnnxBackend(
        graph,
        weights=weights,
        inputs=settings.inputs,
        outputs=settings.outputs,
        threads=settings.threads,
        on_cpu=settings.on_cpu,
    )


def _torch(weights: Weights, precision: Precision, settings: _Settings) -> Open:
    try:
        from .torch_graph.backend import TorchBackend, torch_weights  # with the extra `torch` alone
    except ImportError as error:
        raise ConfigError(
            f"{error.name} is not installed, and torch was asked for or is what the bundle was "
            'built for in this precision; pip install "hybridge[cloud,torch]"'
        ) from error
    shared = torch_weights(weights, precision=precision, on_cpu=settings.on_cpu)
    return lambda graph: TorchBackend(
        graph,
        weights=shared,
        inputs=settings.inputs,
        outputs=settings.outputs,
        threads=settings.threads,
    )
