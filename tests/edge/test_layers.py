"""A frame in layers from end to end: what has come by the deadline is answered, and said."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest

from hybridge.client.answer import read_answer
from hybridge.cloud.config import CloudConfig
from hybridge.cloud.server import CloudServer
from hybridge.devices.models import DeviceModels
from hybridge.edge import connection as connection_module
from hybridge.edge.agent import Agent
from hybridge.edge.answer import Answer
from hybridge.edge.bench import DeviceBench
from hybridge.edge.cloud_messages import InLayers
from hybridge.edge.service import answer_parameters
from hybridge.edge.stage_times import StageTimes
from hybridge.edge.transfer import Transfer
from hybridge.edge.uplink import Uplink
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared import oip as messages
from hybridge.shared.answer import Probabilities, to_probabilities
from hybridge.shared.arrival import CHUNK_BYTES
from hybridge.shared.came import Came
from hybridge.shared.codec import codec_by_name
from hybridge.shared.deadline import Deadline, monotonic
from hybridge.shared.errors import RemoteRefused
from hybridge.shared.manifest import Manifest, Prefix, Rate
from hybridge.shared.plan import Plan
from hybridge.shared.tensor import Array

from ..bundles import CUT, LOCAL, NAME, Small, picture, stage_times
from .clouds import answer_of
from .conftest import ANY_PORT, connected
from .test_uplink import Scene, Scripted

CODEC = "layers-30"
LAYERED = Plan.split(CUT, head="int8", codec=CODEC)
AGREEMENTS = (0.5, 0.7, 0.8, 0.9)
"""Of the first layers, one to four; the device's own is 0.6."""
PICTURE = picture(7)
LONG_MS = 60_000.0


def rate(value: float) -> Rate:
    return Rate(value=value, standard_error=0.01, samples=1000)


def with_layers(manifest: Manifest) -> Manifest:
    """Two plans: the device alone, and a split in layers that is better."""
    local = next(row for row in manifest.table if row.parsed() == LOCAL)
    some = manifest.table[1]
    layered = msgspec.structs.replace(
        some,
        plan=str(LAYERED),
        agreement=rate(0.99),
        bytes_p50=200,
        bytes_p95=220,
        prefixes=tuple(
            Prefix(layers=at, agreement=rate(value), bytes_p50=100 + 20 * at, bytes_p95=200)
            for at, value in enumerate(AGREEMENTS, start=1)
        ),
    )
    return msgspec.structs.replace(manifest, table=(local, layered))


@pytest.fixture
def layered(small: Small, tmp_path: Path) -> Small:
    from hybridge.shared.bundle import open_bundle

    path = small.rewrite(tmp_path, with_layers)
    bundle = open_bundle(path, trust=small.trust)
    return Small(tmp_path, small.key, bundle, DeviceModels(bundle), small.cloud)


@asynccontextmanager
async def both(layered: Small) -> AsyncIterator[Agent]:
    """A real cloud, and an agent that has measured it."""
    config = CloudConfig(
        bundles=layered.root, trust=layered.trust, address=ANY_PORT, instances=1, preload=True
    )
    server = CloudServer(config)
    try:
        await server.startup()
        async with connected(server.address) as uplink:
            yield agent_of(layered, uplink)
    finally:
        await server.shutdown()


def agent_of(layered: Small, uplink: Uplink) -> Agent:
    return Agent(
        layered.bundle,
        bench=DeviceBench(layered.models, clock=monotonic, workers=2),
        times=StageTimes(stage_times((LOCAL, LAYERED))),
        uplink=uplink,
        clock=monotonic,
    )


