"""What is done for a request after it was answered: its final answer, and audits."""

import asyncio
import contextlib
import math
import random

from msgspec.structs import replace

from ..shared.errors import NotAllowed, RemoteUnavailable, RemoteUnlike
from .answer import Answer
from .cloud_messages import CloudAnswer
from .ledger import Purpose
from .run import Run, fault_of
from .sent import Sent

_AGAIN_S = (0.05, 0.25)
"""Between attempts at a final answer; twice as long after each that the cloud did not want."""
_MOST_AUDITS = 3
"""Attempts at one audit, while connections break."""


async def finish_later(run: Run, sent: Sent | None, given: Answer) -> None:
    """Delivers the final answer: what is under way, or another attempt once there is a cloud.

    If none comes within the agent's `follow_ms`, the answer already given is the final one.
    """
    agent, uplink, on_final = run.agent, run.agent.uplink, run.on_final
    assert on_final is not None, "only those who asked are followed up"
    task = sent.task if sent is not None else None
    option = sent.option if sent is not None else run.best_remote()
    reason, patience = given.fallback, 1.0
    try:
        async with asyncio.timeout(agent.follow_ms / 1e3):
            while uplink is not None and option is not None:
                if task is None:
                    await uplink.reachable()
                    task = asyncio.ensure_future(
                        run.through_cloud(
                            option.plan, grace_ms=agent.follow_ms, purpose=Purpose.FINALS
                        )
                    )
                await asyncio.wait((task,))
                fault = fault_of(task)
                if fault is None:
                    on_final(run.from_cloud(task.result(), option.plan, final=True))
                    return
                task, reason = None, str(fault)
                if isinstance(fault, RemoteUnlike):
                    option = run.best_remote()  # another that there is a cloud for
                    if option is None or option.total_ms == math.inf:
                        break
                elif isinstance(fault, NotAllowed):
                    break  # nor will it be in a moment
                await asyncio.sleep(patience * random.uniform(*_AGAIN_S))  # noqa: S311  jitter
                if not isinstance(fault, RemoteUnavailable):
                    patience *= 2
    except TimeoutError:
        reason = f"no answer within {agent.follow_ms:g} ms of the deadline"
    finally:
        if task is not None:
            task.cancel()
    finish_without(run, given, reason)


def finish_without(run: Run, given: Answer, reason: str) -> None:
    """The answer that was given stays the final one."""
    assert run.on_final is not None, "only those who asked are followed up"
    run.on_final(replace(given, final=True, fallback=f"no final answer: {reason}"))


async def best_answer(run: Run, *, grace_ms: float) -> CloudAnswer:
    """The cloud's answer by the best plan there is, for an audit; RemoteError if none comes."""
    best, uplink = run.best_remote(), run.agent.uplink
    if best is None or uplink is None:
        raise RemoteUnavailable("no plan may be taken")
    for _ in range(_MOST_AUDITS - 1):
        # A connection that is replaced takes what was under way along: just where a link is bad.
        with contextlib.suppress(RemoteUnavailable):
            return await run.through_cloud(best.plan, grace_ms=grace_ms, purpose=Purpose.AUDITS)
        await uplink.reachable_within(grace_ms / 1e3)
    return await run.through_cloud(best.plan, grace_ms=grace_ms, purpose=Purpose.AUDITS)
