"""The edge as apps see it: Triton's own client, and every bad request."""

import asyncio
import io
import queue
import struct
import zlib
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton  # type: ignore[import-untyped]
from PIL import Image
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

from hybridge.client import Answer, Client
from hybridge.edge.config import EdgeConfig
from hybridge.edge.daemon import EdgeDaemon
from hybridge.edge.service import read_deadline
from hybridge.protos import open_inference_pb2 as pb
from hybridge.protos.oip import Stub
from hybridge.shared import oip
from hybridge.shared.instant import tell
from hybridge.shared.security import MAX_MESSAGE_BYTES, Address, Security

from ..bundles import CLASSES, NAME, Small, picture
from .conftest import ANY_PORT, measured_copy, run_knowing

Code = grpc.StatusCode
T = TypeVar("T")


def encoded(seed: int = 0, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(seed)).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
async def edge(small: Small, tmp_path: Path, cloud: Address) -> AsyncIterator[EdgeDaemon]:
    """An edge that knows its cloud, and would rather ask it."""
    config = EdgeConfig(
        bundle=measured_copy(small, tmp_path), listen=ANY_PORT, trust=small.trust, cloud=cloud,
        max_pixels=1_000_000,
    )  # fmt: skip
    async with run_knowing(config) as daemon:
        yield daemon


async def with_triton(edge: EdgeDaemon, work: Callable[[Any], T]) -> T:
    """Runs blocking work with Triton's client, in a thread."""

    def run() -> T:
        with triton.InferenceServerClient(str(edge.address)) as client:
            return work(client)

    return await asyncio.to_thread(run)


def picture_input(*pictures: bytes) -> Any:
    source = triton.InferInput("picture", [len(pictures)], "BYTES")
    source.set_data_from_numpy(np.array(pictures, dtype=object))
    return source


def pixels_input(pixels: Any, datatype: str = "UINT8") -> Any:
    source = triton.InferInput("pixels", list(pixels.shape), datatype)
    source.set_data_from_numpy(pixels)
    return source


def parameters_of(result: Any) -> dict[str, oip.Value]:
    return oip.get_parameters(result.get_response().parameters)


async def test_triton_asks_about_server_and_model(edge: EdgeDaemon) -> None:
    def ask(client: Any) -> None:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready(NAME)
        assert client.is_model_ready(NAME, "1")
        assert not client.is_model_ready(NAME, "2")
        assert not client.is_model_ready("other")
        assert client.get_server_metadata().name == "hybridge-edge"
        metadata = client.get_model_metadata(NAME)
        assert (metadata.name, list(metadata.versions)) == (NAME, ["1"])
        assert [(i.name, i.datatype, list(i.shape)) for i in metadata.inputs] == [
            ("picture", "BYTES", [1]), ("pixels", "UINT8", [-1, -1, 3])
        ]  # fmt: skip
        assert [(o.name, o.datatype, list(o.shape)) for o in metadata.outputs] == [
            ("probabilities", "FP32", [1, CLASSES]), ("labels", "BYTES", [1, -1])
        ]  # fmt: skip
        (index,) = client.get_model_repository_index().models
        assert (index.name, index.version, index.state) == (NAME, "1", "READY")

    await with_triton(edge, ask)


def check_clouds_answer(small: Small, result: Any, seed: int = 0) -> None:
    expected = small.large(picture(seed))
    probabilities = result.as_numpy("probabilities")
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, expected[None], atol=1e-5)
    order = np.argsort(-expected)
    labels = [label.decode() for label in result.as_numpy("labels")[0]]
    assert labels == [f"class {at}" for at in order]
    said = parameters_of(result)
    assert said["plan"] == "cloud:raw"
    assert said["confidence"] == pytest.approx(float(expected.max()), abs=1e-5)
    assert (said["provisional"], said["fallback"], said["within_budget"]) == (False, "", True)


