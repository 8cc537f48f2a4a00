"""What every codec is."""

from abc import ABC, abstractmethod

from ..tensor import Array


class Codec(ABC):
    """Turns one tensor of a known shape and dtype into bytes and back.

    Pure and thread-safe. `decode` raises FrameError for a payload that does not hold exactly that
    tensor, and never allocates more than the tensor's own size because a payload claims so.
    """

    name: str
    wire_id: int

    @abstractmethod
    def encode(self, tensor: Array) -> bytes:
        """The payload; TensorError if the codec does not take such a tensor."""

    @abstractmethod
    def decode(self, payload: bytes, *, shape: tuple[int, ...], dtype: str) -> Array:
        """The tensor of a payload."""
