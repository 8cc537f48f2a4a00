"""`hybridge edge`: the agent on a device."""

import argparse
import asyncio
import math

from ..edge.audit import AuditSettings
from ..edge.demand import Demand
from ..shared.bundle import find_bundle
from ..shared.cascade import DELTA
from ..shared.objective import Objective
from ..shared.security import Address
from .console import console
from .options import add_bundles, add_objective, add_tls, security, trust
from .prices import add_prices, prices_of


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
    _add_demand(parser.add_argument_group("what is wanted, unless a request says otherwise"))
    add_prices(parser.add_argument_group("what things cost, for the objectives energy and cost"))
    add_bundles(parser)
    add_tls(parser)
    parser.set_defaults(run=run)


def _add_demand(group: "argparse._ArgumentGroup") -> None:
    add_objective(group)
    group.add_argument(
        "--min-agreement",
        type=float,
        metavar="SHARE",
        help="an answer that agrees with the large model so often is good enough, such as 0.98; "
        "the light model's own answers only where the bundle's pictures guarantee it",
    )
    group.add_argument(
        "--delta",
        type=float,
        default=DELTA,
        metavar="SHARE",
        help="how improbable it shall be that the guarantee is wrong (default %(default)s)",
    )
    group.add_argument(
        "--audit",
        type=float,
        default=AuditSettings().share,
        metavar="SHARE",
        help="of the light model's answers that stand, checked in the cloud (default %(default)s)",
    )
    group.add_argument("--only-cuts", action="store_true", help="no picture leaves the device")
    group.add_argument(
        "--max-similarity",
        type=float,
        default=1.0,
        metavar="SSIM",
        help="what leaves the device gives away no more of the picture, as measured by `hybridge "
        "privacy`; what was never measured does not leave it (default %(default)g: anything may)",
    )
    group.add_argument("--bytes-per-hour", type=float, default=math.inf, metavar="N")
    group.add_argument(
        "--follow",
        type=float,
        default=5_000.0,
        metavar="MS",
        help="how long a final answer is waited for after a provisional one (default %(default)g)",
    )


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
        objective=Objective(options.objective) if options.objective else None,
        min_agreement=options.min_agreement,
        demand=Demand(
            only_cuts=options.only_cuts,
            max_similarity=options.max_similarity,
            bytes_per_hour=options.bytes_per_hour,
        ),
        prices=prices_of(options),
        audit=AuditSettings(share=options.audit),
        delta=options.delta,
        follow_ms=options.follow,
    )
    asyncio.run(serve(config, on_listening=_announce))
    return 0


def _announce(address: Address) -> None:
    console.print(f"hybridge edge listening on {address}")