async def test_triton_sends_pictures_and_pixels(small: Small, edge: EdgeDaemon) -> None:
    def ask(client: Any) -> list[Any]:
        return [
            client.infer(NAME, [picture_input(encoded())], request_id="7"),
            client.infer(NAME, [pixels_input(picture(0))], model_version="1"),
            client.infer(NAME, [pixels_input(picture(0)[None])]),
            client.infer(
                NAME, [picture_input(encoded())],
                outputs=[triton.InferRequestedOutput("probabilities")],
            ),
        ]  # fmt: skip

    results = await with_triton(edge, ask)
    for result in results:
        check_clouds_answer(small, result)
    assert results[0].get_response().id == "7"
    steps = {name for name in parameters_of(results[0]) if name.startswith("step_")}
    assert {"step_decode_ms", "step_resize_large_ms", "step_network_ms"} <= steps
    assert parameters_of(results[0])["budget_ms"] == small.bundle.manifest.default_budget_ms


async def test_triton_asks_asynchronously(small: Small, edge: EdgeDaemon) -> None:
    def ask(client: Any) -> list[tuple[Any, Any]]:
        answers: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        for _ in range(3):
            client.async_infer(
                NAME,
                [picture_input(encoded(1))],
                lambda result, error: answers.put((result, error)),
            )
        return [answers.get(timeout=30) for _ in range(3)]

    for result, error in await with_triton(edge, ask):
        assert error is None
        check_clouds_answer(small, result, seed=1)


@pytest.mark.parametrize(
    ("options", "budget_ms"),
    [
        ({"client_timeout": 12.0}, (11_000, 12_200)),
        ({"parameters": {"latency_budget_ms": 9_000}}, (9_000, 9_000)),
        ({"parameters": {"latency_budget_ms": "9000.5"}}, (9_000.5, 9_000.5)),
        ({"timeout": 8_000_000}, (8_000, 8_000)),
        ({"client_timeout": 7.0, "parameters": {"latency_budget_ms": 30_000}}, (6_000, 7_200)),
    ],
)
async def test_how_triton_says_a_budget(  # gRPC itself rounds its timeouts up a little
    edge: EdgeDaemon, options: dict[str, Any], budget_ms: tuple[float, float]
) -> None:
    result = await with_triton(
        edge, lambda client: client.infer(NAME, [picture_input(encoded())], **options)
    )
    least, most = budget_ms
    said = parameters_of(result)["budget_ms"]
    assert isinstance(said, float)
    assert least <= said <= most


async def test_triton_is_told_what_is_wrong(edge: EdgeDaemon) -> None:
    def ask(client: Any) -> None:
        for options, status in (
            ({"parameters": {"latency_budget_ms": -5}}, "INVALID_ARGUMENT"),
            ({"model_version": "2"}, "NOT_FOUND"),
        ):
            with pytest.raises(InferenceServerException) as caught:
                client.infer(NAME, [picture_input(encoded())], **options)
            assert status in caught.value.status()

    await with_triton(edge, ask)


def request_of(
    *, model: str = NAME, version: str = "", pictures: Iterable[bytes] | None = None,
    pixels: Any = None, **parameters: oip.Value,
) -> pb.ModelInferRequest:  # fmt: skip
    request = pb.ModelInferRequest(model_name=model, model_version=version)
    oip.set_parameters(request.parameters, parameters)
    if pixels is not None:
        oip.add_input(request, "pixels", pixels)
    else:
        oip.add_bytes_input(request, "picture", [encoded()] if pictures is None else [*pictures])
    return request


