"""The load generator: many requests in flight, none waiting for another's answer.

    load.py ADDRESS MODEL PICTURE...

Orders on stdin, as JSON, a line each; records go to the file `out`, one a line:

    {"do": "open", "requests": 300, "rate_hz": 20, "budget_ms": 200, "seed": 1,
     "arrivals": "poisson", "start_s": 1234.5, "out": "records.jsonl"}     at times fixed in advance
     with "follow": true, through the app's own client, and final answers are due
    {"do": "finals"}                               waits for them, and counts them by request
    {"do": "closed", "requests": 300, "in_flight": 4, "budget_ms": 2000, "seed": 1,
     "out": "records.jsonl"}                                               as fast as answers come

It runs in the device's namespace, but not on the board: an app's own time is not the agent's.
"""

import argparse
import asyncio
import gc
import selectors
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import grpc
import numpy as np
from wan.arrivals import Arrivals, arrival_times_s, shown
from wan.followed import Asked, Followed
from wan.records import Record, write_records
from wan.workers import Message, orders, reply, take_precedence

from hybridge.client.answer import read_answer
from hybridge.protos import oip
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared import oip as messages
from hybridge.shared.errors import ConfigError, HybridgeError
from hybridge.shared.instant import tell
from hybridge.shared.security import Address, Security

_PATIENCE_MS = 5_000.0
"""How long after its budget an answer is still waited for: late is not lost."""


class Load:
    """Requests to one agent."""

    def __init__(self, address: Address, model: str, pictures: Sequence[Path]) -> None:
        self._channel = Security().channel(address)
        self._stub = oip.Stub(self._channel)
        self._followed = Followed(address, model)
        self._model = model
        self._pictures = [(file.name, file.read_bytes()) for file in pictures]

    async def close(self) -> None:
        await asyncio.to_thread(self._followed.close)
        await self._channel.close()

    async def obey(self, order: Message) -> Message:
        """Runs one order and says how many of its requests were answered."""
        match order["do"]:
            case "open":
                records = await self._open(order)
            case "closed":
                records = await self._closed(order)
            case "finals":
                return {"finals": await asyncio.to_thread(self._followed.finals)}
            case other:
                raise ConfigError(f"no order {other!r}")
        records.sort(key=lambda record: record.index)
        write_records(Path(order["out"]), records)
        answered = sum(record.answered for record in records)
        return {"requests": len(records), "answered": answered, "errors": _faults(records)}

    async def _open(self, order: Message) -> list[Record]:
        times_s = arrival_times_s(
            order["requests"],
            rate_hz=order["rate_hz"],
            seed=order["seed"],
            kind=Arrivals(order.get("arrivals", Arrivals.POISSON)),
        )
        order_of = shown(len(times_s), pictures=len(self._pictures), seed=order["seed"])
        start_s = order.get("start_s", time.monotonic())
        ask = self._ask_and_follow if order.get("follow") else self._ask
        async with asyncio.TaskGroup() as group:
            tasks = []
            for index, (at_s, picture) in enumerate(zip(times_s, order_of, strict=True)):
                await asyncio.sleep(start_s + at_s - time.monotonic())
                asking = ask(index, picture, order["budget_ms"], start_s + at_s)
                tasks.append(group.create_task(asking))
        return [task.result() for task in tasks]

    async def _closed(self, order: Message) -> list[Record]:
        count = order["requests"]
        left = iter(
            enumerate(shown(count, pictures=len(self._pictures), seed=order.get("seed", 0)))
        )
        records: list[Record] = []

        async def ask_on() -> None:
            for index, picture in left:
                records.append(
                    await self._ask(index, picture, order["budget_ms"], time.monotonic())
                )

        async with asyncio.TaskGroup() as group:
            for _ in range(order["in_flight"]):
                group.create_task(ask_on())
        return records

    async def _ask(self, index: int, picture: int, budget_ms: float, scheduled_s: float) -> Record:
        name, encoded = self._pictures[picture]
        request = pb.ModelInferRequest(model_name=self._model, id=uuid.uuid4().hex)
        messages.add_bytes_input(request, messages.PICTURE, [encoded])
        sent_s = time.monotonic()
        messages.set_parameters(
            request.parameters,
            {messages.LATENCY_BUDGET_MS: budget_ms, messages.SENT_AT: tell(sent_s)},
        )
        answer, fault = None, ""
        try:
            response = await self._stub.ModelInfer(
                request, timeout=(budget_ms + _PATIENCE_MS) / 1e3
            )
            answer = read_answer(response, round_trip_ms=0.0)
        except grpc.aio.AioRpcError as error:
            fault = f"{error.code().name}: {error.details()}"
        asked = Asked(request.id, answer, fault)
        return _record(index, name, budget_ms, scheduled_s, sent_s, asked)

    async def _ask_and_follow(
        self, index: int, picture: int, budget_ms: float, scheduled_s: float
    ) -> Record:
        name, encoded = self._pictures[picture]
        sent_s = time.monotonic()
        asked = await asyncio.to_thread(self._followed.ask, encoded, budget_ms)
        return _record(index, name, budget_ms, scheduled_s, sent_s, asked)


def _record(
    index: int, picture: str, budget_ms: float, scheduled_s: float, sent_s: float, asked: Asked
) -> Record:
    answered_s = time.monotonic()
    seen = Record(
        index=index,
        picture=picture,
        budget_ms=budget_ms,
        scheduled_s=scheduled_s,
        sent_s=sent_s,
        answered_s=answered_s,
        round_trip_ms=(answered_s - scheduled_s) * 1e3,
        error=asked.fault,
        request_id=asked.request_id,
    )
    answer = asked.answer
    if answer is None:
        return seen
    return replace(
        seen,
        predicted=int(np.argmax(answer.probabilities)),
        confidence=answer.confidence,
        plan=answer.plan,
        provisional=answer.provisional,
        fallback=answer.fallback,
        sent_bytes=answer.sent_bytes,
        agent_ms=answer.total_ms,
        steps_ms=answer.steps_ms,
        promised=answer.final_follows,
        layers=answer.came.layers if answer.came else 0,
        layers_in_all=answer.came.layers_in_all if answer.came else 0,
    )


def _faults(records: Sequence[Record]) -> list[str]:
    return sorted({record.error for record in records if record.error})


async def _serve(options: argparse.Namespace) -> None:
    load = Load(Address.parse(options.address), options.model, options.pictures)
    gc.collect()
    gc.freeze()  # what is here stays: no collection stops in it
    reply({"ready": True, "pictures": len(options.pictures)})
    async for order in orders():
        try:
            reply(await load.obey(order))
        except HybridgeError as error:
            reply({"error": str(error)})
    await load.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("model")
    parser.add_argument("pictures", type=Path, nargs="+")
    options = parser.parse_args()
    take_precedence(rank=1)
    # epoll rounds up to whole milliseconds, select does not.
    with asyncio.Runner(
        loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())
    ) as runner:
        runner.run(_serve(options))


if __name__ == "__main__":
    main()
