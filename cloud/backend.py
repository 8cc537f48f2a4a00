"""What computes: a graph of a model, ready to run."""

from abc import ABC, abstractmethod
from typing import cast

import numpy as np
import numpy.typing as npt
import onnxruntime

from ..shared.errors import BundleError
from ..shared.tensor import Array
from .weights import SessionSettings, Weights, open_session

Output = npt.NDArray[np.float32]


class Backend(ABC):
    """Runs one graph on batches. Thread-safe: its instances are the threads that call it."""

    device: str

    @abstractmethod
    def run(self, batch: Array) -> Output:
        """The graph's output [n, classes] for n items; raises whatever its runtime raises."""


class OnnxBackend(Backend):
    """ONNX Runtime on CUDA where it reports that, else on the CPU, one thread for each call.

    One session serves all threads. Two sessions gave the same throughput and the same latencies
    as two threads on one (EfficientNet-Lite0, 2 cores: 327 against 328 runs/s, p99 8.3 against
    7.4 ms, one thread alone 181/s) and need their memory twice.
    """

    def __init__(self, graph: bytes, *, weights: Weights) -> None:
        providers = _providers()
        self._session = open_session(
            graph, weights=weights, settings=SessionSettings(providers=providers)
        )
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise BundleError(f"a graph has {len(inputs)} inputs and {len(outputs)} outputs")
        self._input = inputs[0].name
        self._outputs = [outputs[0].name]
        self._one_by_one = inputs[0].shape[0] == 1
        self.device = "cuda" if "CUDAExecutionProvider" in providers else "cpu"

    def run(self, batch: Array) -> Output:
        if self._one_by_one and len(batch) > 1:  # exported with a fixed batch of 1
            return np.concatenate([self._run(batch[at : at + 1]) for at in range(len(batch))])
        return self._run(batch)

    def _run(self, batch: Array) -> Output:
        (output,) = self._session.run(self._outputs, {self._input: batch})
        return cast(Output, output)


def _providers() -> tuple[str, ...]:
    available = onnxruntime.get_available_providers()
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    return tuple(provider for provider in wanted if provider in available)
