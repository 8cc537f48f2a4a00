"""A frame in layers while it arrives: bytes in, whole layers out. Pure."""

import zlib

from .errors import FrameCorrupt, FrameError
from .frame import FrameHeader, read_layers_header

CHUNK_BYTES = 16_384
"""The most that one message carries of a frame in layers."""


class Arrival:
    """What has come of one frame; the first bytes, which hold the header, make it.

    Nothing is kept beyond what the header says, and a layer whose checksum does not match raises
    FrameCorrupt instead of being there.
    """

    def __init__(self, start: bytes) -> None:
        self.header: FrameHeader = read_layers_header(start)
        self.layers: list[bytes] = []
        """Those that are whole."""
        self.came_bytes = self.header.header_bytes
        self._pending = bytearray()
        self._kept = True
        self.add(start[self.came_bytes :])

    @property
    def complete(self) -> bool:
        return len(self.layers) == len(self.header.layers)

    def close(self) -> None:
        """Lets go of it; what still comes is only counted."""
        self._kept = False
        self.layers, self._pending = [], bytearray()

    def add(self, more: bytes) -> None:
        """The bytes that come next; FrameError for more than the frame has, FrameCorrupt."""
        self.came_bytes += len(more)
        if self.came_bytes > self.header.frame_bytes:
            raise FrameError("more bytes than the header says")
        if not self._kept:
            return
        self._pending += more
        while not self.complete:
            layer = self.header.layers[len(self.layers)]
            if len(self._pending) < layer.size_bytes:
                return
            made = bytes(self._pending[: layer.size_bytes])
            if zlib.crc32(made) != layer.crc:
                raise FrameCorrupt(f"checksum of layer {len(self.layers)} does not match")
            del self._pending[: layer.size_bytes]
            self.layers.append(made)
