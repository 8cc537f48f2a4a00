"""What every codec must do, as checks that a codec's own tests call."""

import tracemalloc

import numpy as np
import pytest

from hybridge.shared.codec import Codec
from hybridge.shared.errors import FrameError, TensorError
from hybridge.shared.tensor import Array, datatype_of


def round_trip(codec: Codec, tensor: Array) -> Array:
    """The tensor after encoding and decoding; also as strided memory, and twice the same."""
    payload = codec.encode(tensor)
    strided = np.repeat(tensor, 2, axis=0)[::2]
    assert codec.encode(strided) == payload
    assert codec.encode(np.asfortranarray(tensor)) == payload
    decoded = codec.decode(payload, shape=tensor.shape, dtype=datatype_of(tensor))
    assert decoded.shape == tensor.shape
    assert decoded.dtype == tensor.dtype
    return decoded


def check_exact(codec: Codec, tensor: Array) -> None:
    np.testing.assert_array_equal(round_trip(codec, tensor), tensor)


def check_within(codec: Codec, tensor: Array, *, psnr_db: float) -> None:
    """A lossy picture codec: same shape, and at least so close."""
    difference = round_trip(codec, tensor).astype(np.float64) - tensor
    noise = float(np.mean(difference**2))
    assert noise == 0 or 10 * np.log10(255**2 / noise) >= psnr_db


def check_takes_only(codec: Codec, *wrong: Array) -> None:
    for tensor in wrong:
        with pytest.raises(TensorError):
            codec.encode(tensor)


def check_refuses(
    codec: Codec, payload: bytes, *, shape: tuple[int, ...], dtype: str, most_bytes: int = 1 << 20
) -> None:
    """FrameError, and no memory but for a tensor of that shape and what a decoder needs."""
    tracemalloc.start()
    try:
        with pytest.raises(FrameError):
            codec.decode(payload, shape=shape, dtype=dtype)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < most_bytes


def check_refuses_damage(codec: Codec, tensor: Array) -> None:
    """Every cut, and any other shape or dtype than the payload's own."""
    shape, dtype = tensor.shape, datatype_of(tensor)
    payload = codec.encode(tensor)
    for kept in range(len(payload)):
        check_refuses(codec, payload[:kept], shape=shape, dtype=dtype)
    wider = (shape[0] + 1, *shape[1:])
    check_refuses(codec, payload, shape=wider, dtype=dtype)
    check_refuses(codec, payload, shape=shape, dtype="FP32")
    check_refuses(codec, b"", shape=shape, dtype=dtype)
    check_refuses(codec, b"garbage " * 30, shape=shape, dtype=dtype)
