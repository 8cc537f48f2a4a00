"""Fixed work that tells how fast a machine is, so that profiles of two machines can be compared.

Two small convolutional nets (int8 and float, 112 px, made by scripts/make_yardstick.py) and the
compression of a fixed buffer. Times are CPU times: other processes stretch them little.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import zstandard

from .boards import Kind, read_data
from .litert import LiteRtModel
from .profile import measure

GENERAL = "general"
"""The yardstick of what neither net stands for: resizing and encoding."""

_BLOCKS = 5
_RUNS = 20
_SIDE_PX = 112
_BUFFER_BYTES = 1 << 18


def yardstick_of(kind: Kind) -> str:
    """Which yardstick measures a kind of work."""
    return kind.value if kind in (Kind.INT8, Kind.FLOAT) else GENERAL


def measure_yardstick() -> dict[str, float]:
    """The CPU time of each yardstick on this machine, one thread, in ms.

    The least of several medians: a neighbour who sweeps the caches for a moment slows that too.
    """
    random = np.random.default_rng(0)
    tensor = random.standard_normal((1, _SIDE_PX, _SIDE_PX, 3)).astype(np.float32)
    buffer = (random.standard_normal(_BUFFER_BYTES) * 8).astype(np.int8).tobytes()
    work: dict[str, Callable[[], object]] = {
        kind.value: partial(LiteRtModel(read_data(f"yardstick-{kind}.tflite")).run, tensor)
        for kind in (Kind.INT8, Kind.FLOAT)
    }
    work[GENERAL] = partial(zstandard.ZstdCompressor(level=3).compress, buffer)
    blocks = [
        {name: measure(run, runs=_RUNS).cpu_ms for name, run in work.items()}
        for _ in range(_BLOCKS)
    ]
    return {name: min(block[name] for block in blocks) for name in work}
