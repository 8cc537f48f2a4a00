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

Version 2 is a frame in layers, the most significant first (shared/codec/layers.py): it is read
from its beginning on as it arrives, and what whole layers are there makes a tensor.

    40+4n   4     number of layers m, 1 to 32
    44+4n   8m    of each layer its length in bytes and its CRC-32
    44+4n+8m  4   CRC-32 of all that stands before it
    48+4n+8m  -   the layers, one after the other

Both are frozen: tests decode their golden bytes.
"""

import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from .codec import Codec, codec_by_wire_id
from .contract import DIGEST_BYTES, Contract
from .errors import FrameCorrupt, FrameError, TensorError
from .tensor import DTYPES, Array, datatype_of

MAGIC = b"HYBF"
VERSION, VERSION_IN_LAYERS = 1, 2
MAX_DIMENSIONS = 8
MAX_LAYERS = 32
HEADER_BYTES_AT_MOST = 48 + 4 * MAX_DIMENSIONS + 8 * MAX_LAYERS
DTYPE_NAMES = ("UINT8", "INT8", "FP32", "FP16")
_FIXED = struct.Struct(f"<4sBBBB{DIGEST_BYTES}s")
_U32 = struct.Struct("<I")
_LAYER = struct.Struct("<II")
_MOST_PER_BYTE, _MOST_BESIDE = 8, 4096
"""No frame in layers is longer than so many times its tensor and so much more."""


@dataclass(frozen=True, slots=True)
class LayerHeader:
    """What a frame says of one of its layers."""

    size_bytes: int
    crc: int


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """What a frame says of its payload; of one in layers what it says of each."""

    codec_wire_id: int
    dtype: str
    shape: tuple[int, ...]
    contract: bytes
    payload_bytes: int
    layers: tuple[LayerHeader, ...] = ()

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def header_bytes(self) -> int:
        return 48 + 4 * len(self.shape) + _LAYER.size * len(self.layers)

    @property
    def frame_bytes(self) -> int:
        return self.header_bytes + self.payload_bytes


def encode_frame(tensor: Array, *, contract: Contract, codec: Codec) -> bytes:
    """The frame of one tensor; TensorError if the tensor is not the contract's."""
    _check_tensor(tensor, contract)
    payload = codec.encode(tensor)
    head = _head(contract, codec, VERSION) + _U32.pack(len(payload))
    return b"".join((head, _U32.pack(zlib.crc32(payload, zlib.crc32(head))), payload))


def encode_layers(tensor: Array, *, contract: Contract, codec: Codec) -> list[bytes]:
    """The same in layers, to be sent one after the other; the header goes with the first."""
    _check_tensor(tensor, contract)
    layers = codec.encode_layers(tensor)
    of_each = [_LAYER.pack(len(layer), zlib.crc32(layer)) for layer in layers]
    head = _head(contract, codec, VERSION_IN_LAYERS) + _U32.pack(len(layers)) + b"".join(of_each)
    return [b"".join((head, _U32.pack(zlib.crc32(head)), layers[0])), *layers[1:]]


def _check_tensor(tensor: Array, contract: Contract) -> None:
    if tensor.shape != contract.shape or datatype_of(tensor) != contract.dtype:
        raise TensorError(
            f"{contract.tensor}: {datatype_of(tensor)} {list(tensor.shape)} is not "
            f"{contract.dtype} {list(contract.shape)}"
        )


def _head(contract: Contract, codec: Codec, version: int) -> bytes:
    fixed = _FIXED.pack(
        MAGIC,
        version,
        codec.wire_id,
        DTYPE_NAMES.index(contract.dtype),
        len(contract.shape),
        contract.digest,
    )
    return fixed + struct.pack(f"<{len(contract.shape)}I", *contract.shape)


