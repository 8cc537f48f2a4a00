"""What computes: a graph of a model, ready to run."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import msgspec
import numpy as np
import numpy.typing as npt
import onnxruntime

from ..shared.errors import BundleError
from ..shared.side import Tensors, items_of, joined
from ..shared.tensor import Array
from .leash import may_loop, run_leashed
from .weights import SessionSettings, Weights, open_session

_CPU = "CPUExecutionProvider"

Output = npt.NDArray[np.float32]


class Result(msgspec.Struct, frozen=True, eq=False):
    """A classifier's answer [n, classes], and all further outputs by name."""

    answer: Output | None
    outputs: Tensors = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Offloaded:
    """Weights that do not fit: what stays in memory, and what is read again for every run.

    `computing_ms` is what a run takes that reads nothing and computes with whatever weights lie in
    its buffers: as long as if all were in memory.
    """

    resident_bytes: int
    read_bytes: int
    run_ms: float
    computing_ms: float

    @property
    def slowdown(self) -> float:
        return self.run_ms / self.computing_ms


class Backend(ABC):
    """Runs one graph on batches. Thread-safe: its instances are the threads that call it."""

    device: str
    bounded = False
    """Whether every input of a size takes about as long: nothing in the graph can go on and on."""

    @property
    def ready(self) -> bool:
        """Whether it can answer, as far as is known without asking it."""
        return True

    def close(self) -> None:  # noqa: B027  most hold nothing else
        """Lets go of what it holds beside memory; nothing runs any more."""

    def offloaded(self, batch: Array, sides: Tensors) -> Offloaded | None:
        """What reading weights costs a run of this batch; None where all are in memory."""
        return None

    @abstractmethod
    def run(self, batch: Array, sides: Tensors) -> Result:
        """What the graph makes of n items and of what came beside them.

        Raises whatever its runtime raises.
        """


def one_by_one(run: Callable[[Array, Tensors], Result], batch: Array, sides: Tensors) -> Result:
    """For a graph that was exported with a fixed batch of 1."""
    singles = [run(batch[at : at + 1], items_of(sides, at, at + 1)) for at in range(len(batch))]
    answer = np.concatenate([cast(Output, single.answer) for single in singles])
    return Result(answer, joined([single.outputs for single in singles]))


class OnnxBackend(Backend):
    """ONNX Runtime on CUDA where it reports that, else on the CPU, one thread for each call.

    One session serves all threads. Two sessions gave the same throughput and the same latencies
    as two threads on one (EfficientNet-Lite0, 2 cores: 327 against 328 runs/s, p99 8.3 against
    7.4 ms, one thread alone 181/s) and need their memory twice.
    """

    def __init__(
        self,
        graph: bytes,
        *,
        weights: Weights,
        inputs: Iterable[str] = (),
        outputs: Iterable[str] = (),
        threads: int = 1,
        on_cpu: bool = False,
    ) -> None:
        """`inputs` come beside the tensor of the cut or the pixels, `outputs` beside the answer."""
        providers = (_CPU,) if on_cpu else _providers()
        self._session = open_session(
            graph, weights=weights, settings=SessionSettings(threads=threads, providers=providers)
        )
        taken = {value.name: value.shape for value in self._session.get_inputs()}
        given = [value.name for value in self._session.get_outputs()]
        self._input = the_other(taken, inputs, "inputs")
        self._further = tuple(outputs)
        self._outputs = [the_other(given, self._further, "outputs"), *self._further]
        self._single = taken[self._input][0] == 1
        self.device = "cuda" if "CUDAExecutionProvider" in providers else "cpu"
        self._loops = may_loop(graph)
        self.bounded = self.device == "cpu" and not self._loops

    def run(self, batch: Array, sides: Tensors) -> Result:
        if self._single and len(batch) > 1:
            return one_by_one(self._run, batch, sides)
        return self._run(batch, sides)

    def _run(self, batch: Array, sides: Tensors) -> Result:
        fed = {self._input: batch, **sides}
        if self._loops:
            answer, *further = run_leashed(self._session, self._outputs, fed)
        else:
            answer, *further = self._session.run(self._outputs, fed)
        return Result(cast(Output, answer), dict(zip(self._further, further, strict=True)))


def the_other(there: Iterable[str], known: Iterable[str], kind: str) -> str:
    """The one name of a graph that the manifest leaves unnamed."""
    names, expected = list(there), set(known)
    others = [name for name in names if name not in expected]
    if len(others) != 1 or len(names) != len(expected) + 1:
        raise BundleError(f"a graph has the {kind} {names}, its manifest names {sorted(expected)}")
    return others[0]


def _providers() -> tuple[str, ...]:
    available = onnxruntime.get_available_providers()
    wanted = ("CUDAExecutionProvider", _CPU)
    return tuple(provider for provider in wanted if provider in available)
