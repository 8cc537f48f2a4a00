"""Inputs beside the picture go to the cloud, outputs beside the answer come back."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import tritonclient.grpc as triton  # type: ignore[import-untyped]
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

from hybridge.client import Client
from hybridge.devices.models import DeviceModels
from hybridge.edge.cloud_messages import Beside
from hybridge.edge.config import EdgeConfig
from hybridge.edge.daemon import EdgeDaemon
from hybridge.protos import oip
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared import oip as messages
from hybridge.shared.bundle import open_bundle
from hybridge.shared.deadline import Deadline, monotonic
from hybridge.shared.errors import RemoteRefused, RequestError, TensorError
from hybridge.shared.manifest import Manifest
from hybridge.shared.tensor import TensorSpec

from ..bundles import CLOUD, LOCAL, NAME, Small, picture
from .clouds import FakeCloud, answer_of, fake_cloud
from .conftest import ANY_PORT, connected, make_agent, measured_copy, run_knowing

INPUTS = (TensorSpec("patient", "FP32", (2,)), TensorSpec("site", "INT64", ()))
OUTPUTS = (TensorSpec("embedding", "FP32", (3,)), TensorSpec("nearest", "INT32", ()))
BESIDE = {"patient": np.array([[63, 1]], np.float32), "site": np.array([2])}
LATER_MS = 30_000.0


@pytest.fixture(scope="module")
def sided(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The small bundle, of a model that takes and gives more (its graphs are not used here)."""

    def change(manifest: Manifest) -> Manifest:
        large = msgspec.structs.replace(manifest.large, inputs=INPUTS, outputs=OUTPUTS)
        return msgspec.structs.replace(manifest, large=large)

    root = tmp_path_factory.mktemp("sided")
    bundle = open_bundle(small.rewrite(root, change), trust=small.trust)
    return dataclasses.replace(small, root=root, bundle=bundle, models=DeviceModels(bundle))


async def behave(request: pb.ModelInferRequest, context: oip.Context) -> pb.ModelInferResponse:
    """Answers from what came beside the frame, and gives the outputs that were asked for."""
    sent = {tensor.name: tensor for tensor in messages.inputs_of(request)}
    assert list(sent) == ["frame", "patient", "site"]
    (age, sex), site = sent["patient"].array()[0], sent["site"].array()
    response = answer_of(*np.eye(5)[int(site[0])])
    made = {
        "embedding": np.array([[age, sex, 0.5]], np.float32),
        "nearest": site.astype(np.int32),
    }
    for output in request.outputs:
        if output.name in made:
            messages.add_output(response, output.name, made[output.name])
    return response


def within(budget_ms: float) -> Deadline:
    return Deadline.after_ms(budget_ms, now_s=monotonic())


def beside(*outputs: str) -> Beside:
    return Beside(BESIDE, outputs or tuple(spec.name for spec in OUTPUTS))


async def test_they_go_along_and_come_back(sided: Small) -> None:
    async with fake_cloud(sided.bundle, behave) as cloud, connected(cloud.address) as uplink:
        agent = make_agent(sided, uplink)
        answer = await agent.answer(picture(0), within(LATER_MS), beside())
        assert answer.plan == CLOUD
        assert answer.probabilities.tolist() == [0, 0, 1, 0, 0]
        assert {name: array.tolist() for name, array in answer.outputs.items()} == {
            "embedding": [[63, 1, 0.5]],
            "nearest": [2],
        }
        assert answer.missing == ()
        (request,) = cloud.requests
        frame_bytes = len(request.raw_input_contents[0])
        assert answer.sent_bytes == frame_bytes + 2 * 4 + 8
        only = await agent.answer(picture(0), within(LATER_MS), beside("nearest"))
        assert list(only.outputs) == ["nearest"]
        agent.close()


async def test_a_model_without_them_sends_nothing_more(small: Small) -> None:
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        cloud.allowed.set()
        agent = make_agent(small, uplink)
        answer = await agent.answer(picture(0), within(LATER_MS))
        (request,) = cloud.requests
        assert [tensor.name for tensor in request.inputs] == ["frame"]
        assert (len(request.raw_input_contents), len(request.outputs)) == (1, 0)
        assert (answer.plan, answer.outputs, answer.missing) == (CLOUD, {}, ())
        assert answer.sent_bytes == len(request.raw_input_contents[0])
        agent.close()


async def test_the_devices_own_answer_says_what_it_lacks(sided: Small) -> None:
    agent = make_agent(sided, None)
    answer = await agent.answer(picture(0), within(LATER_MS), beside())
    assert (answer.plan, answer.outputs) == (LOCAL, {})
    assert answer.missing == ("embedding", "nearest")
    np.testing.assert_allclose(answer.probabilities, sided.light(picture(0)), rtol=1e-6)
    agent.close()


