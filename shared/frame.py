"""Frames: one encoded tensor or picture on the wire.

All integers little-endian. The header is authoritative about what the payload is.

    offset  size  field
    0       4     magic, "HYBF"
    4       1     version, 1
    5       1     codec wire id (shared/codec)
    6       1     dtype of the decoded tensor (position in DTYPE_NAMES)
    7       1     number of dimensions n, at most 8
    8       32    contract, SHA-256 (shared/contract.py)
    40      4n    shape of the decoded tensor, without batch
    40+4n   4     payload length in bytes
    44+4n   4     CRC-32 (IEEE 802.3, zlib's) of all that stands before it, then of the payload
    48+4n   -     payload

Version 1 is frozen: tests decode its golden bytes.
"""

import math
import struct
import zlib
from dataclasses import dataclass

from .codec import Codec, codec_by_wire_id
from .contract import DIGEST_BYTES, Contract
from .errors import FrameCorrupt, FrameError, TensorError
from .tensor import Array, datatype_of

MAGIC = b"HYBF"
VERSION = 1
MAX_DIMENSIONS = 8
DTYPE_NAMES = ("UINT8", "INT8", "FP32", "FP16")
_FIXED = struct.Struct(f"<4sBBBB{DIGEST_BYTES}s")
_U32 = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """What a frame says of its payload."""

    codec_wire_id: int
    dtype: str
    shape: tuple[int, ...]
    contract: bytes
    payload_bytes: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def encode_frame(tensor: Array, *, contract: Contract, codec: Codec) -> bytes:
    """The frame of one tensor; TensorError if the tensor is not the contract's."""
    if tensor.shape != contract.shape or datatype_of(tensor) != contract.dtype:
        raise TensorError(
            f"{contract.tensor}: {datatype_of(tensor)} {list(tensor.shape)} is not "
            f"{contract.dtype} {list(contract.shape)}"
        )
    payload = codec.encode(tensor)
    head = b"".join(
        (
            _FIXED.pack(
                MAGIC,
                VERSION,
                codec.wire_id,
                DTYPE_NAMES.index(contract.dtype),
                len(contract.shape),
                contract.digest,
            ),
            struct.pack(f"<{len(contract.shape)}I", *contract.shape),
            _U32.pack(len(payload)),
        )
    )
    return b"".join((head, _U32.pack(zlib.crc32(payload, zlib.crc32(head))), payload))


def read_header(frame: bytes) -> FrameHeader:
    """The header of a whole frame, its checksum verified; FrameError or FrameCorrupt otherwise."""
    if len(frame) < _FIXED.size or frame[:4] != MAGIC:
        raise FrameError("not a frame: it does not begin with HYBF")
    _, version, codec_wire_id, dtype, dimensions, contract = _FIXED.unpack_from(frame)
    if version != VERSION:
        raise FrameError(f"frame version {version}; this side reads version {VERSION}")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise FrameError(f"{dimensions} dimensions; 1 to {MAX_DIMENSIONS} are possible")
    crc_at = _FIXED.size + 4 * dimensions + 4
    payload_at = crc_at + 4
    if len(frame) < payload_at:
        raise FrameError("frame is cut off in its header")
    shape = struct.unpack_from(f"<{dimensions}I", frame, _FIXED.size)
    (payload_bytes,) = _U32.unpack_from(frame, crc_at - 4)
    if payload_bytes != len(frame) - payload_at:
        raise FrameError(f"header says {payload_bytes} bytes, {len(frame) - payload_at} follow")
    (crc,) = _U32.unpack_from(frame, crc_at)
    view = memoryview(frame)
    if zlib.crc32(view[payload_at:], zlib.crc32(view[:crc_at])) != crc:
        raise FrameCorrupt("checksum does not match; the frame changed on its way")
    if dtype >= len(DTYPE_NAMES):
        raise FrameError(f"dtype code {dtype} is unknown")
    return FrameHeader(
        codec_wire_id=codec_wire_id,
        dtype=DTYPE_NAMES[dtype],
        shape=shape,
        contract=contract,
        payload_bytes=payload_bytes,
    )


def decode_payload(frame: bytes, header: FrameHeader, *, contract: Contract) -> Array:
    """The tensor of a frame whose header was read; FrameError unless it is the contract's."""
    if header.contract != contract.digest:
        raise FrameError(
            f"frame is of contract {header.contract.hex()[:12]}, not {contract.id[:12]}"
        )
    if header.shape != contract.shape or header.dtype != contract.dtype:
        raise FrameError(
            f"frame holds {header.dtype} {list(header.shape)}, its contract "
            f"{contract.dtype} {list(contract.shape)}"
        )
    codec = codec_by_wire_id(header.codec_wire_id, contract)
    payload = frame[len(frame) - header.payload_bytes :]
    return codec.decode(payload, shape=contract.shape, dtype=contract.dtype)
