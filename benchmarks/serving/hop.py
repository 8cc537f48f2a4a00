"""The way of a batch to a replica and back, measured on a replica that does nothing with it.

    python benchmarks/serving/hop.py process|ray     prints {bytes: milliseconds, sorted} as JSON

A process of its own, since Ray forks and catches signals.
"""

import asyncio
import json
import sys
import time

import numpy as np

from hybridge.cloud.executors.far_end import Echo
from hybridge.cloud.executors.parcel import pack
from hybridge.cloud.executors.process import ProcessReplica
from hybridge.cloud.executors.replica import Replica

SIZES_BYTES = (16_384, 150_528, 1_204_224)
"""A frame, a picture as pixels, eight of them."""
_TIMES = 200


def main(kind: str) -> None:
    if kind == "ray":
        from hybridge.cloud.executors.ray_actor import RayReplica, join  # with the extra alone

        join(None)
        replica: Replica = RayReplica("hop", slots=1)
    else:
        replica = ProcessReplica("hop", slots=1)
    sys.stdout.write(json.dumps(asyncio.run(_measure(replica))))


async def _measure(replica: Replica) -> dict[int, list[float]]:
    await replica.start()
    try:
        return {size: sorted(await _ways(replica, size)) for size in SIZES_BYTES}
    finally:
        await replica.stop()


async def _ways(replica: Replica, size: int) -> list[float]:
    order = Echo(np.zeros(size, np.uint8))
    took_ms: list[float] = []
    for _ in range(_TIMES):
        started_s = time.perf_counter()
        await replica.call(pack(order))
        took_ms.append((time.perf_counter() - started_s) * 1e3)
    return took_ms


if __name__ == "__main__":
    main(sys.argv[1])