async def test_outputs_wanted_by_name_are_worth_asking_the_cloud(
    sided: Small, tmp_path: Path
) -> None:
    """A light model as good as the large one would answer everything, and give none of them."""

    def as_good(manifest: Manifest) -> Manifest:
        best = manifest.table[-1].agreement
        rows = [msgspec.structs.replace(row, agreement=best) for row in manifest.table]
        return msgspec.structs.replace(manifest, table=tuple(rows))

    bundle = open_bundle(sided.rewrite(tmp_path, as_good), trust=sided.trust)
    even = dataclasses.replace(sided, bundle=bundle, models=DeviceModels(bundle))
    async with fake_cloud(bundle, behave) as cloud, connected(cloud.address) as uplink:
        agent = make_agent(even, uplink)
        names = tuple(spec.name for spec in OUTPUTS)
        content = await agent.answer(picture(0), within(LATER_MS), Beside(BESIDE, names))
        assert (content.plan, content.missing) == (LOCAL, names)
        named = await agent.answer(picture(0), within(LATER_MS), Beside(BESIDE, names, named=True))
        assert named.plan != LOCAL
        assert (set(named.outputs), named.missing) == (set(names), ())
        hurried = await agent.answer(picture(0), within(1), Beside(BESIDE, names, named=True))
        assert (hurried.plan, hurried.missing) == (LOCAL, names)
        agent.close()


def without(response: pb.ModelInferResponse) -> pb.ModelInferResponse:
    return response


def misshapen(response: pb.ModelInferResponse) -> pb.ModelInferResponse:
    messages.add_output(response, "embedding", np.zeros((1, 4), np.float32))
    messages.add_output(response, "nearest", np.zeros(1, np.int32))
    return response


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (without, "no raw output 'embedding'"),
        (misshapen, "its output is float32 [1, 4], not embedding FP32 [3]"),
    ],
)
async def test_a_cloud_that_gives_something_else(
    sided: Small, spoil: Callable[[pb.ModelInferResponse], pb.ModelInferResponse], said: str
) -> None:
    async def answer(request: pb.ModelInferRequest, context: oip.Context) -> Any:
        return spoil(answer_of(0, 0, 0, 0, 1))

    async with fake_cloud(sided.bundle, answer) as cloud, connected(cloud.address) as uplink:
        agent = make_agent(sided, uplink)
        given = await agent.answer(picture(0), within(LATER_MS), beside())
        assert given.plan == LOCAL
        assert given.fallback.startswith("cloud failed")
        assert said in given.fallback
        assert given.missing == ("embedding", "nearest")
        agent.close()


@asynccontextmanager
async def edge_of(small: Small, folder: Path, cloud: FakeCloud) -> AsyncIterator[EdgeDaemon]:
    """A daemon that knows its link to a cloud."""
    config = EdgeConfig(
        bundle=measured_copy(small, folder), listen=ANY_PORT, trust=small.trust,
        cloud=cloud.address,
    )  # fmt: skip
    async with run_knowing(config) as daemon:
        yield daemon


@pytest.fixture
async def edge(sided: Small, tmp_path: Path) -> AsyncIterator[tuple[EdgeDaemon, FakeCloud]]:
    async with (
        fake_cloud(sided.bundle, behave) as cloud,
        edge_of(sided, tmp_path, cloud) as daemon,
    ):
        yield daemon, cloud


def triton_inputs(**arrays: Any) -> list[Any]:
    inputs = []
    for name, array in arrays.items():
        kind = {"u1": "UINT8", "f4": "FP32", "f8": "FP64", "i8": "INT64"}[array.dtype.str[1:]]
        inputs.append(triton.InferInput(name, list(array.shape), kind))
        inputs[-1].set_data_from_numpy(array)
    return inputs


async def test_tritonclient_sees_sends_and_asks(edge: tuple[EdgeDaemon, FakeCloud]) -> None:
    daemon, _ = edge

    def ask() -> None:
        with triton.InferenceServerClient(str(daemon.address)) as client:
            metadata = client.get_model_metadata(NAME)
            assert [(i.name, i.datatype, list(i.shape)) for i in metadata.inputs][2:] == [
                ("patient", "FP32", [1, 2]),
                ("site", "INT64", [1]),
            ]
            assert [(o.name, o.datatype, list(o.shape)) for o in metadata.outputs][2:] == [
                ("embedding", "FP32", [1, 3]),
                ("nearest", "INT32", [1]),
            ]
            inputs = triton_inputs(
                site=BESIDE["site"], pixels=picture(0), patient=BESIDE["patient"]
            )
            result = client.infer(NAME, inputs)
            assert result.as_numpy("probabilities").tolist() == [[0, 0, 1, 0, 0]]
            assert result.as_numpy("embedding").tolist() == [[63, 1, 0.5]]
            assert result.as_numpy("nearest").tolist() == [2]
            assert messages.MISSING_OUTPUTS not in result.get_response().parameters
            wanted = [triton.InferRequestedOutput("labels")]
            result = client.infer(NAME, inputs, outputs=wanted)
            assert result.as_numpy("embedding") is None
            # So little time that the device answers by itself.
            result = client.infer(NAME, inputs, parameters={"latency_budget_ms": 1})
            assert result.as_numpy("embedding") is None
            missing = result.get_response().parameters[messages.MISSING_OUTPUTS].string_param
            assert missing == "embedding,nearest"

    await asyncio.to_thread(ask)


