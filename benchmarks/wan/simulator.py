"""One cell in virtual time: the link, the times and the pictures that the laboratory would take."""

import asyncio
import random
from dataclasses import dataclass

import numpy as np

from hybridge.edge.agent import Agent
from hybridge.edge.processor import ProcessorLoad
from hybridge.edge.stage_times import StageTimes
from hybridge.edge.uplink import Uplink
from hybridge.shared.bundle import Bundle
from hybridge.shared.deadline import Deadline

from .answers import Answers
from .arrivals import Arrivals, arrival_times_s, shown
from .link_model import Link, LinkSpec
from .policies import demand_of, make_policy
from .records import Cell, Measured, Record
from .simulated import (
    STAMP,
    Board,
    Pipe,
    SimulatedBench,
    SimulatedCloud,
    SimulatedConnection,
)
from .virtual import run_virtually

SETTLE_S = 4.0
"""From a link's beginning to the first request, as in the laboratory."""
_MANY = 100_000


@dataclass(frozen=True, kw_only=True)
class World:
    """What does not change from cell to cell. `tails_ms` is by contract, one run."""

    bundle: Bundle
    answers: Answers
    board: Board
    tails_ms: dict[str, float]
    instances: int = 1


def simulate(
    cell: Cell, world: World, *, link: LinkSpec, arrivals: Arrivals = Arrivals.EVEN
) -> Measured:
    """A cell over a link, as the laboratory would have measured it."""
    return Measured(cell, run_virtually(_run(cell, world, link, arrivals)))


async def _run(cell: Cell, world: World, spec: LinkSpec, arrivals: Arrivals) -> list[Record]:
    clock = asyncio.get_running_loop().time
    manifest = world.bundle.manifest
    link = Link(spec, seed=cell.seed, start_s=clock(), offset_s=cell.offset_s)
    again_s = (spec.up.delay_ms + spec.down.delay_ms) / 1e3 + 0.05
    up, down = Pipe(link.up, again_s=again_s), Pipe(link.down, again_s=again_s)
    cloud = SimulatedCloud(
        manifest=manifest,
        answers=world.answers,
        tails_ms=world.tails_ms,
        instances=world.instances,
        seed=cell.seed,
    )
    bench = SimulatedBench(world.board, world.answers, manifest, seed=cell.seed)
    uplink = Uplink(
        lambda: SimulatedConnection(cloud, up=up, down=down, effort=bench.exchange),
        clock=clock,
        name="simulated",
        chance=random.Random(cell.seed),
    )
    agent = Agent(
        world.bundle,
        bench=bench,
        times=StageTimes(world.board.known),
        uplink=uplink,
        clock=clock,
        policy=make_policy(cell.policy),
        demand=demand_of(cell.policy),
        processor=ProcessorLoad(wall_per_cpu=1 / world.board.share),
        cpu_clock=bench.cpu_s,
        max_requests=_MANY,
    )
    await uplink.startup()
    start_s = clock() + SETTLE_S
    times_s = arrival_times_s(cell.requests, rate_hz=cell.rate_hz, seed=cell.seed, kind=arrivals)
    pictures = shown(cell.requests, pictures=len(world.answers.pictures), seed=cell.seed)
    asking: list[asyncio.Task[Record]] = []
    try:
        for index, (at_s, picture) in enumerate(zip(times_s, pictures, strict=True)):
            await asyncio.sleep(max(start_s + at_s - clock(), 0.0))
            asked = _Asked(index, picture, world.answers.pictures[picture], cell.budget_ms)
            asking.append(asyncio.ensure_future(_ask(agent, bench, asked)))
        return list(await asyncio.gather(*asking))
    finally:
        agent.close()
        await uplink.shutdown()


@dataclass(frozen=True, slots=True)
class _Asked:
    index: int
    picture: int
    name: str
    budget_ms: float


async def _ask(agent: Agent, bench: SimulatedBench, asked: _Asked) -> Record:
    began_s = agent.clock()
    deadline = Deadline.after_ms(asked.budget_ms, now_s=began_s)
    await bench.transport()
    way_in_ms = deadline.spent_ms(agent.clock())
    answer = await agent.answer(STAMP.pack(asked.picture, 0), deadline, way_in_ms=way_in_ms)
    ready_s = agent.clock()
    await bench.transport()
    answered_s = agent.clock()
    agent.lateness.left((answered_s - ready_s) * 1e3)
    return Record(
        index=asked.index,
        picture=asked.name,
        budget_ms=asked.budget_ms,
        scheduled_s=began_s,
        sent_s=began_s,
        answered_s=answered_s,
        round_trip_ms=(answered_s - began_s) * 1e3,
        predicted=int(np.argmax(answer.probabilities)),
        confidence=answer.confidence,
        plan=str(answer.plan),
        provisional=answer.provisional,
        fallback=answer.fallback,
        sent_bytes=answer.sent_bytes,
        agent_ms=answer.total_ms,
        steps_ms=answer.steps_ms,
        layers=answer.came.layers if answer.came else 0,
        layers_in_all=answer.came.layers_in_all if answer.came else 0,
    )
