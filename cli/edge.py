"""`hybridge edge`: the agent on a device."""

import argparse
import asyncio

from ..shared.bundle import find_bundle
from ..shared.security import Address
from .console import console
from .options import add_bundles, add_tls, security, trust


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "edge", help="answer pictures on a device, with a cloud's help where time allows"
    )
    parser.add_argument("--bundle", required=True, metavar="NAME|DIR")
    parser.add_argument("--bundle-version", default="", metavar="N", help="the newest if not given")
    parser.add_argument("--listen", default="127.0.0.1:8600", metavar="HOST:PORT")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--cloud", metavar="HOST:PORT", help="looked for on the local network if not given"
    )
    where.add_argument("--alone", action="store_true", help="never use a cloud")
    parser.add_argument("--threads", type=int, default=1, help="per model run")
    parser.add_argument("--max-requests", type=int, default=64, help="under way at once")
    add_bundles(parser)
    add_tls(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from ..edge.config import EdgeConfig  # with the extra `edge` alone
    from ..edge.daemon import serve

    config = EdgeConfig(
        bundle=find_bundle(options.bundle, root=options.bundles, version=options.bundle_version),
        listen=Address.parse(options.listen),
        trust=trust(options),
        cloud=Address.parse(options.cloud) if options.cloud else None,
        discover=not (options.cloud or options.alone),
        security=security(options),
        threads=options.threads,
        max_requests=options.max_requests,
    )
    asyncio.run(serve(config, on_listening=_announce))
    return 0


def _announce(address: Address) -> None:
    console.print(f"hybridge edge listening on {address}")