class Sender:
    """Sends so many chunks of each request, and no more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.chunks = 5
        monkeypatch.setattr(connection_module, "_each", self._each)

    async def _each(
        self, requests: Sequence[pb.ModelInferRequest]
    ) -> AsyncIterator[pb.ModelInferRequest]:
        for request in requests[: self.chunks]:
            yield request
        if len(requests) > self.chunks:
            await asyncio.Event().wait()


@pytest.fixture
def sender(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sender]:
    """Of the budget nearly all is left for the way back: a busy machine may take its time."""
    monkeypatch.setattr(Transfer, "way_back_ms", property(lambda _: 0.5 * LONG_MS - 1.0))
    monkeypatch.setattr("hybridge.edge.uplink._MOST_WAY_BACK", 1.0)
    return Sender(monkeypatch)


def from_layers(layered: Small, count: int) -> Probabilities:
    """What the tail answers to the first layers."""
    contract = layered.bundle.manifest.contract(LAYERED)
    tensor: Array = layered.models.tensor(LAYERED, layered.models.resize_large(PICTURE))
    codec = codec_by_name(CODEC, contract)
    made = codec.decode_layers(
        codec.encode_layers(tensor)[:count], shape=contract.shape, dtype=contract.dtype
    )
    output = layered.cloud.run(CUT, made).astype(np.float32)
    return to_probabilities(output, layered.bundle.manifest.large.output)


async def ask(agent: Agent, *, budget_ms: float = LONG_MS) -> Answer:
    return await agent.answer(PICTURE, Deadline.after_ms(budget_ms, now_s=monotonic()))


async def test_all_of_it(layered: Small) -> None:
    async with both(layered) as agent:
        answer = await ask(agent)
        assert answer.plan == LAYERED
        assert answer.came is not None
        assert answer.came.whole
        assert answer.came.came_bytes == answer.came.frame_bytes == answer.sent_bytes
        np.testing.assert_allclose(answer.probabilities, from_layers(layered, 5), rtol=1e-4)
        agent.close()


@pytest.mark.parametrize("count", [2, 4])
async def test_what_has_come_is_answered(layered: Small, sender: Sender, count: int) -> None:
    async with both(layered) as agent:
        sender.chunks = count
        answer = await ask(agent, budget_ms=0.5 * LONG_MS + 2_000.0)
        assert answer.plan == LAYERED
        assert (answer.fallback, answer.provisional) == ("", False)
        assert answer.came is not None
        assert (answer.came.layers, answer.came.layers_in_all) == (count, 5)
        assert 0 < answer.came.came_bytes < answer.came.frame_bytes
        np.testing.assert_allclose(answer.probabilities, from_layers(layered, count), rtol=1e-4)
        agent.close()


async def test_too_few_to_be_worth_an_answer(layered: Small, sender: Sender) -> None:
    """One layer agrees less often than the device: the cloud is told, and the device answers."""
    async with both(layered) as agent:
        sender.chunks = 1
        answer = await ask(agent, budget_ms=0.5 * LONG_MS + 2_000.0)
        assert answer.plan == LOCAL
        assert answer.came is None
        assert answer.fallback == "cloud late"
        np.testing.assert_allclose(answer.probabilities, layered.light(PICTURE), rtol=1e-6)
        agent.close()


async def test_a_client_is_told(layered: Small) -> None:
    async with both(layered) as agent:
        answer = await ask(agent)
        agent.close()
    response = answer_of(*answer.probabilities.tolist(), **answer_parameters(answer))
    messages.add_bytes_output(response, "labels", [b"a"], shape=[1, 1])
    assert read_answer(response, round_trip_ms=1.0).came == answer.came


# The uplink alone.

FRAME = bytes(range(256)) * 100
ENDS = (100, 20_000, 25_600)


def test_no_chunk_has_of_two_layers_and_none_is_too_long() -> None:
    pieces = list(InLayers(ENDS, 1, 3).pieces(FRAME))
    assert b"".join(piece for _, piece in pieces) == FRAME
    assert [at for at, _ in pieces] == [0, 100, 100 + CHUNK_BYTES, 20_000]
    assert max(len(piece) for _, piece in pieces) <= CHUNK_BYTES


class InPieces(Scripted):
    """A connection that answers what comes in pieces as it is told to."""

    came: Came | None = None
    asked_of: Sequence[pb.ModelInferRequest] = ()
    takes_s: float = 0.1

    async def infer_in_pieces(
        self, requests: Sequence[pb.ModelInferRequest], *, timeout_s: float
    ) -> pb.ModelInferResponse:
        self.asked_of = requests
        self.scene.clock.now_s += self.takes_s
        told = self.came.parameters() if self.came else {}
        return answer_of(0, 0, 0, 0, 1, **told)

    scene: Scene


async def send(scene: Scene, *, least: int = 1, most: int = 3) -> Came | None:
    answer = await scene.uplink.infer(
        FRAME, model=NAME, version="1", parameters={messages.CONTRACT: "c"}, left_ms=1_000.0,
        in_layers=InLayers(ENDS, least, most),
    )  # fmt: skip
    return answer.came


def scene_of(came: Came | None) -> tuple[Scene, InPieces]:
    connection = InPieces()
    connection.may_probe.set()
    scene = Scene(connection)
    connection.came, connection.scene = came, scene
    return scene, connection


async def test_what_goes_up() -> None:
    scene, connection = scene_of(Came(3, 3, len(FRAME), len(FRAME)))
    assert await send(scene, least=2) == connection.came
    first, *rest = connection.asked_of
    told = messages.get_parameters(first.parameters)
    assert first.model_name == NAME
    assert told[messages.MIN_LAYERS] == 2
    assert told[messages.LATENCY_BUDGET_MS] == 1_000.0
    assert told[messages.WAY_BACK_MS] == 500.0  # half of it, on a link of which nothing is known
    assert [messages.get_parameters(each.parameters) for each in rest] == [
        {messages.FRAME_OFFSET: at} for at in (100, 100 + CHUNK_BYTES, 20_000)
    ]
    assert {each.id for each in connection.asked_of} == {first.id}
    assert first.id


@pytest.mark.parametrize("came", [
    None,
    Came(1, 3, 200, 25_600),  # fewer than were asked for
    Came(2, 3, 19_999, 25_600),  # not even there
    Came(3, 3, 25_600, 25_601),
    Came(2, 2, 25_600, 25_600),
    Came(2, 4, 20_001, 25_600),
])  # fmt: skip
async def test_a_cloud_that_tells_what_cannot_be(came: Came | None) -> None:
    scene, _ = scene_of(came)
    with pytest.raises(RemoteRefused, match="its answer"):
        await send(scene, least=2)


async def test_a_part_teaches_how_much_came_in_the_time() -> None:
    """1 kB/ms: in 20 ms half of what is sent had come; the link is learnt by that half."""
    whole, whole_connection = scene_of(Came(3, 3, len(FRAME), len(FRAME)))
    part, part_connection = scene_of(Came(2, 3, 20_000, len(FRAME)))
    for scene, connection in ((whole, whole_connection), (part, part_connection)):
        connection.takes_s = 0.4
        for _ in range(30):
            await send(scene)
            scene.clock.now_s += 30.0
            await scene.uplink.probe(0)
    ups = [scene.uplink.link.transfer(now_s=scene.clock.now_s).up_ms for scene in (whole, part)]
    assert ups[1] > 1.05 * ups[0]  # fewer bytes in the same time: a slower link
    assert part.uplink.link.unproven == 0


async def test_what_will_hardly_come_in_time_is_not_sent() -> None:
    scene, connection = scene_of(Came(2, 3, 20_000, len(FRAME)))
    assert await send(scene, most=2) == connection.came
    sent = b"".join(each.raw_input_contents[0] for each in connection.asked_of)
    assert sent == FRAME[:20_000]
    assert scene.uplink.link.unproven == 0  # all that was sent has come
    assert scene.uplink.ledger.spent_bytes(now_s=scene.clock.now_s) == 20_000 + 400


async def test_layers_left_out_are_not_waited_for(layered: Small) -> None:
    """The stream's end says that no more will come: the answer is there long before the budget."""
    async with both(layered) as agent:
        uplink = agent.uplink
        assert uplink is not None
        framed = await agent.bench.frame(
            PICTURE, LAYERED, Deadline.after_ms(LONG_MS, now_s=monotonic()), agent.expected(LAYERED)
        )
        answer = await uplink.infer(
            framed.frame,
            model=NAME,
            version="1",
            parameters={},
            left_ms=LONG_MS,
            in_layers=InLayers(framed.ends, 1, 3),
        )
        assert answer.came == Came(3, 5, framed.ends[2], len(framed.frame))
        np.testing.assert_allclose(answer.probabilities, from_layers(layered, 3), rtol=1e-4)
        agent.close()
