"""New versions under full load: what fails, and how much slower the slowest become.

Each swap: a new version is written, the one in service is removed from disk, and the server is told
to load; it tries, loads and warms up the new one, switches, and drains and unloads the old. The
client keeps so many requests under way all the time; those sent in the moments before each swap are
what those sent during it are compared with.
"""

import argparse
import asyncio
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
from _common import Target, progress
from serving.client import GrpcCaller, infer_caller
from serving.findings import Asked, Findings
from serving.models import MOBILE_UINT8, Served, make_models, write_served
from serving.processes import cloud

from hybridge.cli.console import table
from hybridge.protos import open_inference_pb2 as pb
from hybridge.protos.oip import Stub
from hybridge.shared.security import Address, Security

_SWAPS, _QUICK_SWAPS = 20, 3
_BEFORE_S, _SETTLE_S = 1.5, 0.2
_MOST = 2.0
ASKED = [Asked("hot_swap: failed", "requests", 0), Asked("hot_swap: p99", "x before", _MOST)]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hot-swap-concurrency", type=int, default=8, metavar="N")


def measure(options: argparse.Namespace) -> Findings:
    served, store = MOBILE_UINT8, make_models()
    swaps = _QUICK_SWAPS if options.quick else _SWAPS
    with tempfile.TemporaryDirectory() as folder:
        bundles = _Bundles(Path(folder), served, store.onnx(served).read_bytes())
        bundles.write(1)
        with cloud(bundles.root, "--model-control") as process:
            seen = asyncio.run(
                _swap_under_load(
                    process.address, bundles, swaps=swaps, concurrency=options.hot_swap_concurrency
                )
            )
    return _findings(seen, swaps=swaps, concurrency=options.hot_swap_concurrency)


@dataclass(frozen=True)
class _Bundles:
    root: Path
    served: Served
    graph: bytes

    def write(self, version: int) -> None:
        write_served(self.served, root=self.root, graph=self.graph, version=str(version))

    def remove(self, version: int) -> None:
        shutil.rmtree(self.root / self.served.name / str(version))


@dataclass
class _Seen:
    """Latencies by whether a swap was under way when the request was sent."""

    before_ms: list[float] = field(default_factory=list)
    during_ms: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    swaps_s: list[float] = field(default_factory=list)


class _Load:
    """Keeps requests under way until told to end."""

    def __init__(self, caller: GrpcCaller, seen: _Seen) -> None:
        self._caller = caller
        self._seen = seen
        self.into: list[float] | None = None
        self.ended = False

    async def keep_asking(self) -> None:
        while not self.ended:
            into, sent_s = self.into, time.perf_counter()
            try:
                await self._caller.call()
            except grpc.aio.AioRpcError as error:
                self._seen.failed.append(f"{error.code().name}: {error.details()}")
                continue
            if into is not None:
                into.append((time.perf_counter() - sent_s) * 1e3)


async def _swap_under_load(
    address: Address, bundles: _Bundles, *, swaps: int, concurrency: int
) -> _Seen:
    seen = _Seen()
    load = _Load(infer_caller(address, bundles.served), seen)
    request = pb.RepositoryModelLoadRequest(model_name=bundles.served.name)
    async with Security().channel(address) as channel:
        asking = [asyncio.create_task(load.keep_asking()) for _ in range(concurrency)]
        with progress("hot swaps", swaps) as step:
            for version in range(1, swaps + 1):
                await asyncio.sleep(_SETTLE_S)
                load.into = seen.before_ms
                await asyncio.sleep(_BEFORE_S)
                load.into = None
                await asyncio.to_thread(bundles.write, version + 1)
                await asyncio.to_thread(bundles.remove, version)
                load.into, start_s = seen.during_ms, time.perf_counter()
                await Stub(channel).RepositoryModelLoad(request)
                seen.swaps_s.append(time.perf_counter() - start_s)
                load.into = None
                await _check(channel, bundles.served.name, version + 1)
                step()
        load.ended = True
        await asyncio.gather(*asking)
    return seen


async def _check(channel: grpc.aio.Channel, name: str, version: int) -> None:
    about = await Stub(channel).ModelMetadata(pb.ModelMetadataRequest(name=name))
    assert list(about.versions) == [str(version)], about.versions


def _findings(seen: _Seen, *, swaps: int, concurrency: int) -> Findings:
    before_ms, during_ms = (
        float(np.quantile(samples, 0.99)) for samples in (seen.before_ms, seen.during_ms)
    )
    note = f"{swaps} swaps; {_SWAPS} are asked" if swaps < _SWAPS else ""
    rows = [
        (
            when,
            str(len(samples)),
            *(f"{np.quantile(samples, share):.1f}" for share in (0.5, 0.99)),
            f"{max(samples):.1f}",
        )
        for when, samples in (("before", seen.before_ms), ("during", seen.during_ms))
    ]
    return Findings(
        targets=[
            Target.at_most(
                "hot_swap: failed", len(seen.failed), unit="requests", bound=0, note=note
            ),
            Target.at_most(
                "hot_swap: p99", during_ms / before_ms, unit="x before", bound=_MOST, note=note
            ),
        ],
        figures={
            "swaps": swaps,
            "concurrency": concurrency,
            "requests_during": len(seen.during_ms),
            "p99_before_ms": before_ms,
            "p99_during_ms": during_ms,
            "swap_median_s": float(np.median(seen.swaps_s)),
            "failures": seen.failed[:10],
        },
        samples={"swaps_s": seen.swaps_s},
        tables=[
            table(
                f"hot swaps at {concurrency} under way (ms)",
                ("", "requests", "p50", "p99", "max"),
                rows,
            )
        ],
    )
