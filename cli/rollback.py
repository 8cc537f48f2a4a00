"""`hybridge rollback`: which version of a model answers, on a cloud that runs."""

import argparse
import asyncio

import grpc

from ..protos import open_inference_pb2 as pb
from ..protos.oip import Stub
from ..shared.errors import from_rpc
from ..shared.security import Address, Security
from .console import console
from .options import add_tls, security

_WAIT_S = 660.0
"""A version that is not served yet is tried and loaded first."""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "rollback", help="let an older version of a model answer, now and after restarts"
    )
    parser.add_argument("model", metavar="MODEL", help="its name, as the repository index has it")
    parser.add_argument(
        "--to",
        default="previous",
        metavar="VERSION",
        help="a version, or `newest` to follow new versions again (the one before the present)",
    )
    parser.add_argument(
        "--at", default="127.0.0.1:8500", metavar="HOST:PORT", help="the cloud (127.0.0.1:8500)"
    )
    add_tls(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    address = Address.parse(options.at)
    versions = asyncio.run(_roll(options.model, options.to, address, security(options)))
    console.print(f"{options.model}: version {versions[0]} answers", end="")
    console.print(f"; {', '.join(versions[1:])} by name" if versions[1:] else "")
    return 0


async def _roll(model: str, version: str, address: Address, using: Security) -> list[str]:
    """The versions that are served then, the default first."""
    request = pb.RepositoryModelLoadRequest(model_name=model)
    request.parameters["version"].string_param = version
    try:
        async with using.channel(address) as channel:
            stub = Stub(channel)
            await stub.RepositoryModelLoad(request, timeout=_WAIT_S)
            about = await stub.ModelMetadata(pb.ModelMetadataRequest(name=model), timeout=_WAIT_S)
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error) from error
    return list(about.versions)
