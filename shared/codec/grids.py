"""A grid of its own for every channel of an int8 tensor, and what else a coder must know of it.

All of it is whole numbers: steps are sixteenths of an int8 code. It is learned when a bundle is
built (cloud/compiler/grid_fit.py) and is a part of the contract, as one string.
"""

import struct
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from .packed import packed_text, unpacked
from .rans import TOTAL

FRACTION = 16
SILENT = 255
"""The group of channels that are never sent: they decode to their centre."""

MAX_SYMBOL = 127
MAX_TOP = 31
MAX_CHANNELS = 1 << 16
_VERSION = 1
_HEAD = struct.Struct("<BBBI")
_MAX_BYTES = 1 << 22

I8 = npt.NDArray[np.int8]
U8 = npt.NDArray[np.uint8]
I16 = npt.NDArray[np.int16]
U16 = npt.NDArray[np.uint16]


@dataclass(frozen=True, kw_only=True)
class Grids:
    """How each of C channels becomes symbols, and how likely these are.

    A value becomes the whole number s whose point centre + step * s is nearest, and decodes to
    that point; `step` is in sixteenths of a code. `group` [C] says which tables a channel uses.
    Symbols from the group's `top` [groups] on share one entry in them, and their excess follows as
    a byte.

    A group has one table for pixels without known
    neighbours, and `bins` each for those with four diagonal and with four direct ones; `edges`
    [groups, bins - 1] are the sums of the neighbours' symbols at which the next bin begins.
    `frequencies` [groups * (1 + 2 * bins), 2 * reach + 1] sum to 256 each, where `reach` is the
    highest top and the symbol 0 stands in the middle.
    """

    top: U8
    centre: I8
    step: U16
    group: U8
    edges: I16
    frequencies: U8

    def __post_init__(self) -> None:
        channels = self.centre.size
        if not 1 <= channels <= MAX_CHANNELS:
            raise ValueError(f"{channels} channels; 1 to {MAX_CHANNELS} are possible")
        if self.step.shape != (channels,) or self.group.shape != (channels,):
            raise ValueError(f"step and group belong to {channels} channels")
        if (self.step < FRACTION).any():
            raise ValueError("a step is a code at least")
        sent = self.group[self.group != SILENT]
        if self.edges.ndim != 2 or (sent >= len(self.edges)).any():
            raise ValueError("a channel is of a group that does not exist")
        if (np.diff(self.edges, axis=1) <= 0).any():
            raise ValueError("edges ascend")
        if self.top.shape != (self.groups,) or not 1 <= self.top.min() <= self.reach <= MAX_TOP:
            raise ValueError(f"each group has a top from 1 to {MAX_TOP}")
        tables = (self.groups * (1 + 2 * self.bins), 2 * self.reach + 1)
        if self.frequencies.shape != tables:
            raise ValueError(f"frequencies are {self.frequencies.shape}, not {tables}")
        if (self.frequencies.sum(axis=1, dtype=np.int64) != TOTAL).any():
            raise ValueError(f"the frequencies of a table sum to {TOTAL}")
        owner = np.arange(self.groups)
        owner = np.concatenate((owner, *(np.repeat(owner, self.bins),) * 2))
        size = np.abs(np.arange(-self.reach, self.reach + 1))
        if ((self.frequencies > 0) != (size <= self.top[owner][:, None])).any():
            raise ValueError("a table has the symbols up to its group's top, and no others")

    @property
    def groups(self) -> int:
        return int(self.edges.shape[0])

    @property
    def reach(self) -> int:
        return int(self.top.max())

    @property
    def bins(self) -> int:
        return int(self.edges.shape[1]) + 1

    @cached_property
    def symbol_of(self) -> I8:
        """The symbol [C, 256] of a channel's code, by the code's own byte."""
        codes = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.int64)
        away = (codes - self.centre[:, None].astype(np.int64)) * FRACTION
        step = self.step[:, None].astype(np.int64)
        size = (2 * np.abs(away) + step) // (2 * step)
        symbols: I8 = (np.sign(away) * np.minimum(size, MAX_SYMBOL)).astype(np.int8)
        return symbols

    @cached_property
    def code_of(self) -> I8:
        """The code [C, 256] of a channel's symbol, by the symbol's own byte."""
        symbols = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.int64)
        size = np.abs(symbols) * self.step[:, None].astype(np.int64)
        away = np.sign(symbols) * ((size + FRACTION // 2) // FRACTION)
        codes: I8 = np.clip(self.centre[:, None] + away, -128, 127).astype(np.int8)
        return codes

    def text(self) -> str:
        """All of it as a contract holds it."""
        head = _HEAD.pack(_VERSION, self.groups, self.bins, self.centre.size)
        arrays = (
            self.centre.astype("i1"),
            self.step.astype("<u2"),
            self.group.astype("u1"),
            self.top.astype("u1"),
            self.edges.astype("<i2"),
            self.frequencies.astype("u1"),
        )
        raw = b"".join((head, *(each.tobytes() for each in arrays)))
        return packed_text(raw)

    @classmethod
    def parse(cls, text: str) -> "Grids":
        """What `text` wrote; ValueError if that is not it."""
        raw = unpacked(text, most_bytes=_MAX_BYTES, what="grids")
        try:
            version, groups, bins, channels = _HEAD.unpack_from(raw)
        except struct.error as error:
            raise ValueError(f"the grids of a contract: {error}") from None
        if version != _VERSION or not bins or not groups or channels > MAX_CHANNELS:
            raise ValueError(f"grids of version {version}, {groups} groups and {bins} bins")
        at = _HEAD.size

        def take(dtype: str, *shape: int) -> npt.NDArray[np.generic]:
            nonlocal at
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            if at + size > len(raw):
                raise ValueError("the grids of a contract are cut off")
            found = np.frombuffer(raw, dtype, int(np.prod(shape)), at).reshape(shape)
            at += size
            return found

        centre, step = take("i1", channels), take("<u2", channels)
        group, top = take("u1", channels), take("u1", groups)
        made = cls(
            top=top.astype(np.uint8),
            centre=centre.astype(np.int8),
            step=step.astype(np.uint16),
            group=group.astype(np.uint8),
            edges=take("<i2", groups, bins - 1).astype(np.int16),
            frequencies=take("u1", groups * (1 + 2 * bins), 2 * int(top.max()) + 1).astype(
                np.uint8
            ),
        )
        if at != len(raw):
            raise ValueError("the grids of a contract are followed by something")
        return made
