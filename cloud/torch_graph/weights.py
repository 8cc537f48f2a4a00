"""The weights of all graphs of a model as torch tensors: one dictionary, in memory once."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ...shared.manifest import Precision
from ...shared.tensor import Array

if TYPE_CHECKING:
    from .offload import Offload  # with accelerate, which only who needs it loads
    from .stream import WeightsFile

GPU_SHARE = 0.9
"""Of a GPU's free memory, for weights; the rest is for what a graph computes."""

_LEVELS = 127
_LEAST = 1e-12


@dataclass(frozen=True)
class Int8Matrix:
    """A matrix [in, out] in int8, with a scale for each output."""

    codes: Tensor
    scales: Tensor

    @classmethod
    def of(cls, matrix: Tensor) -> "Int8Matrix":
        """Of a float matrix [in, out]; symmetric, the largest of each column is 127."""
        scales = matrix.abs().amax(0).clamp_min(_LEAST) / _LEVELS
        return cls((matrix / scales).round_().to(torch.int8).contiguous(), scales)


@dataclass(frozen=True)
class TorchWeights:
    """Arrays by name, in one precision on one device.

    In float32 on the CPU they are views of the arrays, which may be a mapped file; what has to be
    converted or laid out anew is, when the first graph needs it, and kept for all.
    """

    arrays: Mapping[str, Array] = field(repr=False)
    precision: Precision = Precision.FLOAT32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    file: "WeightsFile | None" = field(default=None, repr=False)
    """What they are read from where memory is short; else it is the arrays' own."""
    offload: "Offload | None" = field(default=None, repr=False)
    """Where they do not all fit."""
    homes: Mapping[str, torch.device] = field(default_factory=dict, repr=False)
    """Where each lies, if not all lie on the one device."""
    _made: dict[object, Tensor | Int8Matrix] = field(default_factory=dict, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    @property
    def dtype(self) -> torch.dtype:
        """That of floats."""
        return torch.bfloat16 if self.precision is Precision.BFLOAT16 else torch.float32

    @property
    def bytes(self) -> int:
        """The size of all that graphs have asked for so far, views included."""
        tensors = [
            tensor
            for made in self._made.values()
            for tensor in ((made,) if isinstance(made, Tensor) else (made.codes, made.scales))
        ]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def tensor(self, name: str, *, dtype: torch.dtype | None = None) -> Tensor:
        """One of them; floats in this precision, or in that given."""
        wanted = dtype or self.dtype

        def make() -> Tensor:
            return self._placed(name, wanted)

        made = self._once((name, wanted), make)
        assert isinstance(made, Tensor)
        return made

    def int8_matrix(self, name: str, *, transposed: bool) -> Int8Matrix:
        """A matrix in int8; `transposed` where it is there as [out, in]."""

        def make() -> Int8Matrix:
            matrix = self._raw(name)
            return Int8Matrix.of(matrix.T if transposed else matrix)

        made = self._once((name, transposed), make)
        assert isinstance(made, Int8Matrix)
        return made

    @property
    def packs(self) -> bool:
        """Whether convolutions run by weights in oneDNN's layout."""
        if self.offload is not None:  # which is a copy
            return False
        if self.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
            return False
        halved = self.dtype is torch.bfloat16
        return not halved or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())

    def packed(
        self,
        name: str,
        *,
        strides: tuple[int, ...],
        padding: tuple[int, ...],
        dilations: tuple[int, ...],
        groups: int,
        like: Sequence[int],
    ) -> Tensor:
        """Weights of a convolution over two axes, laid out for inputs of about these sizes."""

        def make() -> Tensor:
            weight = self._placed(name, self.dtype)
            made: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
                weight, padding, strides, dilations, groups, list(like)
            )
            return made

        made = self._once((name, strides, padding, dilations, groups), make)
        assert isinstance(made, Tensor)
        return made

    def _raw(self, name: str) -> Tensor:
        return borrowed(self.arrays[name]) if self.file is None else self.file.read(name)

    def _placed(self, name: str, dtype: torch.dtype) -> Tensor:
        tensor = self._raw(name)
        device = self.homes.get(name, self.device)
        return tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)

    def _once(self, key: object, make: Callable[[], Tensor | Int8Matrix]) -> Tensor | Int8Matrix:
        with self._lock:
            if key not in self._made:
                self._made[key] = make()
            return self._made[key]


class _Writable:
    """An array that says it may be written to: torch knows no others, and nothing here writes."""

    def __init__(self, array: Array) -> None:
        self.array = array
        self.__array_interface__ = array.__array_interface__ | {"data": (array.ctypes.data, False)}


def borrowed(array: Array) -> Tensor:
    """The memory of an array as a tensor, not to be written to; copied only if out of order."""
    array = np.ascontiguousarray(array).reshape(array.shape)
    if not array.flags.writeable:
        array = np.asarray(_Writable(array))
    return torch.from_numpy(array)


def placed(array: Array, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """An array on a device, floats in a dtype of their own."""
    tensor = borrowed(array)
    return tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)
