"""A stage: one graph of a served model, loaded when it is needed, and what it costs."""

import math
import statistics
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
import numpy as np

from ..shared.answer import Probabilities, to_probabilities
from ..shared.contract import Contract
from ..shared.errors import HybridgeError, ModelFault
from ..shared.manifest import OutputKind
from ..shared.side import Tensors
from ..shared.tensor import DTYPES, Array, TensorSpec
from .backend import Backend, Offloaded, Result
from .cost import Cost
from .job import StageKey

_RUNS = 5
_MEASURE_AT_MOST_S = 2.0


class Computed(msgspec.Struct, frozen=True, eq=False):
    """Probabilities [n, classes] of a classifier, and all further outputs [n, ...] by name."""

    probabilities: Probabilities | None
    outputs: Tensors


@dataclass(kw_only=True, eq=False)
class Stage:
    """The whole large model (`key.cut` empty) or the tail behind one cut.

    `inputs` and `outputs` are those beside the tensor of the cut and beside the answer.
    """

    key: StageKey
    contract: Contract
    output: OutputKind
    classes: int
    max_batch: int
    open: Callable[[], Backend] = field(repr=False)
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    shared_bytes: int = 0
    """The weights that all graphs of its model share in memory."""
    own_bytes: int = 0
    """What it takes beside them, as far as one knows before it is loaded."""
    reads_weights: bool = False
    """Whether they do not fit, so that a part of them is read for every run."""
    load_ms: float = field(default=0.0, init=False)
    """How long its last load took until it could run, without what was measured after that."""
    offloaded: Offloaded | None = field(default=None, init=False)
    """What reading weights costs, once it was loaded, where they do not fit in memory."""
    _backend: Backend | None = field(default=None, init=False)
    _cost: Cost | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    @property
    def loaded(self) -> bool:
        return self._backend is not None and self._cost is not None

    @property
    def ready(self) -> bool:
        """Whether its backend can answer, as far as is known without asking it."""
        return self._backend is None or self._backend.ready

    @property
    def cost(self) -> Cost:
        """As measured when it was first loaded."""
        assert self._cost is not None, f"{self.key} was never loaded"
        return self._cost

    @property
    def known_cost(self) -> Cost | None:
        """The same; None before it was ever loaded."""
        return self._cost

    @property
    def bounded(self) -> bool:
        """Whether no input can make a run go on and on."""
        return self._backend is not None and self._backend.bounded

    def load(self) -> None:
        """Opens the graph, tries it, and measures it the first time; blocking; once until `unload`.

        ModelFault or BundleError if it cannot be.
        """
        with self._lock:
            if self.loaded:
                return
            started_s = time.perf_counter()
            self._backend = self.open()
            try:
                self.run(*self._zeros(1))  # the first run allocates
                self.load_ms = (time.perf_counter() - started_s) * 1e3
                if self._cost is None:
                    self._cost = self._measure()
            except BaseException:
                self._backend = None
                raise

    def unload(self) -> None:
        """Lets go of the graph, which takes a while; a run that nobody waits for ends or fails."""
        with self._lock:
            backend, self._backend = self._backend, None
            if backend is not None:
                backend.close()

    def fits(self, batch: Array, *, items: int) -> bool:
        """Whether an array is n inputs of this stage."""
        return batch.shape == (items, *self.contract.shape)

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which loads it by itself."""
        return {**self.__dict__, "_backend": None, "_cost": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def run(self, batch: Array, sides: Tensors) -> Computed:
        """What the model makes of n inputs; ModelFault if it fails on them."""
        result = self._result(batch, sides)
        answer = result.answer
        assert answer is not None, f"{self.key} is no classifier"
        self._check("its answer", answer, (len(batch), self.classes), np.dtype(np.float32))
        if not np.isfinite(answer).all():
            raise ModelFault(f"{self.key} gave numbers that are not finite")
        for spec in self.outputs:
            self._check(spec.name, result.outputs[spec.name], (len(batch), *spec.shape), spec.dtype)
        return Computed(to_probabilities(answer, self.output), result.outputs)

    def _result(self, batch: Array, sides: Tensors) -> Result:
        assert self._backend is not None, f"{self.key} is not loaded"
        try:
            return self._backend.run(batch, sides)
        except HybridgeError:
            raise
        except Exception as error:  # a runtime raises what it likes
            raise ModelFault(f"{self.key}: {_first_line(error)}") from error

    def _check(
        self, what: str, array: Array, shape: tuple[int, ...], dtype: np.dtype[np.generic]
    ) -> None:
        if array.shape != shape or array.dtype != dtype:
            raise ModelFault(
                f"{self.key} gave {what} as {array.dtype} {list(array.shape)} "
                f"instead of {dtype} {list(shape)}"
            )

    @property
    def _measured_items(self) -> int:
        """The largest batch that is measured; of others the cost is reckoned from it."""
        return self.max_batch

    def _measure(self) -> Cost:
        sizes = {1, self._measured_items}
        if self.bounded and self._measured_items > 1:
            sizes.add(2)  # a run that may go on and on is nobody's company
        took_ms = self._times_ms(sizes)
        assert self._backend is not None
        self.offloaded = self._backend.offloaded(*self._zeros(1))
        return Cost.fit(
            one_ms=took_ms[1],
            two_ms=took_ms.get(2, math.inf),
            full_ms=took_ms[self._measured_items],
            full_items=self._measured_items,
        )

    def _times_ms(self, sizes: Iterable[int]) -> dict[int, float]:
        """What runs of each size take, medians; in turns, so that a slow spell is in all."""
        inputs = {items: self._zeros(items) for items in sorted(sizes)}
        for items, (batch, sides) in inputs.items():
            if items > 1:
                self.run(batch, sides)  # the first run allocates
        clock = self._clock()
        times_s: dict[int, list[float]] = {items: [] for items in inputs}
        while len(times_s[1]) < _RUNS and sum(map(sum, times_s.values())) < _MEASURE_AT_MOST_S:
            for items, (batch, sides) in inputs.items():
                start_s = clock()
                self.run(batch, sides)
                times_s[items].append(clock() - start_s)
        return {items: statistics.median(each_s) * 1e3 for items, each_s in times_s.items()}

    def _clock(self) -> Callable[[], float]:
        """A version is measured behind running traffic, which is no part of what it costs."""
        assert self._backend is not None
        waits = self._backend.device != "cpu" or self.reads_weights
        return time.perf_counter if waits else time.thread_time

    def _zeros(self, items: int) -> tuple[Array, Tensors]:
        batch = cast(Array, np.zeros((items, *self.contract.shape), DTYPES[self.contract.dtype]))
        return batch, {
            spec.name: cast(Array, np.zeros((items, *spec.shape), spec.dtype))
            for spec in self.inputs
        }


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
