"""A tensor in layers, the most significant first: every prefix of whole layers decodes.

The first layer is the tensor on coarse grids (channels.py); each further one makes some of the
channels three times as fine (thirds.py). All of it is one stream of one rANS coder, and a layer is
the piece that its decoder reads for it, so that layers cost next to nothing.

    lengths   4 bytes for each layer but the last
    layer 0   states of the coder, its bytes, a byte for each symbol at the top of the tables
    layer k   bytes of the coder

Of several tensors in one, a layer holds theirs one after the other, behind the lengths of all but
the last.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from ..errors import FrameError
from ..tensor import Array
from .base import Codec
from .channels import ChannelCoder
from .grids import Grids
from .pieces import Together, joined, parted
from .rans import Decoder, Encoder, Tables, lanes_of
from .thirds import LAYERS, SIZES, SUMS, Thirds, fine_code_of, surroundings, third_of

WIRE_ID_BASE = 0xC0
_TENTHS = range(5, 81, 5)

I8 = npt.NDArray[np.int8]
I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]


class LayerCoder:
    """The layers of an int8 tensor [..., C], and back from the first of them."""

    def __init__(self, grids: Grids, thirds: Thirds, shape: tuple[int, ...]) -> None:
        if thirds.layer.shape != grids.centre.shape:
            raise ValueError(f"thirds of {thirds.layer.size} channels for {grids.centre.size}")
        if len(thirds.frequencies) != (grids.groups + 1) * SIZES * SUMS:
            raise ValueError(f"{len(thirds.frequencies)} tables for {grids.groups} groups")
        self.shape = shape
        self._grids = grids
        self._coarse = coarse = ChannelCoder(grids, shape)
        self._members = [np.flatnonzero(thirds.layer == layer) for layer in range(1, LAYERS)]
        self._first_table, self._middle = len(grids.frequencies), grids.reach
        finer = np.zeros((len(thirds.frequencies), grids.frequencies.shape[1]), np.uint8)
        finer[:, grids.reach - 1 : grids.reach + 2] = thirds.frequencies
        self._tables = Tables(np.concatenate((grids.frequencies, finer)))
        refined = coarse.height * coarse.width * sum(each.size for each in self._members)
        self._lanes = lanes_of((coarse.elements + refined) // 2)
        self._row = np.arange(shape[-1], dtype=np.int32)
        self._third_of = third_of(grids).ravel()
        self._code_of = fine_code_of(grids).ravel()

    def encode(self, tensor: I8) -> list[bytes]:
        coarse = self._coarse
        plane, excess = coarse.split(tensor)
        tables, side = surroundings(coarse.joined(plane, excess), self._grids)
        at = tensor.view(np.uint8).reshape(side.shape) + (self._row << 8)
        thirds = (self._third_of.take(at) * side + self._middle).astype(np.uint8)
        coder = Encoder(self._tables, lanes=self._lanes, seeds=np.zeros(self._lanes, np.uint8))
        behind = [0]
        for members in reversed(self._members):
            own = self._first_table + tables[..., members]
            coder.push(thirds[..., members].ravel(), own.ravel())
            behind.append(coder.size_bytes)
        coder.put(excess.tobytes())
        coarse.push(coder, plane)
        payload = coder.finish()
        ends = [len(payload) - each for each in reversed(behind)]
        return [payload[start:end] for start, end in pairwise([0, *ends])]

    def decode(self, layers: Sequence[bytes]) -> I8:
        """The int8 tensor as its first layers say; FrameError unless they are exactly that."""
        coarse, ends = self._coarse, list(accumulate(map(len, layers)))
        coder = Decoder(self._tables, b"".join(layers), lanes=self._lanes)
        plane = coarse.pull(coder)
        symbols = coarse.joined(plane, coder.take(coarse.excess_count(plane)))
        self._check(coder, ends[0])
        tables, side = surroundings(symbols, self._grids)
        fine = symbols.astype(np.int16) * 3
        for members, end in zip(self._members, ends[1:], strict=False):
            own = self._first_table + tables[..., members]
            thirds = coder.pull(own.ravel()).reshape(own.shape).astype(np.int16) - self._middle
            fine[..., members] += thirds * side[..., members]
            self._check(coder, end)
        if len(layers) == LAYERS and coder.finish()[0].any():
            raise FrameError("layers that do not end where an encoder begins")
        return self._code_of.take((self._row << 10) + (fine + 512)).reshape(self.shape)

    @staticmethod
    def _check(coder: Decoder, end: int) -> None:
        if coder.read_bytes != end:
            raise FrameError(f"a layer ends after {coder.read_bytes} bytes, not after {end}")


class Layers(Codec):
    """`LayerCoder` of one int8 tensor or several as one, as fine as so many tenths of a bit."""

    layer_count = LAYERS

    def __init__(self, coders: Sequence[LayerCoder], *, tenths: int) -> None:
        if tenths not in _TENTHS:
            raise ValueError(f"tenths of a bit are 5 to 80 in steps of 5, not {tenths}")
        self.name = name_of(tenths)
        self.wire_id = WIRE_ID_BASE + tenths // _TENTHS.step
        self._coders = list(coders)
        self._together = Together([coder.shape for coder in coders], name=self.name)

    def encode(self, tensor: Array) -> bytes:
        return joined(self.encode_layers(tensor))

    def encode_layers(self, tensor: Array) -> tuple[bytes, ...]:
        parts = self._together.split(tensor)
        made = [coder.encode(part) for coder, part in zip(self._coders, parts, strict=True)]
        return tuple(joined(each) for each in zip(*made, strict=True))

    def decode(self, payload: bytes, *, shape: tuple[int, ...], dtype: str) -> Array:
        layers = parted(payload, LAYERS, name=self.name)
        return self.decode_layers(layers, shape=shape, dtype=dtype)

    def decode_layers(
        self, layers: Sequence[bytes], *, shape: tuple[int, ...], dtype: str
    ) -> Array:
        self._together.check(shape=shape, dtype=dtype)
        if not 1 <= len(layers) <= LAYERS:
            raise FrameError(f"{len(layers)} layers of {LAYERS}")
        count = len(self._coders)
        owned = zip(*(parted(layer, count, name=self.name) for layer in layers), strict=True)
        made = [coder.decode(own) for coder, own in zip(self._coders, owned, strict=True)]
        return self._together.join(made)


def name_of(tenths: int) -> str:
    """The codec's name: tenths of a bit per value, as `rans-N` has them."""
    return f"layers-{tenths}"


def tenths_of(name: str) -> int | None:
    """What `name_of` was given; None if it is no such name."""
    return next((tenths for tenths in _TENTHS if name == name_of(tenths)), None)
