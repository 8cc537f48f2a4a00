"""The tensor's own bytes."""

from ..errors import FrameError, TensorError
from ..tensor import Array, from_raw, to_raw
from .base import Codec


class Raw(Codec):
    """Row-major little-endian elements, as the Open Inference Protocol carries them."""

    name = "raw"
    wire_id = 0x00

    def encode(self, tensor: Array) -> bytes:
        return to_raw(tensor)

    def decode(self, payload: bytes, *, shape: tuple[int, ...], dtype: str) -> Array:
        try:
            return from_raw(payload, datatype=dtype, shape=shape)
        except TensorError as error:
            raise FrameError(str(error)) from error
