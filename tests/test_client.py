"""The app's library, against an edge and against servers that are none."""

import asyncio
import io
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from hybridge.client import Client
from hybridge.edge.config import EdgeConfig
from hybridge.edge.daemon import EdgeDaemon
from hybridge.protos import oip
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared import oip as messages
from hybridge.shared.daemon import OnListening
from hybridge.shared.errors import (
    BudgetError,
    ConfigError,
    RemoteRefused,
    RemoteTooLate,
    RemoteUnavailable,
)
from hybridge.shared.security import Address, Security

from .bundles import CLASSES, NAME, Small, picture
from .edge.conftest import measured_copy
from .threads import serving

HERE = Address("127.0.0.1", 0)


@pytest.fixture(scope="module")
def edge(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    bundle = measured_copy(small, tmp_path_factory.mktemp("edge"))
    config = EdgeConfig(bundle=bundle, listen=HERE, trust=small.trust)
    with serving(EdgeDaemon(config)) as address:
        yield address


@pytest.fixture
def client(edge: Address) -> Iterator[Client]:
    with Client(str(edge)) as client:
        yield client


def test_a_picture_gets_an_answer(small: Small, client: Client) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture(0)).save(buffer, "PNG")
    expected = small.light(picture(0))
    for shown in (buffer.getvalue(), picture(0)):
        answer = client.infer(shown, budget_ms=20_000, request_id="seven")
        np.testing.assert_allclose(answer.probabilities, expected, rtol=1e-6)
        assert answer.label == f"class {expected.argmax()}"
        assert len(answer.labels) == CLASSES
        assert (answer.request_id, answer.plan, answer.fallback) == ("seven", "local", "")
        assert (answer.budget_ms, answer.within_budget) == (20_000, True)
        assert (answer.provisional, answer.sent_bytes) == (False, 0)
        assert answer.confidence == pytest.approx(float(expected.max()))
        assert {"resize_light", "light"} <= set(answer.steps_ms)
        assert 0 < sum(answer.steps_ms.values()) <= answer.total_ms <= answer.round_trip_ms


def test_requests_get_names_and_the_bundles_budget(small: Small, client: Client) -> None:
    first, second = client.infer(picture(0)), client.infer(picture(0), model=NAME)
    assert first.request_id != second.request_id
    assert first.budget_ms == small.bundle.manifest.default_budget_ms


def test_what_is_served(client: Client) -> None:
    assert client.models() == [NAME]
    client.wait_until_loaded(NAME)
    with pytest.raises(RemoteRefused, match="NOT_FOUND"):
        client.wait_until_loaded("other")


@pytest.mark.parametrize("budget_ms", [0, -5, 1e9, float("nan")])
def test_an_impossible_budget_is_not_even_sent(client: Client, budget_ms: float) -> None:
    with pytest.raises(BudgetError):
        client.infer(picture(0), budget_ms=budget_ms)


def test_what_the_edge_refuses(client: Client) -> None:
    with pytest.raises(RemoteRefused, match="INVALID_ARGUMENT: bad picture: 5 bytes"):
        client.infer(b"hello")
    with pytest.raises(RemoteRefused, match="INVALID_ARGUMENT: bad tensor"):
        client.infer(np.zeros((4, 4), np.uint8))
    with pytest.raises(RemoteRefused, match="NOT_FOUND: unknown model"):
        client.infer(picture(0), model="other")


def test_nobody_is_there(edge: Address) -> None:
    with Client("127.0.0.1:1") as client:
        with pytest.raises(
            RemoteUnavailable, match=r"nobody answers at 127\.0\.0\.1:1 within 50 ms"
        ):
            client.models(wait_ms=50)
        with pytest.raises(RemoteUnavailable, match="within 50 ms"):
            client.wait_until_loaded(NAME, wait_ms=50)
        with pytest.raises(RemoteUnavailable):
            client.infer(picture(0), model=NAME)


def test_addresses(edge: Address) -> None:
    with pytest.raises(ConfigError, match="is no address"):
        Client("edge")
    with pytest.raises(ConfigError, match="without TLS"):
        Client("192.0.2.7:8600")
    Client("192.0.2.7:8600", security=Security(insecure=True)).close()


class Fake(oip.Servicer):
    """A server that answers whatever it is given to answer."""

    def __init__(self) -> None:
        self.models = [NAME]
        self.answer = pb.ModelInferResponse()
        self.hangs = False

    async def startup(self, *, on_listening: OnListening | None = None) -> None:
        self._server = grpc.aio.server()
        oip.add_servicer(self._server, self)
        address = Security().bind(self._server, HERE)
        await self._server.start()
        assert on_listening is not None
        on_listening(address)

    async def shutdown(self) -> None:
        await self._server.stop(None)

    async def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, context: oip.Context
    ) -> pb.RepositoryIndexResponse:
        index = pb.RepositoryIndexResponse.ModelIndex
        return pb.RepositoryIndexResponse(models=[index(name=name) for name in self.models])

    async def ModelInfer(
        self, request: pb.ModelInferRequest, context: oip.Context
    ) -> pb.ModelInferResponse:
        if self.hangs:
            await asyncio.Event().wait()
        return self.answer


@pytest.fixture
def fake() -> Iterator[tuple[Fake, Client]]:
    servicer = Fake()
    with serving(servicer) as address, Client(str(address)) as client:
        yield servicer, client


@pytest.mark.parametrize("models", [[], ["one", "two"]])
def test_which_model_is_meant_has_to_be_clear(fake: tuple[Fake, Client], models: list[str]) -> None:
    servicer, client = fake
    servicer.models = models
    with pytest.raises(RemoteRefused, match=f"serves {len(models)} models; name one of"):
        client.infer(picture(0))


def response(
    labels: list[bytes] | None, *, shape: tuple[int, ...] = (1, 2), **parameters: Any
) -> Any:
    made = pb.ModelInferResponse()
    messages.add_output(made, "probabilities", np.zeros(shape, np.float32))
    if labels is not None:
        messages.add_bytes_output(made, "labels", labels, shape=[1, len(labels)])
    messages.set_parameters(made.parameters, parameters)
    return made


@pytest.mark.parametrize(
    "answer",
    [
        pb.ModelInferResponse(),
        response(None),
        response([]),
        response([b"\xff"]),
        response([b"cat"], shape=()),
        response([b"cat"], shape=(0, 2)),
        response([b"cat"], total_ms="soon"),
        response([b"cat"], step_light_ms="soon"),
    ],
)
def test_an_answer_that_cannot_be_read_is_the_servers_fault(
    fake: tuple[Fake, Client], answer: pb.ModelInferResponse
) -> None:
    servicer, client = fake
    servicer.answer = answer
    with pytest.raises(RemoteRefused, match="its answer cannot be read"):
        client.infer(picture(0))
    servicer.answer = response([b"cat"])
    assert client.infer(picture(0)).label == "cat"


def test_patience_ends(fake: tuple[Fake, Client], monkeypatch: pytest.MonkeyPatch) -> None:
    servicer, client = fake
    servicer.hangs = True
    monkeypatch.setattr("hybridge.client.client._PATIENCE_MS", 20.0)
    with pytest.raises(RemoteTooLate):
        client.infer(picture(0), budget_ms=30)
