"""Torch as a backend: on CUDA where there is one, else on the CPU."""

import statistics
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import torch

from ...shared.errors import BundleError
from ...shared.manifest import Precision
from ...shared.side import Tensors
from ...shared.tensor import Array
from ..backend import Backend, Offloaded, Result, one_by_one, the_other
from ..weights import Weights
from .program import Program
from .stream import WeightsFile, made_bytes
from .weights import GPU_SHARE, TorchWeights, borrowed

_OTHERWISE = "; serve it with --runtime onnxruntime"
_RUNS, _MEASURE_AT_MOST_S = 3, 1.0
_pinned = threading.local()


def torch_weights(
    weights: Weights,
    *,
    precision: Precision,
    on_cpu: bool = False,
    budget_bytes: int | None = None,
) -> TorchWeights:
    """The weights of a model where torch computes with them; int8 is made for CPUs.

    Of more weights than a budget allows a part is read for every run. What one GPU cannot hold is
    spread over all, and what they cannot hold comes from the processor's memory, or from disk.

    BundleError if a single layer does not fit.
    """
    cpu = on_cpu or precision is Precision.INT8 or not torch.cuda.is_available()
    made = TorchWeights(
        weights.arrays, precision=precision, device=torch.device("cpu" if cpu else "cuda")
    )
    if (cpu and budget_bytes is None) or not isinstance(weights.blob, np.memmap):
        return made
    file = WeightsFile.of(weights)
    held = {name: made_bytes(extent, made.dtype) for name, extent in file.extents.items()}
    if not cpu:
        return _on_gpus(made, file, held, budget_bytes=budget_bytes)
    if precision is Precision.INT8 or sum(held.values()) <= (budget_bytes or 0):
        # As they are they stay mapped; what is made of them would be there beside the mapped.
        return made if precision is Precision.FLOAT32 else replace(made, file=file)
    from .offload import Offload  # with accelerate, which takes seconds to load

    offload = Offload(file, held, dtype=made.dtype, device=made.device, budget_bytes=budget_bytes)
    return replace(made, file=file, offload=offload)


def _on_gpus(
    made: TorchWeights, file: WeightsFile, held: dict[str, int], *, budget_bytes: int | None
) -> TorchWeights:
    if sum(held.values()) <= torch.cuda.mem_get_info(made.device)[0] * GPU_SHARE:
        return made if budget_bytes is None else replace(made, file=file)
    from .offload import Offload
    from .sharding import device_map, free_bytes

    homes = {name: torch.device("cuda", at) for name, at in device_map(held, free_bytes()).items()}
    left = {name: size for name, size in held.items() if name not in homes}
    offload = Offload(file, left, dtype=made.dtype, device=made.device, budget_bytes=budget_bytes)
    return replace(made, file=file, homes=homes, offload=offload if left else None)


class TorchBackend(Backend):
    """One graph over weights that it shares with the others of its model."""

    def __init__(
        self,
        graph: bytes,
        *,
        weights: TorchWeights,
        inputs: Iterable[str] = (),
        outputs: Iterable[str] = (),
        threads: int = 1,
    ) -> None:
        """As `OnnxBackend`."""
        try:
            self._weights = weights
            self._program = Program(graph, weights=weights)
        except BundleError as error:
            raise BundleError(f"{error}{_OTHERWISE}") from error
        self._input = the_other(self._program.inputs, inputs, "inputs")
        self._further = tuple(outputs)
        self._answer = the_other(self._program.outputs, self._further, "outputs")
        self._threads = threads
        self._single = self._program.inputs[self._input] == 1
        self.device = weights.device.type

    def offloaded(self, batch: Array, sides: Tensors) -> Offloaded | None:
        offload = self._weights.offload
        if offload is None:
            return None
        fed = self._fed(batch, sides)
        return Offloaded(
            resident_bytes=offload.resident_bytes,
            read_bytes=self._program.read_bytes(len(batch)),
            run_ms=_time_ms(lambda: self._program.run(fed)),
            computing_ms=_time_ms(lambda: self._program.run(fed, dry=True)),
        )

    def run(self, batch: Array, sides: Tensors) -> Result:
        if self._single and len(batch) > 1:
            return one_by_one(self._run, batch, sides)
        return self._run(batch, sides)

    def _run(self, batch: Array, sides: Tensors) -> Result:
        _pin_to(self._threads)
        try:
            made = self._program.run(self._fed(batch, sides))
        except BundleError as error:
            raise BundleError(f"{error}{_OTHERWISE}") from error
        arrays = {name: tensor.contiguous().cpu().numpy() for name, tensor in made.items()}
        return Result(
            np.asarray(arrays[self._answer]), {name: arrays[name] for name in self._further}
        )

    def _fed(self, batch: Array, sides: Tensors) -> dict[str, torch.Tensor]:
        return {name: borrowed(array) for name, array in {self._input: batch, **sides}.items()}


def _time_ms(run: Callable[[], object]) -> float:
    """The median of a few, or what one takes that takes long."""
    times_s: list[float] = []
    while len(times_s) < _RUNS and sum(times_s) < _MEASURE_AT_MOST_S:
        started_s = time.perf_counter()
        run()
        times_s.append(time.perf_counter() - started_s)
    return statistics.median(times_s) * 1e3


def _pin_to(threads: int) -> None:
    """OpenMP counts per calling thread: without this each instance would take every core."""
    if getattr(_pinned, "threads", None) != threads:
        torch.set_num_threads(threads)
        _pinned.threads = threads
