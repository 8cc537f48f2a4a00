"""Several int8 tensors sent as one, and several pieces of bytes as one."""

import struct
from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from ..errors import FrameError, TensorError
from ..tensor import Array

_LENGTH = struct.Struct("<I")


class Together:
    """Int8 tensors of these shapes: one as it is, several as a flat one."""

    def __init__(self, shapes: Sequence[tuple[int, ...]], *, name: str) -> None:
        """`name` is the codec's, for its errors."""
        self._shapes = list(shapes)
        self._ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
        self.shape = self._shapes[0] if len(self._shapes) == 1 else (int(self._ends[-1]),)
        self._name = name

    def split(self, tensor: Array) -> list[npt.NDArray[np.int8]]:
        """Each in its shape; TensorError if it is another tensor."""
        if tensor.dtype != np.int8 or tensor.shape != self.shape:
            raise TensorError(
                f"{self._name} takes int8 {list(self.shape)}, "
                f"not {tensor.dtype} {list(tensor.shape)}"
            )
        flat = np.ascontiguousarray(tensor, np.int8).ravel()
        parts = np.split(flat, self._ends[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def check(self, *, shape: tuple[int, ...], dtype: str) -> None:
        """FrameError if a contract says that it is another tensor."""
        if dtype != "INT8" or shape != self.shape:
            raise FrameError(
                f"{self._name} makes INT8 {list(self.shape)}, the contract says "
                f"{dtype} {list(shape)}"
            )

    def join(self, parts: Sequence[Array]) -> Array:
        """What `split` was given."""
        return np.concatenate([part.ravel() for part in parts]).reshape(self.shape)


def joined(pieces: Sequence[bytes]) -> bytes:
    """Pieces one after the other, behind the lengths of all but the last."""
    return b"".join([*(_LENGTH.pack(len(each)) for each in pieces[:-1]), *pieces])


def parted(together: bytes, count: int, *, name: str) -> list[bytes]:
    """So many pieces that were `joined`; FrameError if they are not."""
    at = _LENGTH.size * (count - 1)
    if len(together) < at:
        raise FrameError(f"{name} payload is cut off in its lengths")
    lengths = [int(_LENGTH.unpack_from(together, start)[0]) for start in range(0, at, _LENGTH.size)]
    if sum(lengths) > len(together) - at:
        raise FrameError(f"{name} payload is shorter than its parts")
    ends = [*accumulate(lengths, initial=at), len(together)]
    return [together[start:end] for start, end in pairwise(ends)]
