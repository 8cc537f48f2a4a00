"""Weights of a model that do not all fit in memory: accelerate brings each layer's as it runs.

The hook is accelerate's own (`AlignDevicesHook`): before a layer it puts its weights on the device
that computes, behind it it takes them away. What it asks for them is ours: accelerate would read a
second copy of the model, a file per weight, through the page cache and only when they are needed,
where a bundle already holds all weights in one file, read ahead here while the layer before runs.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import Tensor, nn

from ...shared.errors import BundleError
from ...shared.sizes import written_bytes
from .call import Call
from .operators import Operator
from .placement import place
from .steps import Step
from .stream import Reads, Stream, WeightsFile, group_bytes, made_dtype

_SPARE = 1 / 16
"""Of the budget, for what a graph computes."""


class Offload:
    """The places of a model's weights, and the one stream that brings what is not in memory.

    One run at a time: two would read everything twice, and the disk is what they wait for.
    """

    def __init__(
        self,
        file: WeightsFile,
        sizes: Mapping[str, int],
        *,
        dtype: torch.dtype,
        device: torch.device,
        budget_bytes: int | None,
    ) -> None:
        """For weights of these sizes in memory; BundleError if a single layer does not fit.

        `dtype` is that of floats in memory. Without a budget all are there, but maybe not on the
        device that computes.
        """
        self.file, extents = file, file.extents
        raw = max((extents[name].bytes / max(sizes[name], 1) for name in sizes), default=1.0)
        # What is converted is there twice for a moment: as it was read, and as it is used.
        in_flight = raw + 1 if raw > 1 else 1.0
        enough = sum(sizes.values()) if budget_bytes is None else int(budget_bytes * (1 - _SPARE))
        placement = place(sizes, budget_bytes=enough, in_flight=in_flight)
        self.read = placement.read
        self._moved = frozenset(sizes) - self.read if device.type != "cpu" else frozenset()
        self._beside: dict[str, Tensor] = {}
        self._dtype = dtype
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

    def concerns(self, step: Step) -> bool:
        """Whether any of a step's weights is not where it computes."""
        return any(name in self.read or name in self._moved for name in step.inputs)

    def beside(self, name: str) -> Tensor:
        """A weight that lies in memory, but not on the device."""
        if name not in self._beside:
            dtype = made_dtype(self.file.extents[name], self._dtype)
            self._beside[name] = self.file.read(name).to(dtype)
        return self._beside[name]

    def layer(self, step: Step, dtype: torch.dtype) -> Step:
        """A step to which accelerate brings the weights that are not where it computes."""
        weights = {
            at: name
            for at, name in enumerate(step.inputs)
            if name is not None and (name in self.read or name in self._moved)
        }
        reads = bool(self.reads_of(step))
        module = _Layer(step.operator, step.call, len(step.inputs))
        for at, name in weights.items():
            extent = self.file.extents[name]
            there = torch.empty(extent.shape, dtype=made_dtype(extent, dtype), device="meta")
            module.register_parameter(f"w{at}", nn.Parameter(there, requires_grad=False))
        find = {
            f"w{at}": partial(self._stream.take if name in self.read else self.beside, name)
            for at, name in weights.items()
        }
        arrivals = _Arrivals(find, dtype)
        hook = AlignDevicesHook(execution_device=self._device, offload=True, weights_map=arrivals)
        add_hook_to_module(module, hook)

        def run(call: Call, *given: Tensor | None) -> Tensor | tuple[Tensor, ...]:
            if reads:
                self._stream.arrive()
            made: Tensor | tuple[Tensor, ...] = module(*given)
            if reads:
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

    def __init__(self, find: Mapping[str, Callable[[], Tensor]], dtype: torch.dtype) -> None:
        self._find, self._dtype = find, dtype

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._find[name]()
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._find)

    def __len__(self) -> int:
        return len(self._find)
