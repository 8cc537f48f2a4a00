"""What an edge tells on its port: late final answers, and how it is doing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import grpc
import numpy as np
import pytest

from hybridge.client import Answer, Client
from hybridge.client.mailbox import RESTARTED
from hybridge.edge import watching as watching_module
from hybridge.edge.config import EdgeConfig
from hybridge.edge.daemon import EdgeDaemon
from hybridge.edge.results import ResultLog
from hybridge.protos import fleet_pb2, fleet_pb2_grpc, oip
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared import oip as messages
from hybridge.shared.security import Address, Security

from ..bundles import NAME, SPLIT, Small, picture
from .clouds import FakeCloud, Wire, fake_cloud
from .conftest import ANY_PORT, measured_copy, run_edge
from .policies import Insistent

T = TypeVar("T")

SOON_MS = 700.0
"""Three hundred of it are the reserve of these tests (conftest.py)."""
WAIT_MS = 20_000.0


@pytest.fixture
async def cloud(small: Small) -> AsyncIterator[FakeCloud]:
    """A cloud that answers probes, and pictures once it may."""
    async with fake_cloud(small.bundle) as cloud:
        yield cloud


@pytest.fixture
def config(small: Small, tmp_path: Path, cloud: FakeCloud) -> EdgeConfig:
    return EdgeConfig(
        bundle=measured_copy(small, tmp_path), listen=ANY_PORT, trust=small.trust,
        cloud=cloud.address,
    )  # fmt: skip


@asynccontextmanager
async def knowing_edge(config: EdgeConfig) -> AsyncIterator[EdgeDaemon]:
    """An edge that has measured its cloud, and insists on asking it."""
    async with run_edge(config) as daemon:
        assert daemon._agent is not None
        assert daemon._agent.uplink is not None
        daemon._agent.policy = Insistent()
        await daemon._agent.uplink.probe(0)
        await daemon._agent.uplink.probe(12_000)
        yield daemon


@pytest.fixture
async def edge(config: EdgeConfig) -> AsyncIterator[EdgeDaemon]:
    async with knowing_edge(config) as daemon:
        yield daemon


@asynccontextmanager
async def watching(edge: EdgeDaemon) -> AsyncIterator[fleet_pb2_grpc.EdgeStub]:
    async with Security().channel(edge.address) as channel:
        yield fleet_pb2_grpc.EdgeStub(channel)


def log_of(edge: EdgeDaemon) -> ResultLog:
    assert edge._watching is not None
    return edge._watching._results


async def read(call: grpc.aio.UnaryStreamCall[T, fleet_pb2.LateResult]) -> fleet_pb2.LateResult:
    message = await asyncio.wait_for(call.read(), 20)
    assert isinstance(message, fleet_pb2.LateResult)
    return message


@asynccontextmanager
async def client_of(address: Address) -> AsyncIterator[Client]:
    client = Client(str(address), client_id="me")
    try:
        yield client
    finally:
        await asyncio.to_thread(client.close)


async def late_answer(client: Client, cloud: FakeCloud, name: str, seed: int = 0) -> Answer:
    """The first answer to a request whose cloud has not answered yet."""
    answer = await asyncio.to_thread(
        lambda: client.infer(
            picture(seed), model=NAME, budget_ms=SOON_MS, request_id=name, follow=True
        )
    )
    assert (answer.plan, answer.provisional, answer.fallback) == ("local", True, "cloud late")
    assert answer.final_follows
    return answer


async def in_thread(work: Callable[[], T]) -> T:
    return await asyncio.wait_for(asyncio.to_thread(work), 30)


async def test_provisional_by_the_deadline_and_final_later(
    small: Small, edge: EdgeDaemon, cloud: FakeCloud
) -> None:
    async with client_of(edge.address) as client:
        answer = await late_answer(client, cloud, "one")
        assert answer.within_budget
        np.testing.assert_allclose(answer.probabilities, small.light(picture(0)), rtol=1e-6)
        assert not cloud.gone.is_set()  # the exchange goes on
        cloud.allowed.set()
        final = await in_thread(lambda: client.finals.wait(answer, timeout_ms=WAIT_MS))
    assert (final.request_id, final.final, final.fallback) == ("one", True, "")
    assert final.plan == "cloud:raw"
    assert final.probabilities.tolist() == [0, 0, 0, 0, 1]
    assert final.total_ms > answer.total_ms
    assert final.round_trip_ms >= final.total_ms
    assert len(cloud.requests) == 1


async def test_a_final_answer_names_the_plan_that_was_sent(
    edge: EdgeDaemon, cloud: FakeCloud
) -> None:
    assert edge._agent is not None
    edge._agent.policy = Insistent(SPLIT)
    async with client_of(edge.address) as client:
        answer = await late_answer(client, cloud, "one")
        cloud.allowed.set()
        final = await in_thread(lambda: client.finals.wait(answer, timeout_ms=WAIT_MS))
    (request,) = cloud.requests
    assert messages.get_parameters(request.parameters)["cut"] == SPLIT.cut
    assert (final.plan, final.sent_bytes) == (str(SPLIT), answer.sent_bytes)


async def test_who_does_not_ask_gets_none_and_the_cloud_is_told(
    edge: EdgeDaemon, cloud: FakeCloud
) -> None:
    async with client_of(edge.address) as client:
        answer = await in_thread(
            lambda: client.infer(picture(0), model=NAME, budget_ms=SOON_MS, request_id="one")
        )
        assert answer.provisional
        assert not answer.final_follows
    await asyncio.wait_for(cloud.gone.wait(), 20)
    assert len(log_of(edge)) == 0


async def test_an_answer_in_time_is_the_last_word(edge: EdgeDaemon, cloud: FakeCloud) -> None:
    cloud.allowed.set()
    async with client_of(edge.address) as client:
        answer = await in_thread(
            lambda: client.infer(picture(0), model=NAME, budget_ms=WAIT_MS, follow=True)
        )
        assert answer.plan == "cloud:raw"
        assert not answer.final_follows
        assert list(client.finals.rest()) == []
    assert len(log_of(edge)) == 0


async def test_a_cloud_that_does_not_answer_at_all(edge: EdgeDaemon, cloud: FakeCloud) -> None:
    assert edge._agent is not None
    edge._agent.follow_ms = 50.0
    async with client_of(edge.address) as client:
        answer = await late_answer(client, cloud, "one")
        assert answer.follow_ms == 50.0
        final = await in_thread(lambda: client.finals.wait(answer, timeout_ms=WAIT_MS))
    assert (final.plan, final.final) == ("local", True)
    assert final.fallback.startswith("no final answer: ")
    assert final.probabilities.tolist() == answer.probabilities.tolist()
    await asyncio.wait_for(cloud.gone.wait(), 20)


async def test_an_edge_that_is_restarted_owes_nothing(config: EdgeConfig, cloud: FakeCloud) -> None:
    async with knowing_edge(config) as edge:
        client = Client(str(edge.address))
        answer = await late_answer(client, cloud, "one")
        again = EdgeConfig(
            bundle=config.bundle, listen=edge.address, trust=config.trust, cloud=config.cloud
        )
    async with knowing_edge(again):
        lost = await in_thread(lambda: client.finals.wait(answer, timeout_ms=WAIT_MS))
        assert (lost.final, lost.fallback, lost.plan) == (True, RESTARTED, "local")
        other = await late_answer(client, cloud, "two", seed=1)
        cloud.allowed.set()
        final = await in_thread(lambda: client.finals.wait(other, timeout_ms=WAIT_MS))
        assert final.plan == "cloud:raw"
        await asyncio.to_thread(client.close)


async def test_a_connection_that_is_cut_again_and_again(edge: EdgeDaemon) -> None:
    """Whenever it is cut, nothing is skipped and nothing comes twice."""
    log, found = log_of(edge), list[str]()
    response = pb.ModelInferResponse()
    messages.add_output(response, "probabilities", np.zeros((1, 2), np.float32))
    messages.add_bytes_output(response, "labels", [b"cat"], shape=[1, 1])
    names = [str(number) for number in range(24)]
    async with Wire(edge.address) as wire, client_of(wire.address) as client:
        finals = iter(client.finals)
        for number, name in enumerate(names):
            response.id = name
            log.append(name, response.SerializeToString(), client_id="me")
            if number % 3 == 2:
                await wire.cut()
            if number % 2:  # read with the connection up, broken, and just back
                found.append((await in_thread(lambda: next(finals))).request_id)
        while len(found) < len(names):
            found.append((await in_thread(lambda: next(finals))).request_id)
    assert found == names


async def test_a_watcher_reads_its_own_from_where_it_stopped(edge: EdgeDaemon) -> None:
    log = log_of(edge)
    for number in range(4):
        log.append(str(number), b"response", client_id="me" if number % 2 else "other")
    async with watching(edge) as stub:
        call = stub.WatchResults(fleet_pb2.WatchResultsRequest(client_id="me"))
        assert await read(call) == fleet_pb2.LateResult(epoch=log.epoch)
        first = await read(call)
        assert (first.sequence, first.request_id, first.response) == (2, "1", b"response")
        call.cancel()
        call = stub.WatchResults(
            fleet_pb2.WatchResultsRequest(epoch=log.epoch, after=2, request_ids=["3", "later"])
        )
        assert (await read(call)).sequence == 2
        assert (await read(call)).request_id == "3"
        log.append("later", b"")
        assert (await read(call)).request_id == "later"
        call.cancel()


async def test_what_a_full_log_dropped_is_told(edge: EdgeDaemon) -> None:
    log = log_of(edge)
    log._most_results = 2
    log.append("0", b"")
    async with watching(edge) as stub:
        call = stub.WatchResults(fleet_pb2.WatchResultsRequest(epoch=log.epoch, after=1))
        assert (await read(call)).dropped == 0
        call.cancel()
        for number in range(1, 5):
            log.append(str(number), b"")
        call = stub.WatchResults(
            fleet_pb2.WatchResultsRequest(epoch=log.epoch, after=1, client_id="nobody")
        )
        opened = await read(call)
        assert (opened.sequence, opened.dropped) == (3, 2)
        call.cancel()


async def test_a_watcher_that_never_reads_costs_what_the_log_holds(edge: EdgeDaemon) -> None:
    log = log_of(edge)
    log._most_results = 8
    written: list[int] = []
    async with watching(edge) as stub:
        lazy = stub.WatchResults(fleet_pb2.WatchResultsRequest())
        await read(lazy)
        for number in range(1_000):
            log.append(str(number), bytes(50_000))
            written.append(log.size_bytes)
            await asyncio.sleep(0)  # lets the servicer write what flow control allows
        assert max(written) <= 8 * (50_000 + len("1000"))
        seen, dropped = list[int](), 0
        while not seen or seen[-1] < 1_000:
            message = await read(lazy)
            dropped += message.dropped
            if message.request_id:
                seen.append(message.sequence)
        assert dropped > 0
        assert len(seen) + dropped == 1_000
        assert seen == sorted(set(seen))
        lazy.cancel()


async def test_watchers_are_counted(edge: EdgeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching_module, "_MOST_WATCHERS", 1)
    async with watching(edge) as stub:
        first = stub.WatchResults(fleet_pb2.WatchResultsRequest())
        await read(first)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.WatchAgent(fleet_pb2.WatchAgentRequest()).read()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "1 watch already" in (caught.value.details() or "")
        first.cancel()
        assert await served(stub)


async def served(stub: fleet_pb2_grpc.EdgeStub) -> object:
    """A state, once there is room for another watcher."""
    while True:
        call = stub.WatchAgent(fleet_pb2.WatchAgentRequest(), timeout=20)
        try:
            return await call.read()
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise


async def test_streams_end_with_the_edge(config: EdgeConfig) -> None:
    async with run_edge(config) as edge, watching(edge) as stub:
        results = stub.WatchResults(fleet_pb2.WatchResultsRequest())
        states = stub.WatchAgent(fleet_pb2.WatchAgentRequest(interval_ms=3_600_000))
        await read(results)
        await states.read()
        await edge.shutdown()
        for call in (results, states):
            assert await asyncio.wait_for(call.read(), 20) is grpc.aio.EOF
            assert await call.code() is grpc.StatusCode.OK


BAD: dict[str, dict[str, messages.Value]] = {
    "parameter follow must be true or false, not 'yes'": {"follow": "yes"},
    "parameter follow must be true or false, not 1": {"follow": 1},
    "parameter follow must be true or false, not 1.0": {"follow": 1.0},
    "parameter client_id must be text, not 7": {"follow": True, "client_id": 7},
}


@pytest.mark.parametrize("words", BAD)
async def test_wishes_that_are_none(edge: EdgeDaemon, words: str) -> None:
    request = pb.ModelInferRequest(model_name=NAME, id="one")
    messages.add_input(request, "pixels", picture(0))
    messages.set_parameters(request.parameters, BAD[words])
    await check_refused(edge.address, request, words)


async def test_a_request_without_an_id_cannot_be_followed(edge: EdgeDaemon) -> None:
    request = pb.ModelInferRequest(model_name=NAME)
    messages.add_input(request, "pixels", picture(0))
    messages.set_parameters(request.parameters, {"follow": "true"})
    await check_refused(edge.address, request, "needs a request with an id")


async def check_refused(address: Address, request: pb.ModelInferRequest, words: str) -> None:
    async with Security().channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await oip.Stub(channel).ModelInfer(request, timeout=20)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in (caught.value.details() or "")


async def test_the_agent_says_how_it_is_doing(edge: EdgeDaemon, cloud: FakeCloud) -> None:
    async with client_of(edge.address) as client:
        before = await in_thread(client.agent_state)
        assert (before.model, before.version) == (NAME, "1")
        assert before.total.answers == 0
        assert before.cloud.address == str(cloud.address)
        assert before.cloud.reachable
        assert before.cloud.link.exchanges >= 2
        assert 0 < before.cloud.link.rtt_low_ms <= before.cloud.link.rtt_high_ms
        answer = await late_answer(client, cloud, "one")
        cloud.allowed.set()
        await in_thread(lambda: client.finals.wait(answer, timeout_ms=WAIT_MS))
        after = await in_thread(client.agent_state)
    total = after.total
    assert (total.answers, total.within_budget, total.provisional, total.fallback) == (1, 1, 1, 1)
    assert (total.finals, total.finals_missing) == (1, 0)
    assert total.sent_bytes == answer.sent_bytes > 0
    assert after.recent == total
    assert [(share.name, share.answers) for share in after.plans] == [("local", 1)]
    assert [(share.name, share.answers) for share in after.fallbacks] == [("cloud late", 1)]
    assert sum(after.budget_tenths) == 1
    assert {step.name for step in after.steps} >= {"resize_light", "light", "encode"}
    assert after.epoch == before.epoch == log_of(edge).epoch
    assert after.uptime_s > before.uptime_s


async def test_a_cloud_out_of_reach_is_told(edge: EdgeDaemon, cloud: FakeCloud) -> None:
    await cloud.server.stop(None)
    async with client_of(edge.address) as client:
        state = await in_thread(client.agent_state)
        while state.cloud.reachable:
            state = await in_thread(client.agent_state)
    assert state.cloud.openings == 1
    assert state.cloud.reason
    assert state.cloud.unreachable_s >= 0


async def test_states_come_at_the_interval_asked_for(edge: EdgeDaemon) -> None:
    async with client_of(edge.address) as client:
        states = client.watch_agent(interval_ms=100)
        uptimes = [(await in_thread(lambda: next(states))).uptime_s for _ in range(3)]
        states.close()
    assert uptimes[0] < uptimes[1] < uptimes[2]


@pytest.mark.parametrize("interval_ms", [1, 99, 3_600_001])
async def test_intervals_nobody_serves(edge: EdgeDaemon, interval_ms: int) -> None:
    async with watching(edge) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.WatchAgent(fleet_pb2.WatchAgentRequest(interval_ms=interval_ms)).read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f"interval_ms is {interval_ms}" in (caught.value.details() or "")


async def test_an_edge_alone_has_no_cloud_to_show(config: EdgeConfig) -> None:
    alone = EdgeConfig(bundle=config.bundle, listen=ANY_PORT, trust=config.trust)
    async with run_edge(alone) as edge, client_of(edge.address) as client:
        state = await in_thread(client.agent_state)
        assert not state.HasField("cloud")
