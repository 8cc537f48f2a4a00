"""An edge of the laboratory, made as new between cells."""

from types import SimpleNamespace
from typing import Any, cast

from wan.edge_process import ObedientEdge

from hybridge.devices.models import LIGHT

from ..bundles import Small
from ..edge.conftest import make_agent


async def test_the_net_of_an_agent_made_as_new_learns_with_it(small: Small) -> None:
    async def nothing() -> None:
        """There is no cloud."""

    agent = make_agent(small, None)
    daemon = SimpleNamespace(agent=agent, disconnect=nothing, connect=nothing)
    edge = ObedientEdge(cast(Any, daemon))
    for _ in range(2):
        for _ in range(50):
            agent.times.observe(LIGHT, 9_000.0)
        slow_ms = agent.net.needs_ms(now_s=0.0)
        await edge._reset()
        assert agent.net.needs_ms(now_s=0.0) < slow_ms / 2
