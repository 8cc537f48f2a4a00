"""`hybridge cloud`: the cloud service."""

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from ..shared.cores import usable_cores
from ..shared.errors import ConfigError
from ..shared.manifest import Precision, Runtime
from ..shared.security import Address
from ..shared.sizes import parse_bytes
from .console import console
from .options import add_bundles, add_tls, security, trust

if TYPE_CHECKING:
    from ..cloud.remote import RemoteUrl

_LISTEN, _SAGEMAKER = "127.0.0.1:8500", "127.0.0.1:8080"
ENGINES = ("local", "ray")
_MOST_ACTORS = 8


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "cloud", help="serve bundles: whole models and tails, over the Open Inference Protocol"
    )
    parser.add_argument(
        "--listen", default=_LISTEN, metavar="HOST:PORT", help=f"where gRPC is served ({_LISTEN})"
    )
    parser.add_argument(
        "--http", metavar="HOST:PORT", help="speak the protocol over HTTP there too (off)"
    )
    parser.add_argument(
        "--sagemaker",
        nargs="?",
        const=_SAGEMAKER,
        metavar="HOST:PORT",
        help=f"keep SageMaker's container contract there (off; alone: {_SAGEMAKER})",
    )
    parser.add_argument(
        "--metrics", metavar="HOST:PORT", help="serve Prometheus' /metrics there (off)"
    )
    parser.add_argument(
        "--instances",
        type=int,
        default=None,
        metavar="N",
        help="parallel runs, in each worker if there are any (one for each core; of Ray, 1)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=None,
        metavar="N",
        help="compute in N processes beneath this one (0: in this one); of Ray, at most N actors "
        "(8)",
    )
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default=ENGINES[0],
        help="what the workers are: processes of this machine, or actors of a Ray cluster",
    )
    parser.add_argument(
        "--least-workers", type=int, default=0, metavar="N", help="of Ray: actors that stay (0)"
    )
    parser.add_argument(
        "--idle-worker-s",
        type=float,
        default=60.0,
        metavar="S",
        help="of Ray: when others go (60 s)",
    )
    parser.add_argument(
        "--ray-address", metavar="ADDRESS", help="of Ray: the cluster to join (one of its own)"
    )
    parser.add_argument(
        "--queue", type=int, default=64, metavar="N", help="requests waiting per model (64)"
    )
    parser.add_argument(
        "--share",
        action="append",
        default=[],
        metavar="MODEL=WEIGHT",
        help="under overload models have the instances by their weights (1 each); may be repeated",
    )
    parser.add_argument(
        "--max-batch",
        type=int,
        default=8,
        metavar="N",
        help="items computed together, and in one request (8)",
    )
    parser.add_argument(
        "--precision",
        choices=[str(each) for each in Precision],
        default=str(Precision.FLOAT32),
        help="arithmetic of models and tails (float32); a bundle has what its recipe asked for",
    )
    parser.add_argument(
        "--runtime",
        choices=[str(each) for each in Runtime],
        default=None,
        help="what computes; without it, what a bundle was built for in this precision",
    )
    parser.add_argument(
        "--preload", action="store_true", help="serve nothing before every tail is loaded"
    )
    parser.add_argument(
        "--model-control", action="store_true", help="let callers load and unload bundles of DIR"
    )
    parser.add_argument(
        "--model-repository",
        type=Path,
        metavar="DIR",
        help="serve the models there too: MODEL/config.pbtxt, MODEL/1/model.onnx, as Triton does",
    )
    parser.add_argument(
        "--remote",
        action="append",
        default=[],
        metavar="BUNDLE=URL",
        help="the whole large model of a bundle is computed there: grpc://HOST:PORT/MODEL, by "
        "Triton, KServe or another of these; may be repeated",
    )
    parser.add_argument(
        "--poll", type=float, metavar="SECONDS", help="follow what changes in DIR, so often (off)"
    )
    parser.add_argument(
        "--memory-limit",
        metavar="SIZE",
        help="take at most so much memory (4GiB): models are loaded when called, the least "
        "recently used unloaded, and of one that does not fit a part is read for every run (off)",
    )
    parser.add_argument(
        "--idle-unload-s",
        type=float,
        metavar="S",
        help="load models when they are called, and unload those nobody has called for S seconds",
    )
    parser.add_argument(
        "--request-memory",
        default="1GiB",
        metavar="SIZE",
        help="what requests and their answers may take until these are sent (1GiB); no connection "
        "more than a quarter",
    )
    parser.add_argument(
        "--http-connections", type=int, default=1024, metavar="N", help="of each HTTP port (1024)"
    )
    parser.add_argument(
        "--grpc-connections", type=int, default=1024, metavar="N", help="of the gRPC port (1024)"
    )
    parser.add_argument(
        "--shared-memory",
        action="store_true",
        help="let callers on this machine pass tensors in shared memory (POSIX objects they name)",
    )
    parser.add_argument(
        "--advertise", action="store_true", help="announce it to edges on the local network (mDNS)"
    )
    add_bundles(parser)
    add_tls(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from ..cloud.config import CloudConfig, Engine  # with the extra `cloud` alone
    from ..cloud.server import serve

    engine = Engine(options.engine)
    workers = options.workers
    if workers is None:
        workers = _MOST_ACTORS if engine is Engine.RAY else 0
    cores_each = 1 if engine is Engine.RAY else max(1, usable_cores() // max(1, workers))
    config = CloudConfig(
        bundles=options.bundles,
        model_repository=options.model_repository,
        remotes=dict(_remote(text) for text in options.remote),
        address=Address.parse(options.listen),
        http=_address(options.http),
        sagemaker=_address(options.sagemaker),
        metrics=_address(options.metrics),
        security=security(options),
        trust=trust(options),
        queue_limit=options.queue,
        shares=dict(_share(text) for text in options.share),
        max_batch=options.max_batch,
        precision=Precision(options.precision),
        runtime=Runtime(options.runtime) if options.runtime else None,
        preload=options.preload,
        model_control=options.model_control,
        poll_s=options.poll,
        memory_limit_bytes=parse_bytes(options.memory_limit) if options.memory_limit else None,
        idle_unload_s=options.idle_unload_s,
        request_memory_bytes=parse_bytes(options.request_memory),
        http_connections=options.http_connections,
        grpc_connections=options.grpc_connections,
        shared_memory=options.shared_memory,
        advertise=options.advertise,
        instances=cores_each if options.instances is None else options.instances,
        workers=workers,
        engine=engine,
        least_workers=options.least_workers,
        idle_worker_s=options.idle_worker_s,
        ray_address=options.ray_address,
    )
    asyncio.run(serve(config, on_listening=_announce))
    return 0


def _remote(text: str) -> "tuple[str, RemoteUrl]":
    from ..cloud.remote import RemoteUrl

    name, _, url = text.partition("=")
    return name, RemoteUrl.parse(url)


def _share(text: str) -> tuple[str, float]:
    name, _, weight = text.partition("=")
    try:
        return name, float(weight)
    except ValueError:
        raise ConfigError(f"{text!r} is no share; write --share MODEL=WEIGHT") from None


def _address(text: str | None) -> Address | None:
    return None if text is None else Address.parse(text)


def _announce(address: Address) -> None:
    console.print(f"hybridge cloud listening on {address}")
