"""A model that takes more than pictures and gives more than answers, over the wire."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton  # type: ignore[import-untyped]

from hybridge.cloud.job import Job
from hybridge.cloud.opening import open_shelf
from hybridge.cloud.shelf import BundleShelf
from hybridge.cloud.stage import Stage
from hybridge.cloud.work import Answer, Work, execute
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared import oip
from hybridge.shared.codec import codec_by_name
from hybridge.shared.deadline import monotonic
from hybridge.shared.errors import ConfigError, ModelFault
from hybridge.shared.frame import encode_frame
from hybridge.shared.side import Tensors
from hybridge.shared.signing import SigningKey, TrustStore
from hybridge.shared.tensor import Array

from .bundles import CHANNELS, CLASSES, SIZE, SidedModel, random_pixels, write_bundle
from .conftest import Cloud
from .test_service import probabilities, request_of

MODEL = SidedModel()
Code = grpc.StatusCode


def sides(items: int = 1, *, seed: int = 0) -> dict[str, Array]:
    """What may come beside so many pictures."""
    rng = np.random.default_rng(seed)
    return {
        "patient": rng.normal(size=(items, 2)).astype(np.float32),
        "site": rng.integers(0, 4, items),
    }


def asked(
    pixels: Array, beside: Tensors, *, outputs: tuple[str, ...] = (), name: str = "pixels"
) -> pb.ModelInferRequest:
    request = request_of(name, pixels)
    for each, array in beside.items():
        oip.add_input(request, each, array)
    for output in outputs:
        request.outputs.add(name=output)
    return request


def framed(pixels: Array) -> Array:
    """A raw frame of the tensor at the cut."""
    contract = MODEL.at_cut
    codec = codec_by_name("raw", contract)
    return np.frombuffer(encode_frame(MODEL.head(pixels), contract=contract, codec=codec), np.uint8)


@pytest.fixture
def model() -> SidedModel:
    return MODEL


async def test_they_travel_beside_a_frame(cloud: Cloud) -> None:
    pixels, beside = random_pixels(0), sides()
    response = await cloud.stub.ModelInfer(asked(framed(pixels), beside, name="frame"))
    tensor = MODEL.head(pixels)
    np.testing.assert_allclose(probabilities(response), MODEL.answer(tensor, beside), rtol=1e-4)
    embedding = oip.output_array(response, "embedding")
    np.testing.assert_allclose(embedding, MODEL.embedding(tensor), rtol=1e-4)


async def test_each_picture_of_a_request_has_its_own(cloud: Cloud) -> None:
    pixels = np.stack([random_pixels(seed) for seed in range(3)])
    beside = sides(3)
    response = await cloud.stub.ModelInfer(asked(pixels, beside))
    together, embeddings = probabilities(response), oip.output_array(response, "embedding")
    assert (together.shape, embeddings.shape) == ((3, CLASSES), (3, CHANNELS))
    for at in range(3):
        own = {name: array[at] for name, array in beside.items()}  # without an axis of items
        alone = await cloud.stub.ModelInfer(asked(pixels[at], own))
        np.testing.assert_allclose(probabilities(alone), together[at : at + 1], rtol=1e-4)
        np.testing.assert_allclose(
            oip.output_array(alone, "embedding"), embeddings[at : at + 1], rtol=1e-4
        )


def work(stage: Stage, pixels: Array, beside: Tensors, *, number: int) -> Work:
    deadline_s = monotonic() + 60
    job = Job(id=number, stage=stage.key, items=1, arrived_s=0.0, deadline_s=deadline_s)
    future: asyncio.Future[Answer | Exception] = asyncio.get_running_loop().create_future()
    return Work(job=job, load=lambda: pixels[None], answer=future, sides=beside)


async def test_a_batch_of_several_requests_keeps_them_apart(
    bundles: Path, trust: TrustStore
) -> None:
    stage = (
        open_shelf(BundleShelf(root=bundles, trust=trust, max_batch=4))
        .repository.model("tiny")
        .whole
    )
    pictures = [random_pixels(seed) for seed in range(3)]
    beside = [sides(seed=seed) for seed in range(3)]
    beside[1] = {**beside[1], "site": np.array([99])}  # there are four
    works = [work(stage, pictures[at], beside[at], number=at) for at in range(3)]
    outcomes = execute(works, stage=stage, clock=monotonic).outcomes
    assert isinstance(outcomes[1], ModelFault)
    for at in (0, 2):
        answer, tensor = outcomes[at], MODEL.head(pictures[at])
        assert isinstance(answer, Answer)
        expected = MODEL.answer(tensor, beside[at])
        np.testing.assert_allclose(answer.probabilities, expected, atol=0.05)
        np.testing.assert_allclose(answer.outputs["embedding"], MODEL.embedding(tensor), atol=0.05)
    both = execute([works[0], works[2]], stage=stage, clock=monotonic)
    assert both.items == 2
    for outcome, old in zip(both.outcomes, (outcomes[0], outcomes[2]), strict=True):
        assert isinstance(outcome, Answer)
        assert isinstance(old, Answer)
        np.testing.assert_allclose(outcome.probabilities, old.probabilities, rtol=1e-4)
        np.testing.assert_allclose(
            outcome.outputs["embedding"], old.outputs["embedding"], rtol=1e-4
        )


async def test_outputs_come_as_asked(cloud: Cloud) -> None:
    async def names(*outputs: str) -> list[str]:
        request = asked(random_pixels(0), sides(), outputs=outputs)
        return [each.name for each in (await cloud.stub.ModelInfer(request)).outputs]

    assert await names() == ["probabilities", "embedding"]
    assert await names("embedding") == ["probabilities", "embedding"]
    assert await names("probabilities") == ["probabilities"]


TAKEN = "this model takes patient FP32 [2], site INT64 [] beside a picture"
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "none": ({}, f"input 'patient' is missing; {TAKEN}"),
    "one missing": ({"patient": np.zeros(2, np.float32)}, f"input 'site' is missing; {TAKEN}"),
    "unknown": ({**sides(), "age": np.zeros(1)}, f"input 'age' is unknown; {TAKEN}"),
    "dtype": (
        {**sides(), "patient": np.zeros(2)},
        "input 'patient' must be FP32 [2] or [1, 2], not FP64 [2]",
    ),
    "shape": (
        {**sides(), "patient": np.zeros((2, 1), np.float32)},
        "input 'patient' must be FP32 [2] or [1, 2], not FP32 [2, 1]",
    ),
    "items": (
        {**sides(), "site": np.zeros(2, np.int64)},
        "input 'site' must be INT64 [] or [1], not INT64 [2]",
    ),
    "not a number": (
        {**sides(), "patient": np.array([1, np.nan], np.float32)},
        "input 'patient' holds NaN or infinity",
    ),
    "two pictures": (
        {**sides(), "frame": np.zeros(9, np.uint8)},
        "exactly one input must be 'frame' or 'pixels' or 'picture'",
    ),
}


@pytest.mark.parametrize("bad", BAD)
async def test_what_does_not_fit_is_refused_by_name(cloud: Cloud, bad: str) -> None:
    beside, words = BAD[bad]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.stub.ModelInfer(asked(random_pixels(0), beside))
    assert caught.value.code() is Code.INVALID_ARGUMENT
    assert words in str(caught.value.details())


async def test_the_same_input_twice_and_an_unknown_output(cloud: Cloud) -> None:
    request = asked(random_pixels(0), sides())
    oip.add_input(request, "site", np.zeros(1, np.int64))
    with pytest.raises(grpc.aio.AioRpcError, match="an input came twice"):
        await cloud.stub.ModelInfer(request)
    request = asked(random_pixels(0), sides(), outputs=("heatmap",))
    with pytest.raises(grpc.aio.AioRpcError, match="there are probabilities, embedding"):
        await cloud.stub.ModelInfer(request)


async def test_a_value_that_the_model_cannot_take_fails_alone(cloud: Cloud) -> None:
    beside = {**sides(), "site": np.array([99])}
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.stub.ModelInfer(asked(random_pixels(0), beside))
    assert caught.value.code() is Code.INTERNAL
    response = await cloud.stub.ModelInfer(asked(random_pixels(0), sides()))
    assert probabilities(response).shape == (1, CLASSES)


async def test_tritonclient_sees_and_sends_them(cloud: Cloud) -> None:
    pixels, beside = random_pixels(1), sides(seed=1)
    response = await cloud.stub.ModelInfer(asked(pixels, beside))
    expected, embedding = probabilities(response), oip.output_array(response, "embedding")

    def ask() -> None:
        with triton.InferenceServerClient(str(cloud.address)) as client:
            metadata = client.get_model_metadata("tiny")
            assert [(i.name, i.datatype, list(i.shape)) for i in metadata.inputs] == [
                ("pixels", "UINT8", [-1, SIZE, SIZE, 3]),
                ("patient", "FP32", [-1, 2]),
                ("site", "INT64", [-1]),
            ]
            assert [(o.name, o.datatype, list(o.shape)) for o in metadata.outputs] == [
                ("probabilities", "FP32", [-1, CLASSES]),
                ("embedding", "FP32", [-1, CHANNELS]),
            ]
            # The picture need not come first.
            sent = {"patient": beside["patient"], "pixels": pixels[None], "site": beside["site"]}
            inputs = []
            for name, array in sent.items():
                kind = {"f": "FP32", "i": "INT64", "u": "UINT8"}[array.dtype.kind]
                inputs.append(triton.InferInput(name, list(array.shape), kind))
                inputs[-1].set_data_from_numpy(array)
            result = client.infer("tiny", inputs)
            np.testing.assert_allclose(result.as_numpy("probabilities"), expected, rtol=1e-5)
            np.testing.assert_allclose(result.as_numpy("embedding"), embedding, rtol=1e-5)
            wanted = [triton.InferRequestedOutput("probabilities")]
            result = client.infer("tiny", inputs, outputs=wanted)
            assert result.as_numpy("embedding") is None

    await asyncio.to_thread(ask)


def test_a_manifest_that_names_other_tensors_is_not_served(
    tmp_path: Path, key: SigningKey, trust: TrustStore, caplog: pytest.LogCaptureFixture
) -> None:
    model = SidedModel()
    object.__setattr__(model, "inputs", model.inputs[:1])
    write_bundle(tmp_path, key=key, model=model)
    with pytest.raises(ConfigError, match=r"inputs .*'patient', 'site'.* manifest names"):
        open_shelf(BundleShelf(root=tmp_path, trust=trust, max_batch=1))
