"""What every codec is."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from ..errors import FrameError
from ..tensor import Array


class Codec(ABC):
    """Turns one tensor of a known shape and dtype into bytes and back.

    Pure and thread-safe. `decode` raises FrameError for a payload that does not hold exactly that
    tensor, and never allocates more than the tensor's own size because a payload claims so.
    """

    name: str
    wire_id: int
    layer_count: int = 1
    """Into how many layers a payload comes apart, the most significant first."""

    @abstractmethod
    def encode(self, tensor: Array) -> bytes:
        """The payload; TensorError if the codec does not take such a tensor."""

    @abstractmethod
    def decode(self, payload: bytes, *, shape: tuple[int, ...], dtype: str) -> Array:
        """The tensor of a payload."""

    def encode_layers(self, tensor: Array) -> tuple[bytes, ...]:
        """The payload in layers, each of which makes those before it better; never fewer."""
        return (self.encode(tensor),)

    def decode_layers(
        self, layers: Sequence[bytes], *, shape: tuple[int, ...], dtype: str
    ) -> Array:
        """The tensor as well as the first layers say, one at least."""
        if len(layers) != 1:
            raise FrameError(f"{self.name} has one layer, not {len(layers)}")
        return self.decode(layers[0], shape=shape, dtype=dtype)
