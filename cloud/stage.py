"""A stage: one graph of a served model, loaded when it is needed, and what it costs."""

import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from ..shared.answer import Probabilities, to_probabilities
from ..shared.contract import Contract
from ..shared.errors import HybridgeError, ModelFault
from ..shared.manifest import OutputKind
from ..shared.side import Tensors
from ..shared.tensor import DTYPES, Array, TensorSpec
from .backend import Backend
from .cost import Cost
from .scheduler import StageKey

_ONE_RUNS, _FULL_RUNS = 7, 3
_MEASURE_AT_MOST_S = 2.0


@dataclass(frozen=True, slots=True)
class Computed:
    """Probabilities [n, classes], and the model's further outputs [n, ...] by name."""

    probabilities: Probabilities
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
    _backend: Backend | None = field(default=None, init=False)
    _cost: Cost | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    @property
    def loaded(self) -> bool:
        return self._cost is not None

    @property
    def cost(self) -> Cost:
        """As measured when it was loaded."""
        assert self._cost is not None, f"{self.key} is not loaded"
        return self._cost

    @property
    def bounded(self) -> bool:
        """Whether no input can make a run go on and on."""
        return self._backend is not None and self._backend.bounded

    def load(self) -> None:
        """Opens the graph, tries and measures it; blocking; once, however often it is called."""
        with self._lock:
            if self._cost is None:
                self._backend = self.open()
                self._cost = self._measure()

    def close(self) -> None:
        """Lets go of the graph, which takes a while; nothing runs any more."""
        self._backend = None

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which loads it by itself."""
        return {**self.__dict__, "_backend": None, "_cost": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def run(self, batch: Array, sides: Tensors) -> Computed:
        """What the model makes of n inputs; ModelFault if it fails on them."""
        assert self._backend is not None, f"{self.key} is not loaded"
        try:
            result = self._backend.run(batch, sides)
        except HybridgeError:
            raise
        except Exception as error:  # a runtime raises what it likes
            raise ModelFault(f"{self.key}: {_first_line(error)}") from error
        answer = result.answer
        self._check("its answer", answer, (len(batch), self.classes), np.dtype(np.float32))
        if not np.isfinite(answer).all():
            raise ModelFault(f"{self.key} gave numbers that are not finite")
        for spec in self.outputs:
            self._check(spec.name, result.outputs[spec.name], (len(batch), *spec.shape), spec.dtype)
        return Computed(to_probabilities(answer, self.output), result.outputs)

    def _check(
        self, what: str, array: Array, shape: tuple[int, ...], dtype: np.dtype[np.generic]
    ) -> None:
        if array.shape != shape or array.dtype != dtype:
            raise ModelFault(
                f"{self.key} gave {what} as {array.dtype} {list(array.shape)} "
                f"instead of {dtype} {list(shape)}"
            )

    def _measure(self) -> Cost:
        one_ms = self._time_ms(1, _ONE_RUNS)
        full_ms = self._time_ms(self.max_batch, _FULL_RUNS) if self.max_batch > 1 else one_ms
        return Cost.fit(one_ms=one_ms, full_ms=full_ms, full_items=self.max_batch)

    def _time_ms(self, items: int, runs: int) -> float:
        batch = cast(Array, np.zeros((items, *self.contract.shape), DTYPES[self.contract.dtype]))
        sides = {
            spec.name: cast(Array, np.zeros((items, *spec.shape), spec.dtype))
            for spec in self.inputs
        }
        self.run(batch, sides)  # the first run allocates
        times_s: list[float] = []
        while len(times_s) < runs and sum(times_s) < _MEASURE_AT_MOST_S:
            start_s = time.perf_counter()
            self.run(batch, sides)
            times_s.append(time.perf_counter() - start_s)
        return statistics.median(times_s) * 1e3


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
