"""One cell in virtual time: a link, a budget, a policy, and requests that come when they come."""

import asyncio
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hybridge.edge.agent import Agent
from hybridge.edge.answer import Answer
from hybridge.edge.demand import ANYTHING, Demand
from hybridge.edge.stage_times import StageTimes
from hybridge.edge.uplink import Uplink
from hybridge.shared.bundle import Bundle
from hybridge.shared.deadline import Deadline
from hybridge.shared.manifest import Manifest

from .answers import Answers
from .link_model import Link, LinkSpec
from .policies import make_policy
from .simulated import (
    STAMP,
    Board,
    Pipe,
    SimulatedBench,
    SimulatedCloud,
    SimulatedConnection,
)
from .virtual import run_virtually

_SETTLE_S = 1.0
"""Before the first request: an edge has measured its link when it opens its port."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is run. `rate_hz` requests a second come, evenly but for half an interval of jitter."""

    link: LinkSpec
    budget_ms: float
    policy: str
    requests: int
    rate_hz: float
    seed: int = 0
    offset_s: float = 0.0
    demand: Demand = ANYTHING


@dataclass(frozen=True, slots=True)
class Record:
    """What became of one request. `picture` is its place in the table of answers."""

    picture: int
    predicted: int
    plan: str
    total_ms: float
    budget_ms: float
    provisional: bool
    fallback: str
    sent_bytes: int

    @property
    def in_time(self) -> bool:
        return self.total_ms <= self.budget_ms


@dataclass(frozen=True, kw_only=True)
class World:
    """What does not change from cell to cell."""

    bundle: Bundle
    answers: Answers
    board: Board
    tails_ms: dict[str, float]
    instances: int = 1


def simulate(cell: Cell, world: World) -> list[Record]:
    """The records of a cell, in the order of the requests."""
    return run_virtually(_run(cell, world))


async def _run(cell: Cell, world: World) -> list[Record]:
    loop = asyncio.get_running_loop()
    clock = loop.time
    manifest = world.bundle.manifest
    link = Link(cell.link, seed=cell.seed, start_s=clock(), offset_s=cell.offset_s)
    again_s = (cell.link.up.delay_ms + cell.link.down.delay_ms) / 1e3 + 0.05
    up, down = Pipe(link.up, again_s=again_s), Pipe(link.down, again_s=again_s)
    cloud = SimulatedCloud(
        manifest=manifest,
        answers=world.answers,
        tails_ms=world.tails_ms,
        instances=world.instances,
        seed=cell.seed,
    )
    uplink = Uplink(
        lambda: SimulatedConnection(cloud, link, up, down), clock=clock, name="simulated"
    )
    agent = Agent(
        world.bundle,
        bench=SimulatedBench(world.board, world.answers, manifest, seed=cell.seed),
        times=StageTimes(world.board.stages),
        uplink=uplink,
        clock=clock,
        policy=make_policy(cell.policy),
        demand=cell.demand,
        max_requests=100_000,
    )
    await uplink.startup()
    await asyncio.sleep(_SETTLE_S)
    try:
        tasks = []
        start_s = clock()
        for picture, at_s in itertools.islice(_arrivals(cell, world.answers), cell.requests):
            await asyncio.sleep(max(start_s + at_s - clock(), 0.0))
            tasks.append(asyncio.ensure_future(_ask(agent, picture, cell.budget_ms)))
        return list(await asyncio.gather(*tasks))
    finally:
        agent.close()
        await uplink.shutdown()


async def _ask(agent: Agent, picture: int, budget_ms: float) -> Record:
    deadline = Deadline.after_ms(budget_ms, now_s=agent.clock())
    answer: Answer = await agent.answer(STAMP.pack(picture, 0), deadline)
    return Record(
        picture=picture,
        predicted=int(np.argmax(answer.probabilities)),
        plan=str(answer.plan),
        total_ms=answer.total_ms,
        budget_ms=budget_ms,
        provisional=answer.provisional,
        fallback=answer.fallback,
        sent_bytes=answer.sent_bytes,
    )


def _arrivals(cell: Cell, answers: Answers) -> Iterator[tuple[int, float]]:
    """Pictures in a shuffled round, and when each comes."""
    drawn = random.Random(cell.seed)
    count = len(answers.pictures)
    number = 0
    while True:
        for picture in drawn.sample(range(count), count):
            yield picture, (number + drawn.uniform(0.0, 0.5)) / cell.rate_hz
            number += 1