def read_header(frame: bytes) -> FrameHeader:
    """The header of a whole frame, its checksum verified; FrameError or FrameCorrupt otherwise."""
    version, at = _begin(frame)
    if version != VERSION:
        raise FrameError(f"frame version {version}; a whole frame is of version {VERSION}")
    crc_at, payload_at = at + 4, at + 8
    if len(frame) < payload_at:
        raise FrameError("frame is cut off in its header")
    (payload_bytes,) = _U32.unpack_from(frame, at)
    if payload_bytes != len(frame) - payload_at:
        raise FrameError(f"header says {payload_bytes} bytes, {len(frame) - payload_at} follow")
    (crc,) = _U32.unpack_from(frame, crc_at)
    view = memoryview(frame)
    if zlib.crc32(view[payload_at:], zlib.crc32(view[:crc_at])) != crc:
        raise FrameCorrupt("checksum does not match; the frame changed on its way")
    return _header(frame, payload_bytes)


def read_layers_header(start: bytes) -> FrameHeader:
    """The header of a frame in layers from its first bytes, as `read_header`."""
    version, at = _begin(start)
    if version != VERSION_IN_LAYERS:
        raise FrameError(
            f"frame version {version}; one in layers is of version {VERSION_IN_LAYERS}"
        )
    if len(start) < at + 4:
        raise FrameError("frame is cut off in its header")
    (count,) = _U32.unpack_from(start, at)
    if not 1 <= count <= MAX_LAYERS:
        raise FrameError(f"{count} layers; 1 to {MAX_LAYERS} are possible")
    crc_at = at + 4 + _LAYER.size * count
    if len(start) < crc_at + 4:
        raise FrameError("frame is cut off in its header")
    if zlib.crc32(memoryview(start)[:crc_at]) != _U32.unpack_from(start, crc_at)[0]:
        raise FrameCorrupt("checksum of the header does not match; it changed on its way")
    found = _LAYER.iter_unpack(start[at + 4 : crc_at])
    layers = tuple(LayerHeader(size_bytes, crc) for size_bytes, crc in found)
    return _header(start, sum(layer.size_bytes for layer in layers), layers)


def _begin(frame: bytes) -> tuple[int, int]:
    """The version of a frame, and where what depends on it begins."""
    if len(frame) < _FIXED.size or frame[:4] != MAGIC:
        raise FrameError("not a frame: it does not begin with HYBF")
    version, dimensions = frame[4], frame[7]
    if version not in (VERSION, VERSION_IN_LAYERS):
        known = f"versions {VERSION} and {VERSION_IN_LAYERS}"
        raise FrameError(f"frame version {version}; this side reads {known}")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise FrameError(f"{dimensions} dimensions; 1 to {MAX_DIMENSIONS} are possible")
    return version, _FIXED.size + 4 * dimensions


def _header(frame: bytes, payload_bytes: int, layers: tuple[LayerHeader, ...] = ()) -> FrameHeader:
    _, _, codec_wire_id, dtype, dimensions, contract = _FIXED.unpack_from(frame)
    if dtype >= len(DTYPE_NAMES):
        raise FrameError(f"dtype code {dtype} is unknown")
    return FrameHeader(
        codec_wire_id=codec_wire_id,
        dtype=DTYPE_NAMES[dtype],
        shape=struct.unpack_from(f"<{dimensions}I", frame, _FIXED.size),
        contract=contract,
        payload_bytes=payload_bytes,
        layers=layers,
    )


def decode_payload(frame: bytes, header: FrameHeader, *, contract: Contract) -> Array:
    """The tensor of a frame whose header was read; FrameError unless it is the contract's."""
    codec = codec_of(header, contract)
    payload = frame[len(frame) - header.payload_bytes :]
    return codec.decode(payload, shape=contract.shape, dtype=contract.dtype)


def decode_layers(layers: Sequence[bytes], header: FrameHeader, *, contract: Contract) -> Array:
    """The tensor as well as the first layers of a frame say; FrameError as `decode_payload`."""
    codec = codec_of(header, contract)
    return codec.decode_layers(layers, shape=contract.shape, dtype=contract.dtype)


def codec_of(header: FrameHeader, contract: Contract) -> Codec:
    """The codec of a frame of this contract; FrameError if it is not."""
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
    if header.layers:
        if len(header.layers) != codec.layer_count:
            raise FrameError(f"{len(header.layers)} layers; {codec.name} has {codec.layer_count}")
        most = _MOST_PER_BYTE * contract.elements * DTYPES[contract.dtype].itemsize + _MOST_BESIDE
        if header.payload_bytes > most:
            raise FrameError(f"header says {header.payload_bytes} bytes; at most {most} make sense")
    return codec
