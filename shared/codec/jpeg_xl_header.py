"""What a JPEG XL codestream says before its first frame's data (ISO/IEC 18181-1, annexes D and F).

A decoder that is given a file made on purpose may compute for as long as somebody likes: a layer of
260x260 pixels takes 13 bytes and 5 ms, patches and splines draw over and over again. So only one
frame is let through, and what `encode` makes: everything else is refused before it is decoded.
"""

from dataclasses import dataclass

from ..errors import FrameError

_SIGNATURE = b"\xff\x0a"
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_SIDE = ((9, 1), (13, 1), (18, 1), (30, 1))
_ENUM = ((0, 0), (0, 1), (4, 2), (6, 18))
_GREY, _XYB, _CUSTOM = 1, 2, 2
_NO_SMOOTHING = 0x80
"""The one flag of a frame that draws nothing."""


@dataclass(slots=True)
class _Bits:
    """The bits of a payload, the lowest of each byte first."""

    payload: bytes
    at: int = 0

    def take(self, count: int) -> int:
        first, self.at = self.at, self.at + count
        if self.at > 8 * len(self.payload):
            raise FrameError("jxl payload ends within its header")
        part = int.from_bytes(self.payload[first // 8 : (self.at + 7) // 8], "little")
        return part >> first % 8 & (1 << count) - 1

    def one_of(self, choices: tuple[tuple[int, int], ...]) -> int:
        """U32: one of four pairs of bits to read and what to add to them."""
        bits, offset = choices[self.take(2)]
        return self.take(bits) + offset

    def small(self) -> int:
        """U64 of at most 272; nothing that we let through needs more."""
        bits, offset = ((0, 0), (4, 1), (8, 17), (0, 1 << 12))[self.take(2)]
        return self.take(bits) + offset

    def must(self, value: int, count: int, what: str) -> None:
        if self.take(count) != value:
            raise FrameError(f"jxl payload with {what}")


def check_one_frame(payload: bytes) -> tuple[int, int]:
    """Height and width of a bare codestream of one frame; FrameError if it is anything else."""
    bits = _Bits(payload)
    if payload[:2] != _SIGNATURE:
        raise FrameError("jxl payload is no bare JPEG XL codestream")
    bits.take(16)
    size = _size(bits)
    xyb = bits.take(1) or _metadata(bits)
    bits.must(1, 1, "a transform of its own")
    bits.take(-bits.at % 8)
    if not bits.take(1):  # else a frame by default, which is one and the last
        _frame(bits, xyb=bool(xyb))
    return size


def _size(bits: _Bits) -> tuple[int, int]:
    small = bits.take(1)

    def side() -> int:
        return 8 * (bits.take(5) + 1) if small else bits.one_of(_SIDE)

    height = side()
    if (ratio := bits.take(3)) == 0:
        return height, side()
    times, over = _RATIOS[ratio - 1]
    return height, height * times // over


def _metadata(bits: _Bits) -> int:
    """Whether colours are XYB; no preview, animation, further channel or profile is let through."""
    bits.must(0, 1, "a turn, a preview or an animation")
    bits.must(0, 3, "more than 8 bits a value")  # whole numbers, then the first choice: 8
    bits.take(1)  # buffers of 16 bits suffice
    bits.must(0, 2, "more channels than RGB")
    xyb = bits.take(1)
    if not bits.take(1):
        _colours(bits)
    bits.must(0, 2, "extensions")
    return xyb


def _colours(bits: _Bits) -> None:
    bits.must(0, 1, "a colour profile")
    space = bits.one_of(_ENUM)
    if space in (_GREY, _XYB):
        raise FrameError("jxl payload with other colours than RGB")
    for what in ("white", "primaries"):
        if bits.one_of(_ENUM) == _CUSTOM:
            raise FrameError(f"jxl payload with {what} of its own")
    if bits.take(1):
        bits.take(24)  # a gamma
    else:
        bits.one_of(_ENUM)
    bits.one_of(_ENUM)  # the rendering's intent


def _frame(bits: _Bits, *, xyb: bool) -> None:
    """Up to whether the frame is the last."""
    bits.must(0, 2, "frames that are not shown")
    modular = bits.take(1)
    if bits.small() & ~_NO_SMOOTHING:
        raise FrameError("jxl payload with noise, patches, splines or a frame of its own for DC")
    if not xyb:
        bits.must(0, 1, "YCbCr")
    bits.take(2)  # upsampling
    if modular:
        bits.take(2)  # the size of a group
    elif xyb:
        bits.take(6)  # two scales of quantization
    bits.must(0, 2, "more than one pass")
    bits.must(0, 1, "a frame of another size")
    bits.must(0, 2, "frames over each other")
    bits.must(1, 1, "more than one frame")
