"""Interleaved range ANS in numpy: many symbols a step, whole numbers only.

rANS (Duda, arXiv 1311.2540) with states of 16 bits, bytes on the wire and frequencies that sum to
256. Element i belongs to lane i mod N of its pass, and a step codes one symbol in every lane at
once, so that Python sees a step and never an element. The state of a lane stays in [256, 65536):
one byte at most leaves or enters it per symbol. Encoding runs backwards; decoding ends in the
states that encoding began with, whose low bytes therefore carry a byte of the caller's each (the
seeds), which else would be lost.

Bit for bit the same everywhere: no floating point, no dependence on byte order.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..errors import FrameError

PRECISION_BITS = 8
TOTAL = 1 << PRECISION_BITS
STATE_BYTES = 2
_BYTE = np.uint16(PRECISION_BITS)
_STEPS = 160
"""About so many steps per tensor: fewer take less time, more take fewer lanes of 12 bits each."""

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
I32 = npt.NDArray[np.int32]


def lanes_of(elements: int, *, steps: int = _STEPS) -> int:
    """How many lanes a tensor of so many symbols has; part of the format."""
    return max(1, -(-elements // steps))


class Tables:
    """Frequencies [tables, symbols], uint8 of sum 256 each: none has a single symbol."""

    def __init__(self, frequencies: U8) -> None:
        if frequencies.ndim != 2 or frequencies.shape[1] > TOTAL or not frequencies.size:
            raise ValueError(f"frequencies are [tables, symbols], not {frequencies.shape}")
        if (frequencies.sum(axis=1, dtype=np.int64) != TOTAL).any():
            raise ValueError(f"the frequencies of a table sum to {TOTAL}")
        self.symbols = frequencies.shape[1]
        below = np.cumsum(frequencies, axis=1, dtype=np.uint16) - frequencies
        self._frequency: U16 = frequencies.astype(np.uint16).ravel()
        self._below: U16 = below.astype(np.uint16).ravel()
        owners = np.repeat(
            np.tile(np.arange(self.symbols, dtype=np.uint8), len(frequencies)), frequencies.ravel()
        )
        slots = np.tile(np.arange(TOTAL, dtype=np.uint16), len(frequencies))
        of_slot = np.repeat(np.arange(len(frequencies), dtype=np.int64), TOTAL) * self.symbols
        at = of_slot + owners
        self._frequency_of: U16 = self._frequency[at]
        # The bias of a slot, then its symbol in the low byte.
        self._rest_of: U16 = (slots - self._below[at]) << _BYTE | owners


class Encoder:
    """Takes passes from the last to the first."""

    def __init__(self, tables: Tables, *, lanes: int, seeds: U8) -> None:
        self._tables = tables
        self._state: U16 = seeds.astype(np.uint16) + np.uint16(TOTAL)
        if seeds.shape != (lanes,):
            raise ValueError(f"{lanes} lanes take as many seeds, not {seeds.shape}")
        self._chunks: list[bytes] = []

    def push(self, symbols: U8, tables: I32) -> None:
        """Codes the flat symbols of a pass, each by the table of its own."""
        owned = self._tables
        at = tables * owned.symbols + symbols
        frequency, below = owned._frequency.take(at), owned._below.take(at)
        limit, factor = frequency << PRECISION_BITS, TOTAL - frequency
        lanes = self._state.size
        rows = -(-symbols.size // lanes)
        full = np.zeros((rows, lanes), np.bool_)
        low = np.empty((rows, lanes), np.uint8)
        quotient, shift = np.empty(lanes, np.uint16), np.empty(lanes, np.uint16)
        for row in range(rows - 1, -1, -1):
            own = slice(row * lanes, min((row + 1) * lanes, symbols.size))
            width = own.stop - own.start
            state, part, moved = self._state[:width], quotient[:width], shift[:width]
            emitted = full[row, :width]
            np.greater_equal(state, limit[own], out=emitted)
            low[row, :width] = state
            np.multiply(emitted, _BYTE, out=moved)
            np.right_shift(state, moved, out=state)
            # state = (part << 8) + below + (state - part * frequency)
            np.floor_divide(state, frequency[own], out=part)
            np.multiply(part, factor[own], out=part)
            np.add(state, part, out=state)
            np.add(state, below[own], out=state)
        self._chunks.append(low[full].tobytes())

    def put(self, raw: bytes) -> None:
        """Bytes that the decoder takes as they are where it comes to them."""
        self._chunks.append(raw)

    @property
    def size_bytes(self) -> int:
        """What is in the stream so far, the states apart."""
        return sum(map(len, self._chunks))

    def finish(self) -> bytes:
        """The states, then what the decoder reads in its order."""
        self._chunks.append(self._state.astype("<u2").tobytes())
        return b"".join(reversed(self._chunks))


class Decoder:
    """Takes passes from the first to the last; FrameError where the payload ends too early."""

    def __init__(self, tables: Tables, payload: bytes, *, lanes: int) -> None:
        self._tables = tables
        states = np.frombuffer(payload, "<u2", count=min(lanes, len(payload) // STATE_BYTES))
        if states.size < lanes or (states < TOTAL).any():
            raise FrameError(f"payload does not begin with {lanes} states of a coder")
        self._state: U16 = states.astype("<u2")  # whose first byte is the low one everywhere
        self._low: U8 = self._state.view(np.uint8)[::STATE_BYTES]
        self._stream: U16 = np.frombuffer(payload, np.uint8)[STATE_BYTES * lanes :].astype(
            np.uint16
        )
        self._position = 0

    def pull(self, tables: I32) -> U8:
        """The symbols of a pass, each decoded by the table of its own."""
        owned, stream, position = self._tables, self._stream, self._position
        lanes, end = self._state.size, self._stream.size
        rest = np.empty(tables.size, np.uint16)
        base = tables.astype(np.intp) << PRECISION_BITS
        slot, frequency = np.empty(lanes, np.intp), np.empty(lanes, np.uint16)
        bias = np.empty(lanes, np.uint16)
        for start in range(0, tables.size, lanes):
            rows = slice(start, start + lanes)
            own, found = base[rows], rest[rows]
            width = own.size
            state, at = self._state[:width], slot[:width]
            factor, offset = frequency[:width], bias[:width]
            np.add(own, self._low[:width], out=at)
            owned._frequency_of.take(at, out=factor, mode="clip")
            owned._rest_of.take(at, out=found, mode="clip")
            np.right_shift(state, PRECISION_BITS, out=state)
            np.multiply(state, factor, out=state)
            np.right_shift(found, PRECISION_BITS, out=offset)
            np.add(state, offset, out=state)
            (empty,) = (state < TOTAL).nonzero()
            if position + empty.size > end:
                raise FrameError("payload ends in the middle of its symbols")
            refilled = state.take(empty) << _BYTE
            refilled |= stream[position : position + empty.size]
            state[empty] = refilled
            position += empty.size
        symbols = rest.astype(np.uint8)
        self._position = position
        return symbols

    def take(self, count: int) -> U8:
        """Bytes that were `put` here."""
        start, self._position = self._position, self._position + count
        if self._position > self._stream.size:
            raise FrameError("payload ends in the middle of its symbols")
        return self._stream[start : self._position].astype(np.uint8)

    @property
    def read_bytes(self) -> int:
        """How much of the payload was read, the states too."""
        return STATE_BYTES * self._state.size + self._position

    def finish(self) -> tuple[U8, U8]:
        """The seeds, and what no symbol needed; FrameError if the states are not seeds."""
        if (self._state >= 2 * TOTAL).any() or (self._state < TOTAL).any():
            raise FrameError("payload does not end in the states that an encoder begins with")
        rest = self._stream[self._position :]
        return (self._state - TOTAL).astype(np.uint8), rest.astype(np.uint8)


def frequencies_of(counts: Sequence[Sequence[float]] | npt.NDArray[np.float64]) -> U8:
    """Frequencies for counts [tables, symbols] of at most 128 symbols, none below 1.

    The largest remainders of the part that is shared out by the counts get what rounding leaves.
    """
    weights = np.asarray(counts, np.float64) + 1e-9
    free = TOTAL - weights.shape[1]
    if free < weights.shape[1]:
        raise ValueError(f"{weights.shape[1]} symbols are too many for {TOTAL} slots")
    ideal = weights / weights.sum(axis=1, keepdims=True) * TOTAL
    made = np.maximum(np.floor(ideal), 1).astype(np.int64)
    for row, wanted in zip(made, ideal, strict=True):
        while (off := TOTAL - int(row.sum())) != 0:
            if off > 0:  # to the symbol that saves most bits by one slot more
                row[np.argmax(wanted * np.log2((row + 1) / row))] += 1
            else:  # from the one that loses least
                cost = np.where(row > 1, wanted * np.log2(row / np.maximum(row - 1, 1)), np.inf)
                row[np.argmin(cost)] -= 1
    frequencies: U8 = made.astype(np.uint8)
    return frequencies