def bomb() -> bytes:
    """A PNG whose header claims 20,000 x 10,000 pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", 20_000, 10_000, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1 << 20))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows)


def renamed(request: pb.ModelInferRequest, **change: Any) -> pb.ModelInferRequest:
    """A request whose input says something else of itself."""
    tensor = request.inputs[0]
    if shape := change.pop("shape", None):
        del tensor.shape[:]
        tensor.shape.extend(shape)
    for name, value in change.items():
        setattr(tensor, name, value)
    return request


def asking_for(output: str, **parameters: oip.Value) -> pb.ModelInferRequest:
    request = request_of()
    oip.set_parameters(request.outputs.add(name=output).parameters, parameters)
    return request


BAD = Code.INVALID_ARGUMENT
CASES: dict[str, tuple[pb.ModelInferRequest, Code, str]] = {
    "no bytes": (request_of(pictures=[b""]), BAD, "bad picture: no bytes at all"),
    "no picture": (request_of(pictures=[b"hello"]), BAD, "bad picture: 5 bytes"),
    "another format": (request_of(pictures=[encoded(kind="GIF")]), BAD, "accepted: JPEG"),
    "half a PNG": (request_of(pictures=[encoded()[:200]]), BAD, "bad picture: damaged"),
    "half a JPEG": (request_of(pictures=[encoded(kind="JPEG")[:500]]), BAD, "bad picture: damaged"),
    "a bomb": (request_of(pictures=[bomb()]), BAD, "20000x10000 is 200.0 megapixels; at most 1.0"),
    "two pictures": (request_of(pictures=[encoded(), encoded()]), BAD, "one encoded picture"),
    "no element": (request_of(pictures=[]), BAD, "one encoded picture"),
    "two dimensions": (request_of(pixels=picture(0)[..., 0]), BAD, "bad tensor: a picture is"),
    "four channels": (request_of(pixels=np.zeros((8, 8, 4), np.uint8)), BAD, "bad tensor"),
    "no rows": (request_of(pixels=np.zeros((0, 8, 3), np.uint8)), BAD, "no pixels"),
    "several": (request_of(pixels=np.zeros((2, 8, 8, 3), np.uint8)), BAD, "one picture a request"),
    "floats": (request_of(pixels=picture(0).astype(np.float32)), BAD, "pixels is UINT8"),
    "no shape": (request_of(pixels=np.uint8(3).reshape(())), BAD, "bad tensor"),
    "70 dimensions": (renamed(request_of(pixels=picture(0)), shape=[1] * 70), BAD, "bad tensor"),
    "too few": (renamed(request_of(pixels=picture(0)), shape=[9, 999, 3]), BAD, "bad tensor"),
    "endless": (renamed(request_of(pixels=picture(0)), shape=[2**62, 2**62, 3]), BAD, "bad tensor"),
    "endless nothing": (
        renamed(request_of(pixels=np.zeros((0, 8, 3), np.uint8)), shape=[0, 2**62, 3]), BAD,
        "bad tensor",
    ),
    "negative": (renamed(request_of(pixels=picture(0)), shape=[-1, 40, 3]), BAD, "negative size"),
    "unknown type": (renamed(request_of(pixels=picture(0)), datatype="BF16"), BAD, "bad tensor"),
    "unknown input": (renamed(request_of(), name="image"), BAD, "or 'pixels'; 'image' was sent"),
    "unknown output": (asking_for("scores"), BAD, "bad tensor: output 'scores'"),
    "classification": (asking_for("labels", classification=3), BAD, "not served"),
    "no model": (request_of(model=""), Code.NOT_FOUND, "unknown model: ''"),
    "other model": (request_of(model="large"), Code.NOT_FOUND, "this edge runs 'small'"),
    "other version": (request_of(version="2"), Code.NOT_FOUND, "version 2; here is 1"),
    **{
        f"budget {value}": (request_of(latency_budget_ms=value), BAD, "bad latency budget: ")
        for value in (0, -5, 1e9, float("nan"), float("inf"), "0", "nan")
    },
    "budget soon": (request_of(latency_budget_ms="soon"), BAD, "must be a number, not 'soon'"),
    "budget true": (request_of(latency_budget_ms=True), BAD, "must be a number, not True"),
    "sent long ago": (request_of(sent_at="long ago"), BAD, "'long ago' is no instant"),
    "sent at 9.5": (request_of(sent_at=9.5), BAD, "parameter sent_at must be text, not 9.5"),
    "timeout -1": (request_of(timeout=-1), BAD, "bad latency budget"),
    **{
        f"top_k {value}": (request_of(top_k=value), BAD, "parameter top_k must be")
        for value in (0, -1, 1.5, float("nan"), float("inf"), "many")
    },
    **{
        f"priority {value}": (request_of(priority=value), BAD, "parameter priority")
        for value in (-1, 1.5, 1 << 31, float("nan"), float("inf"), "high", True)
    },
}  # fmt: skip


async def check_serves(stub: Stub) -> None:
    response = await stub.ModelInfer(request_of(), timeout=20)
    assert oip.output_array(response, "probabilities").shape == (1, CLASSES)


async def test_bad_requests(edge: EdgeDaemon) -> None:
    async with Security().channel(edge.address) as channel:
        stub = Stub(channel)
        for name, (request, code, words) in CASES.items():
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ModelInfer(request, timeout=20)
            details = caught.value.details() or ""
            assert (caught.value.code(), words in details) == (code, True), f"{name}: {details}"
            assert "Traceback" not in details
            await check_serves(stub)


async def test_how_many_labels(small: Small, edge: EdgeDaemon) -> None:
    async with Security().channel(edge.address) as channel:
        for top_k, expected in ((1, 1), (3, 3), ("2", 2), (1e9, CLASSES)):
            response = await Stub(channel).ModelInfer(request_of(top_k=top_k), timeout=20)
            assert len(oip.output_elements(response, "labels")) == expected


async def test_a_budget_runs_from_when_the_request_was_sent(
    edge: EdgeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hybridge.client.client.tell", lambda now_s: tell(now_s - 9.0))

    def ask() -> Answer:
        with Client(str(edge.address)) as client:
            return client.infer(encoded(), budget_ms=60_000)

    answer = await asyncio.to_thread(ask)
    assert 9_000.0 <= answer.total_ms < 9_000.0 + answer.round_trip_ms
    assert answer.budget_ms == 60_000.0


BUDGET: dict[str, oip.Value] = {"latency_budget_ms": 600.0}


@pytest.mark.parametrize(
    ("parameters", "rpc_left_s", "left_ms", "way_in_ms"),
    [
        (BUDGET, None, 600.0, None),
        (BUDGET | {"sent_at": ""}, 5.0, 600.0, None),
        (BUDGET | {"sent_at": tell(999.9)}, None, 500.0, 100.0),
        (BUDGET | {"sent_at": tell(999.9)}, 5.0, 500.0, 100.0),
        (BUDGET | {"sent_at": tell(999.9)}, 0.3, 300.0, 100.0),
        ({"sent_at": tell(999.9)}, 0.3, 300.0, 100.0),
        ({"sent_at": tell(999.9)}, None, 150.0, 100.0),
        (BUDGET | {"sent_at": tell(1000.1)}, None, 600.0, None),
        (BUDGET | {"sent_at": "another-boot:999.9"}, None, 600.0, None),
        (BUDGET | {"sent_at": tell(0.0)}, 5.0, 600.0, None),
        (BUDGET | {"sent_at": tell(0.0)}, 0.3, 300.0, None),
    ],
)
def test_when_a_budget_ends(
    parameters: dict[str, oip.Value],
    rpc_left_s: float | None,
    left_ms: float,
    way_in_ms: float | None,
) -> None:
    deadline, under_way_ms = read_deadline(
        parameters, rpc_left_s=rpc_left_s, default_ms=250.0, now_s=1000.0
    )
    assert deadline.left_ms(1000.0) == pytest.approx(left_ms, abs=0.01)
    assert under_way_ms == (None if way_in_ms is None else pytest.approx(way_in_ms, abs=0.01))


async def test_a_budget_nobody_could_keep_is_answered_and_marked(edge: EdgeDaemon) -> None:
    async with Security().channel(edge.address) as channel:
        request = request_of(latency_budget_ms=1e-3)
        response = await Stub(channel).ModelInfer(request, timeout=20)
        said = oip.get_parameters(response.parameters)
        assert (said["plan"], said["within_budget"]) == ("local", False)


async def test_unknown_model_metadata(edge: EdgeDaemon) -> None:
    async with Security().channel(edge.address) as channel:
        for request in (
            pb.ModelMetadataRequest(name="x"),
            pb.ModelMetadataRequest(name=NAME, version="9"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await Stub(channel).ModelMetadata(request)
            assert caught.value.code() is Code.NOT_FOUND


async def test_an_oversized_message(edge: EdgeDaemon) -> None:
    options = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(str(edge.address), options=options) as channel:
        stub = Stub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ModelInfer(request_of(pictures=[bytes(MAX_MESSAGE_BYTES + 1)]), timeout=30)
        assert caught.value.code() is Code.RESOURCE_EXHAUSTED
        await check_serves(stub)


async def test_random_bytes_as_a_message(edge: EdgeDaemon) -> None:
    async with Security().channel(edge.address) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer"
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"\xff" * 100)
        assert caught.value.code() is BAD
        await check_serves(Stub(channel))
