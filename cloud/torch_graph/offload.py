"""Weights of a model that do not all fit in memory: accelerate brings each layer's as it runs.

The hook is accelerate's own (`AlignDevicesHook`): before a layer it puts its weights on the device
that computes, behind it it takes them away. What it asks for them is ours: accelerate would read a
second copy of the model, a file per weight, through the page cache and only when they are needed,
where a bundle already holds all weights in one file, read ahead here while the layer before runs.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import Tensor, nn

from ...shared.errors import BundleError
from ...shared.sizes import written_bytes
from .call import Call
from .operators import Operator
from .placement import place
from .steps import Step
from .stream import Reads, Stream, WeightsFile, group_bytes, made_bytes, made_dtype

_SPARE = 1 / 16
"""Of the budget, for what a graph computes."""


class Offload:
    """The places of a model's weights, and the one stream that brings what is not in memory.

    One run at a time: two would read everything twice, and the disk is what they wait for.
    """

    def __init__(
        self,
        file: WeightsFile,
        *,
        dtype: torch.dtype,
        device: torch.device,
        budget_bytes: int,
    ) -> None:
        """BundleError if a single layer does not fit. `dtype` is that of floats in memory."""
        self.file, extents = file, file.extents
        sizes = {name: made_bytes(extent, dtype) for name, extent in extents.items()}
        raw = max((extents[name].bytes / max(sizes[name], 1) for name in sizes), default=1.0)
        # What is converted is there twice for a moment: as it was read, and as it is used.
        in_flight = raw + 1 if raw > 1 else 1.0
        placement = place(sizes, budget_bytes=int(budget_bytes * (1 - _SPARE)), in_flight=in_flight)
        self.read = placement.read
        self.resident_bytes = sum(size for name, size in sizes.items() if name not in self.read)
        self._device = device
        self._buffer_bytes = max((extents[name].bytes for name in self.read), default=0)
        self._stream = Stream(self.file, buffer_bytes=self._buffer_bytes, buffers=placement.buffers)
        self._lock = threading.Lock()

    def reads_of(self, step: Step) -> tuple[str, ...]:
        """Which of a step's inputs are not in memory; BundleError if they are too much at once."""
        names = tuple(dict.fromkeys(name for name in step.inputs if name in self.read))
        asked = group_bytes(names, self.file.extents)
        if asked > self._buffer_bytes and len(names) > 1:
            raise BundleError(
                f"one layer ({step.call.tensor!r}) needs {written_bytes(asked)} of weights at "
                "once: raise --memory-limit"
            )
        return names

    def layer(self, step: Step, dtype: torch.dtype) -> Step:
        """A step that gets the weights that are read from the stream."""
        weights = {at: name for at, name in enumerate(step.inputs) if name in self.read}
        module = _Layer(step.operator, step.call, len(step.inputs))
        for at, name in weights.items():
            extent = self.file.extents[name]
            there = torch.empty(extent.shape, dtype=made_dtype(extent, dtype), device="meta")
            module.register_parameter(f"w{at}", nn.Parameter(there, requires_grad=False))
        arrivals = _Arrivals(self._stream, {f"w{at}": name for at, name in weights.items()}, dtype)
        hook = AlignDevicesHook(execution_device=self._device, offload=True, weights_map=arrivals)
        add_hook_to_module(module, hook)

        def run(call: Call, *given: Tensor | None) -> Tensor | tuple[Tensor, ...]:
            self._stream.arrive()
            made: Tensor | tuple[Tensor, ...] = module(*given)
            self._stream.leave()
            return made

        given = tuple(name for at, name in enumerate(step.inputs) if at not in weights)
        return Step(Operator(run), step.call, given, step.outputs, step.dead)

    @contextmanager
    def run(self, reads: Reads, *, dry: bool = False) -> Iterator[None]:
        """Brings these weights, group by group, to the layers that run in a block."""
        with self._lock, self._stream.run(reads, dry=dry):
            yield

    def read_bytes(self, reads: Reads) -> int:
        return sum(self.file.extents[name].bytes for group in reads for name in group)


class _Layer(nn.Module):
    """A step as accelerate knows layers: its weights are parameters, which come and go."""

    def __init__(self, operator: Operator, call: Call, inputs: int) -> None:
        super().__init__()
        self._operator, self._call, self._inputs = operator, call, inputs

    def forward(self, *given: Tensor | None) -> Tensor | tuple[Tensor, ...]:
        others = iter(given)
        weights = self._parameters
        inputs = [
            weights[f"w{at}"] if f"w{at}" in weights else next(others) for at in range(self._inputs)
        ]
        return self._operator.run(self._call, *inputs)


class _Arrivals(Mapping[str, Tensor]):
    """What a layer's hook asks for its weights, by their names there."""

    def __init__(self, stream: Stream, names: Mapping[str, str], dtype: torch.dtype) -> None:
        self._stream, self._names, self._dtype = stream, names, dtype

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._stream.take(self._names[name])
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