async def test_a_priority_goes_along_to_the_cloud(edge: tuple[EdgeDaemon, FakeCloud]) -> None:
    daemon, cloud = edge

    def ask() -> None:
        with Client(str(daemon.address)) as client:
            for priority in (0, 2):
                answer = client.infer(
                    picture(0), inputs={"patient": [63, 1], "site": 3}, priority=priority
                )
                assert answer.label == "class 3"

    await asyncio.to_thread(ask)
    told = [messages.get_parameters(request.parameters) for request in cloud.requests]
    assert [each.get(messages.PRIORITY) for each in told] == [None, 2]


async def test_a_priority_goes_along_where_there_is_nothing_else_beside(
    small: Small, tmp_path: Path
) -> None:
    async with fake_cloud(small.bundle) as cloud:
        cloud.allowed.set()
        async with edge_of(small, tmp_path, cloud) as daemon:

            def ask() -> None:
                with Client(str(daemon.address)) as client:
                    client.infer(picture(0), outputs=[], priority=1)

            await asyncio.to_thread(ask)
        (request,) = cloud.requests
        assert messages.get_parameters(request.parameters)[messages.PRIORITY] == 1
        assert [tensor.name for tensor in request.inputs] == ["frame"]


PATIENT, SITE = BESIDE["patient"], BESIDE["site"]
TAKEN = "this model takes patient FP32 [2], site INT64 [] beside a picture"


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({}, f"input 'patient' is missing; {TAKEN}"),
        ({"patient": PATIENT}, f"input 'site' is missing; {TAKEN}"),
        ({"patient": PATIENT, "site": SITE, "age": SITE}, f"input 'age' is unknown; {TAKEN}"),
        ({"patient": PATIENT.astype(float), "site": SITE}, "must be FP32 [2] or [1, 2], not FP64"),
        ({"patient": PATIENT, "site": np.array([1, 2])}, "must be INT64 [] or [1], not INT64 [2]"),
        ({"patient": PATIENT * np.nan, "site": SITE}, "input 'patient' holds NaN or infinity"),
    ],
)
async def test_what_does_not_fit_is_refused_on_the_device(
    edge: tuple[EdgeDaemon, FakeCloud], sent: dict[str, Any], said: str
) -> None:
    daemon, cloud = edge

    def ask() -> None:
        with triton.InferenceServerClient(str(daemon.address)) as client:
            with pytest.raises(InferenceServerException) as caught:
                client.infer(NAME, triton_inputs(pixels=picture(0), **sent))
            assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
            assert said in caught.value.message()

    await asyncio.to_thread(ask)
    assert cloud.requests == []


async def test_our_own_client(edge: tuple[EdgeDaemon, FakeCloud]) -> None:
    daemon, _ = edge

    def ask() -> None:
        with Client(str(daemon.address)) as client:
            assert client.inputs() == INPUTS
            answer = client.infer(picture(0), inputs={"patient": [63, 1], "site": 3})
            assert answer.label == "class 3"
            assert answer.outputs["embedding"].tolist() == [[63, 1, 0.5]]
            assert answer.missing_outputs == ()
            answer = client.infer(picture(0), inputs={"patient": [63, 1], "site": 3}, outputs=[])
            assert (answer.outputs, answer.missing_outputs) == ({}, ())
            answer = client.infer(
                picture(0), inputs={"patient": [[63, 1]], "site": [3]}, budget_ms=1,
                outputs=["nearest"],
            )  # fmt: skip
            assert (answer.plan, answer.missing_outputs) == ("local", ("nearest",))
            with pytest.raises(RequestError, match="'age' is unknown; beside a picture patient"):
                client.infer(picture(0), inputs={"age": [1]})
            with pytest.raises(TensorError, match=r"\[3\] does not fit patient FP32 \[2\]"):
                client.infer(picture(0), inputs={"patient": [1, 2, 3], "site": 0})
            with pytest.raises(RemoteRefused, match="'patient' is missing"):
                client.infer(picture(0))

    await asyncio.to_thread(ask)
