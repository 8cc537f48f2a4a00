"""How long a codec takes, on one core."""

import time
from collections.abc import Callable
from functools import partial

import numpy as np

from hybridge.cloud.compiler.grid_fit import fit_grids
from hybridge.shared.codec import codec_by_name
from hybridge.shared.contract import Contract

RUNS = 10
SHAPE = (32, 32, 64)
TARGETS_MS = {"rans-30": 3.0, "pco-30": 1.0, "affine4": 1.0}
"""To encode and decode a tensor of 64 KB."""


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
    random = np.random.default_rng(1)
    height, width, channels = SHAPE
    noise = random.normal(size=(8, height + 2, width + 2, channels))
    noise *= np.geomspace(4, 60, channels)
    smooth = (noise[:, :-2, :-2] + noise[:, 1:-1, 1:-1] + noise[:, 2:, 2:]) / np.sqrt(3)
    tensors = np.clip(np.rint(smooth), -128, 127).astype(np.int8)
    grids = fit_grids(tensors, sensitivity=np.ones(channels), bits=3.0)
    contract = Contract(
        tensor="cut",
        shape=SHAPE,
        dtype="INT8",
        model="",
        codecs={"rans-30": {"grids": grids.text()}, "affine4": {"low": -64.0, "high": 63.0}},
    )
    found = {}
    for name in TARGETS_MS:
        codec = codec_by_name(name, contract)
        payload = codec.encode(tensors[0])
        decode = partial(codec.decode, payload, shape=SHAPE, dtype="INT8")
        found[name] = best_ms(partial(codec.encode, tensors[0])), best_ms(decode)
    return found
