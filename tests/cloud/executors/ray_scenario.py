"""What tests/cloud/executors/test_ray.py runs in a process of its own, since Ray forks.

A head that computes nothing and one node; nothing is started until a request comes. In the middle
of the second request its node dies, and another is there.
"""

import asyncio
import contextlib
import os
import signal
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.cluster_utils import Cluster

from hybridge.cloud.executors.pool import ReplicaPool
from hybridge.cloud.executors.ray_actor import RayReplica, join
from hybridge.cloud.executors.scaling import Bounds
from hybridge.cloud.opening import open_shelf
from hybridge.cloud.shelf import BundleShelf
from hybridge.cloud.stage import Stage
from hybridge.cloud.work import Answer
from hybridge.cloud.worker import Worker
from hybridge.shared.deadline import Deadline, monotonic
from hybridge.shared.signing import TrustStore

from ..bundles import random_pixels
from .conftest import stop, until

NODE = {"include_dashboard": False, "object_store_memory": 80_000_000}
BOUNDS = Bounds(least=0, most=1, idle_s=3_600.0)


def tell(step: str) -> None:
    sys.stdout.write(f"{step}\n")
    sys.stdout.flush()


async def play(stage: Stage, cluster: Any, node: Any) -> None:
    expected = [stage.run(random_pixels(seed)[None], {}).probabilities for seed in range(2)]
    replicas: list[RayReplica] = []

    def make(name: str) -> RayReplica:
        replicas.append(RayReplica(name, slots=1))
        return replicas[-1]

    pool = ReplicaPool(make, bounds=BOUNDS, slots=1, start_s=10.0, hop_ms=5.0)
    worker = Worker(executor=pool, queue_limit=10)

    def submit(seed: int) -> asyncio.Task[Answer]:
        load = partial(np.asarray, random_pixels(seed)[None])
        deadline = Deadline.after_ms(3_600_000.0, now_s=monotonic())
        return asyncio.ensure_future(worker.run(stage, load=load, items=1, deadline=deadline))

    stopped = None
    try:
        await worker.start()
        await worker.open_stage(stage)
        assert replicas == []
        answer = await submit(0)
        np.testing.assert_allclose(answer.probabilities, expected[0], rtol=1e-5)
        tell("answered from nothing")

        stopped = replicas[0].far_pid
        assert stopped is not None
        await stop([stopped])
        call = submit(1)
        await until(lambda: worker.running == 1)
        cluster.add_node(num_cpus=1, **NODE)
        cluster.remove_node(node, allow_graceful=False)
        answer = await call
        np.testing.assert_allclose(answer.probabilities, expected[1], rtol=1e-5)
        assert pool.staff is not None
        assert pool.staff.deaths == 1
        assert replicas[-1].far_pid != stopped
        tell("answered over the death of a node")

        pool._bounds = replace(BOUNDS, idle_s=0.01)
        await until(lambda: not pool._seats)
        tell("let go")
    finally:
        await worker.close()
        if stopped is not None:  # it cannot learn that its node is gone
            with contextlib.suppress(ProcessLookupError):
                os.kill(stopped, signal.SIGKILL)


def main(bundles: str, key: str) -> None:
    trust = TrustStore(frozenset({key}))
    stage = (
        open_shelf(BundleShelf(root=Path(bundles), trust=trust, max_batch=4))
        .repository.model("tiny")
        .whole
    )
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **NODE})
    try:
        node = cluster.add_node(num_cpus=1, **NODE)
        join(cluster.address)
        asyncio.run(play(stage, cluster, node))
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
