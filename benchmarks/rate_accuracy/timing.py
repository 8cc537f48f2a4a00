"""How long a codec takes, on one core."""

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from hybridge.cloud.compiler.grid_fit import fit_grids
from hybridge.shared.codec import codec_by_name
from hybridge.shared.contract import Contract
from hybridge.shared.tensor import Array

RUNS = 10
SHAPE = (32, 32, 64)
TARGETS_MS = {"rans-30": 3.0, "pco-30": 1.0, "affine4": 1.0}
"""To encode and decode a tensor of 64 KB."""
ENTROPY_OF = ("rans-30", "pco-30")
SHARES = {"smooth": 1.0, "shuffled": 1.05}
"""Of its order-0 entropy that a tensor may take: less where context helps."""


def best_ms(work: Callable[[], object]) -> float:
    """The least processor time of some runs: others on the machine only add to it.

    Of all threads of this process together.
    """
    work()
    least = float("inf")
    for _ in range(RUNS):
        start = time.process_time()
        work()
        least = min(least, time.process_time() - start)
    return least * 1e3


def speeds_ms() -> dict[str, tuple[float, float]]:
    """By codec, to encode and to decode channels of different spreads, smooth in space."""
    tensors = _smooth()
    contract, found = _contract(tensors), {}
    for name in TARGETS_MS:
        codec = codec_by_name(name, contract)
        payload = codec.encode(tensors[0])
        decode = partial(codec.decode, payload, shape=SHAPE, dtype="INT8")
        found[name] = best_ms(partial(codec.encode, tensors[0])), best_ms(decode)
    return found


def shares_of_entropy() -> dict[tuple[str, str], float]:
    """By codec and kind of tensor, the payload's bytes as a share of its own order-0 entropy.

    That of the values it decodes to, channel by channel, as they came: no table costs anything.
    In `smooth` tensors, means of 3x3 places, neighbours are alike; in `shuffled` ones the same
    values lie anywhere.
    """
    smooth = _smooth(_SQUARE)
    shuffled = np.random.default_rng(2).permutation(smooth.reshape(len(smooth), -1, SHAPE[2]), 1)
    found = {}
    for kind, tensors in (("smooth", smooth), ("shuffled", shuffled.reshape(smooth.shape))):
        contract = _contract(tensors)
        for name in ENTROPY_OF:
            codec = codec_by_name(name, contract)
            payload = codec.encode(tensors[0])
            decoded = codec.decode(payload, shape=SHAPE, dtype="INT8")
            found[name, kind] = len(payload) / _entropy_bytes(decoded)
    return found


def _entropy_bytes(tensor: Array) -> float:
    bits = 0.0
    for channel in tensor.reshape(-1, tensor.shape[-1]).T:
        counts = np.unique(channel, return_counts=True)[1]
        bits -= float((counts * np.log2(counts / channel.size)).sum())
    return bits / 8


_DIAGONAL = ((0, 0), (1, 1), (2, 2))
_SQUARE = tuple((y, x) for y in range(3) for x in range(3))


def _smooth(places: Sequence[tuple[int, int]] = _DIAGONAL) -> npt.NDArray[np.int8]:
    """Each value is the sum of noise at these places around it."""
    random = np.random.default_rng(1)
    height, width, channels = SHAPE
    noise = random.normal(size=(8, height + 2, width + 2, channels))
    noise *= np.geomspace(4, 60, channels)
    parts = [noise[:, y : y + height, x : x + width] for y, x in places]
    smooth: npt.NDArray[np.float64] = np.sum(parts, axis=0) / np.sqrt(len(parts))
    return np.clip(np.rint(smooth), -128, 127).astype(np.int8)


def _contract(tensors: npt.NDArray[np.int8]) -> Contract:
    grids = fit_grids(tensors, sensitivity=np.ones(SHAPE[2]), bits=3.0)
    return Contract(
        tensor="cut",
        shape=SHAPE,
        dtype="INT8",
        model="",
        codecs={"rans-30": {"grids": grids.text()}, "affine4": {"low": -64.0, "high": 63.0}},
    )
