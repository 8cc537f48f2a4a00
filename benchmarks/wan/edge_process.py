"""The edge, as `hybridge edge` runs it, but obeying: one start serves a whole matrix.

    edge_process.py BUNDLE CLOUD_ADDRESS [--trust FILE]...

Orders on stdin, as JSON, a line each:

    {"do": "policy", "name": "ours", "within_s": 3}   another policy; what was learnt is forgotten
    {"do": "reset", "within_s": 3}                    the same policy; what was learnt is forgotten
    {"do": "alone"}                                   without a cloud, until the next of these two
    {"do": "reachable", "within_s": 3}                waits until the cloud is
    {"do": "link"}                                    the link as the agent estimates it
"""

import argparse
import asyncio
import contextlib
import copy
import logging
import sys
from dataclasses import asdict
from math import isfinite
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from wan.policies import demand_of, make_policy
from wan.workers import Message, orders, reply

from hybridge.cli.options import trust
from hybridge.edge.config import EdgeConfig
from hybridge.edge.daemon import EdgeDaemon
from hybridge.edge.policy import Policy
from hybridge.edge.uplink import Uplink
from hybridge.shared.daemon import keep_what_is_there
from hybridge.shared.deadline import monotonic
from hybridge.shared.errors import ConfigError, HybridgeError, RemoteError
from hybridge.shared.security import Address, Security

_AGAIN_S = 0.1
_LISTEN = Address("127.0.0.1", 8600)


def policy_named(name: str) -> Policy:
    """A policy by its name; ConfigError if there is none."""
    try:
        return make_policy(name)
    except ValueError as error:
        raise ConfigError(str(error)) from error


class ObedientEdge:
    """An edge daemon whose agent can be made as new."""

    def __init__(self, daemon: EdgeDaemon) -> None:
        self._daemon = daemon
        self._agent = daemon.agent
        agent = self._agent
        self._fresh = copy.deepcopy((agent.times, agent.assurance, agent.lateness, agent.net))

    async def obey(self, order: Message) -> Message:
        match order["do"]:
            case "policy":
                policy = policy_named(order["name"])
                await self._reset()
                self._agent.policy = policy
                self._agent.demand = demand_of(order["name"])
                return await self._reachable(order)
            case "reset":
                await self._reset()
                return await self._reachable(order)
            case "alone":
                await self._daemon.disconnect()
                return {"reachable": False}
            case "reachable":
                return await self._reachable(order)
            case "link":
                uplink = self._agent.uplink
                reading = uplink.link.reading(now_s=monotonic()) if uplink is not None else None
                return {"link": None if reading is None else asdict(reading)}
            case other:
                raise ConfigError(f"no order {other!r}")

    async def _reset(self) -> None:
        await self._daemon.disconnect()
        agent = self._agent
        fresh = copy.deepcopy(self._fresh)  # at once: the net knows its times
        agent.times, agent.assurance, agent.lateness, agent.net = fresh
        await self._daemon.connect()

    async def _reachable(self, order: Message) -> Message:
        """Waits until the cloud can be reached and has loaded, but no longer than ordered."""
        uplink = self._agent.uplink
        if uplink is None:
            return {"reachable": False}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(order.get("within_s", 3.0)):
                while not (uplink.breaker.closed and self._serves(uplink)):
                    await uplink.reachable()
                    with contextlib.suppress(RemoteError):
                        await uplink.probe(0)  # a cloud that is still loading says so
                    await asyncio.sleep(_AGAIN_S)
        return {"reachable": uplink.breaker.closed and self._serves(uplink)}

    def _serves(self, uplink: Uplink) -> bool:
        """Whether the cloud has said how long the whole model takes."""
        whole = self._agent.manifest.large.pixels.id
        return isfinite(uplink.cloud.forecast(whole, now_s=monotonic()).mean_ms)


async def _serve(options: argparse.Namespace) -> None:
    daemon = EdgeDaemon(
        EdgeConfig(
            bundle=options.bundle,
            listen=_LISTEN,
            trust=trust(options),
            cloud=Address.parse(options.cloud),
            security=Security(insecure=True),
        )
    )
    await daemon.startup()
    try:
        edge = ObedientEdge(daemon)
        keep_what_is_there()
        reply({"ready": True, "address": str(daemon.address)})
        async for order in orders():
            try:
                reply(await edge.obey(order))
            except HybridgeError as error:
                reply({"error": str(error)})
    finally:
        await daemon.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("cloud")
    parser.add_argument("--trust", type=Path, action="append", default=[])
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    asyncio.run(_serve(options))


if __name__ == "__main__":
    main()
