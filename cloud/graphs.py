"""The graphs of a bundle's large model in one precision, opened by the runtime that serves them."""

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

from ..shared.bundle import Bundle
from ..shared.errors import BundleError, ConfigError
from ..shared.manifest import Blob, Precision, Runtime, Variant
from ..shared.sizes import written_bytes
from .backend import Backend, OnnxBackend
from .weights import Weights

_TORCH_SHARE = {Precision.FLOAT32: 1.0, Precision.BFLOAT16: 0.5, Precision.INT8: 0.25}
"""Of the bytes of float32 weights, what torch holds of them in memory."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a model takes in memory as far as one knows before it is loaded.

    `shared_bytes` are weights that all its graphs share, `own_bytes` what each adds. Weights that
    `offload` are more than the budget: a part of them is read for every run.
    """

    shared_bytes: int
    own_bytes: int = 0
    offload: bool = False


@dataclass(frozen=True)
class Graphs:
    """The whole and the tails, one mapped file of weights behind all that are open."""

    bundle: Bundle
    variant: Variant
    runtime: Runtime
    footprint: Footprint
    _open: Callable[[bytes], Backend] = field(repr=False)
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
        budget_bytes: int | None = None,
    ) -> "Graphs":
        """Nothing opened yet, by the runtime the bundle was built for unless one is named.

        On CUDA where the runtime finds it, unless `on_cpu`. More float32 weights than the budget
        are torch's, which can read them for every run, unless another runtime is named.

        BundleError if its weights make no sense, if it was not built so or cannot be made to fit;
        ConfigError without torch.
        """
        large = bundle.manifest.large
        variant = large.variant(precision)
        if runtime not in (None, variant.runtime) and precision is not Precision.FLOAT32:
            raise BundleError(
                f"its {precision} was made for and measured with {variant.runtime}; serve it with "
                f"--runtime {variant.runtime}, or in another precision"
            )
        weights = _Shared(
            partial(
                Weights.from_file,
                bundle.file(variant.weights),
                table=bundle.read(variant.weights_index),
            )
        )
        weights.get()  # it makes sense
        runtime, footprint = _fitting(
            runtime, variant, precision=precision, budget_bytes=budget_bytes
        )
        settings = _Settings(
            inputs=tuple(spec.name for spec in large.inputs),
            outputs=tuple(spec.name for spec in large.outputs),
            threads=threads,
            on_cpu=on_cpu,
        )
        origin = _Origin(bundle, precision, runtime, threads, on_cpu, budget_bytes)
        if runtime is Runtime.TORCH:
            opener = _torch(weights, precision, settings, budget_bytes, offload=footprint.offload)
        else:
            opener = _onnx(weights, settings)
        return cls(bundle, variant, runtime, footprint, opener, origin)

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
    budget_bytes: int | None

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
            self.budget_bytes,
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
            budget_bytes=origin.budget_bytes,
        )
    return graphs


def _fitting(
    runtime: Runtime | None,
    variant: Variant,
    *,
    precision: Precision,
    budget_bytes: int | None,
) -> tuple[Runtime, Footprint]:
    """The runtime by which a model fits into a budget, and what it takes there."""
    size = variant.weights.bytes
    # ONNX Runtime lays weights out anew beside those that are mapped.
    by_onnx = Footprint(shared_bytes=size, own_bytes=size)
    taken = by_onnx.shared_bytes + by_onnx.own_bytes
    fits = budget_bytes is None or taken <= budget_bytes
    chosen = runtime or variant.runtime
    if chosen is Runtime.ONNXRUNTIME and runtime is None and precision is Precision.FLOAT32:
        chosen = Runtime.ONNXRUNTIME if fits else Runtime.TORCH
    if chosen is Runtime.ONNXRUNTIME:
        if budget_bytes is not None and size > budget_bytes:
            raise BundleError(
                f"{written_bytes(size)} of weights, and {written_bytes(budget_bytes)} left for "
                "them: ONNX Runtime needs all of them in memory, torch does not (--runtime torch, "
                "in float32); or raise --memory-limit"
            )
        return chosen, by_onnx
    held = int(size * _TORCH_SHARE[precision])
    if budget_bytes is None or held <= budget_bytes:
        return chosen, Footprint(shared_bytes=held)
    if precision is Precision.INT8:
        raise BundleError(
            f"about {written_bytes(held)} of int8 weights, and {written_bytes(budget_bytes)} left "
            "for them: raise --memory-limit, or serve it in float32 or bfloat16"
        )
    return chosen, Footprint(shared_bytes=budget_bytes, offload=True)


_Made = TypeVar("_Made")


class _Shared(Generic[_Made]):
    """Something made for the first who asks for it, and gone with the last who holds it."""

    def __init__(self, make: Callable[[], _Made]) -> None:
        self._make = make
        self._made: Callable[[], _Made | None] = lambda: None
        self._lock = threading.Lock()

    def get(self) -> _Made:
        with self._lock:
            made = self._made()
            if made is None:
                made = self._make()
                self._made = weakref.ref(made)
            return made


@dataclass(frozen=True, kw_only=True)
class _Settings:
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    threads: int
    on_cpu: bool


def _onnx(weights: _Shared[Weights], settings: _Settings) -> Callable[[bytes], Backend]:
    return lambda graph: OnnxBackend(
        graph,
        weights=weights.get(),
        inputs=settings.inputs,
        outputs=settings.outputs,
        threads=settings.threads,
        on_cpu=settings.on_cpu,
    )


def _torch(
    weights: _Shared[Weights],
    precision: Precision,
    settings: _Settings,
    budget_bytes: int | None,
    *,
    offload: bool,
) -> Callable[[bytes], Backend]:
    try:  # with the extra `torch` alone
        from .torch_graph.backend import TorchBackend, torch_weights

        if offload:
            from .torch_graph import offload as _  # noqa: F401
    except ImportError as error:
        fault = BundleError if offload else ConfigError  # the others can be served without it
        raise fault(
            f"{error.name} is not installed, and torch was asked for, is what the bundle was "
            "built for in this precision, or alone can serve weights that do not fit in memory; "
            'pip install "hybridge[cloud,torch]"'
        ) from error
    shared = _Shared(
        lambda: torch_weights(
            weights.get(),
            precision=precision,
            on_cpu=settings.on_cpu,
            budget_bytes=budget_bytes,
        )
    )
    return lambda graph: TorchBackend(
        graph,
        weights=shared.get(),
        inputs=settings.inputs,
        outputs=settings.outputs,
        threads=settings.threads,
    )
