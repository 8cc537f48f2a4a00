"""The load generator: many requests in flight, none waiting for another's answer.

    load.py ADDRESS MODEL PICTURE...

Orders on stdin, as JSON, a line each; records go to the file `out`, one a line:

    {"do": "open", "requests": 300, "rate_hz": 20, "budget_ms": 200, "seed": 1,
     "arrivals": "poisson", "start_s": 1234.5, "out": "records.jsonl"}     at times fixed in advance
    {"do": "closed", "requests": 300, "in_flight": 4, "budget_ms": 2000, "seed": 1,
     "out": "records.jsonl"}                                               as fast as answers come

It runs in the device's namespace, but not on the board: an app's own time is not the agent's.
"""

import argparse
import asyncio
import gc
import os
import selectors
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import grpc
import numpy as np
from wan.arrivals import Arrivals, arrival_times_s, shown
from wan.records import Record, write_records
from wan.workers import Message, orders, reply

from hybridge.protos import oip
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared import oip as messages
from hybridge.shared.errors import ConfigError, HybridgeError
from hybridge.shared.security import Address, Security

_PATIENCE_MS = 5_000.0
"""How long after its budget an answer is still waited for: late is not lost."""
_NICE = -10


class Load:
    """Requests to one agent."""

    def __init__(self, address: Address, model: str, pictures: Sequence[Path]) -> None:
        self._channel = Security().channel(address)
        self._stub = oip.Stub(self._channel)
        self._model = model
        self._pictures = [(file.name, file.read_bytes()) for file in pictures]

    async def close(self) -> None:
        await self._channel.close()

    async def obey(self, order: Message) -> Message:
        """Runs one order and says how many of its requests were answered."""
        match order["do"]:
            case "open":
                records = await self._open(order)
            case "closed":
                records = await self._closed(order)
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
        async with asyncio.TaskGroup() as group:
            tasks = []
            for index, (at_s, picture) in enumerate(zip(times_s, order_of, strict=True)):
                await asyncio.sleep(start_s + at_s - time.monotonic())
                asking = self._ask(index, picture, order["budget_ms"], start_s + at_s)
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
        messages.set_parameters(request.parameters, {messages.LATENCY_BUDGET_MS: budget_ms})
        sent_s = time.monotonic()
        try:
            response = await self._stub.ModelInfer(
                request, timeout=(budget_ms + _PATIENCE_MS) / 1e3
            )
        except grpc.aio.AioRpcError as error:
            fault = f"{error.code().name}: {error.details()}"
            return _record(index, name, budget_ms, scheduled_s, sent_s, None, fault)
        return _record(index, name, budget_ms, scheduled_s, sent_s, response, "")


def _record(
    index: int,
    picture: str,
    budget_ms: float,
    scheduled_s: float,
    sent_s: float,
    response: pb.ModelInferResponse | None,
    fault: str,
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
        error=fault,
    )
    return seen if response is None else _with_answer(seen, response)


def _with_answer(seen: Record, response: pb.ModelInferResponse) -> Record:
    values = messages.get_parameters(response.parameters)
    probabilities = messages.output_array(response, messages.PROBABILITIES)[0]
    return Record(
        index=seen.index,
        picture=seen.picture,
        budget_ms=seen.budget_ms,
        scheduled_s=seen.scheduled_s,
        sent_s=seen.sent_s,
        answered_s=seen.answered_s,
        round_trip_ms=seen.round_trip_ms,
        answers=1,
        predicted=int(np.argmax(probabilities)),
        confidence=messages.number(values, messages.CONFIDENCE) or 0.0,
        plan=str(values.get(messages.PLAN, "")),
        provisional=bool(values.get(messages.PROVISIONAL, False)),
        fallback=str(values.get("fallback", "")),
        sent_bytes=int(messages.number(values, "sent_bytes") or 0),
        agent_ms=messages.number(values, "total_ms") or 0.0,
        steps_ms={
            name.removeprefix("step_").removesuffix("_ms"): float(value)
            for name, value in values.items()
            if name.startswith("step_")
        },
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
    os.nice(_NICE)  # what is measured is the agent, not this process' wait for a core
    # epoll rounds up to whole milliseconds, select does not.
    with asyncio.Runner(
        loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())
    ) as runner:
        runner.run(_serve(options))


if __name__ == "__main__":
    main()
