"""The rest of the Open Inference Protocol over gRPC, to Triton's own client."""

import asyncio
import dataclasses
import queue
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton  # type: ignore[import-untyped]
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

from hybridge.cloud.config import CloudConfig
from hybridge.cloud.front import Front
from hybridge.cloud.room import Room
from hybridge.cloud.statistics import ModelFigures
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared import oip
from hybridge.shared.errors import DeadlineUnmet
from hybridge.shared.signing import SigningKey

from .bundles import TinyModel, random_pixels, write_bundle
from .conftest import Cloud, run_cloud
from .test_bad_input import check_serves, gated, inference_of, whole_stage
from .test_service import frame_of, probabilities, request_of

Use = Callable[[Any], None]


async def use(cloud: Cloud, check: Use) -> None:
    """Runs a check with Triton's client, in a thread as it blocks."""

    def run() -> None:
        with triton.InferenceServerClient(str(cloud.address)) as client:
            check(client)

    await asyncio.to_thread(run)


def picture(seed: int) -> Any:
    pixels = random_pixels(seed)
    source = triton.InferInput("pixels", [1, *pixels.shape], "UINT8")
    source.set_data_from_numpy(pixels[None])
    return source


@pytest.fixture
def config(config: CloudConfig) -> CloudConfig:
    return dataclasses.replace(config, model_control=True)


async def test_statistics(cloud: Cloud, model: TinyModel) -> None:
    def check(client: Any) -> None:
        client.infer("tiny", [picture(0)])
        both = triton.InferInput("pixels", [2, 16, 16, 3], "UINT8")
        both.set_data_from_numpy(np.stack([random_pixels(1), random_pixels(2)]))
        client.infer("tiny", [both])
        with pytest.raises(InferenceServerException):
            client.infer("tiny", [picture(0)], outputs=[triton.InferRequestedOutput("none")])
        (stats,) = client.get_inference_statistics("tiny").model_stats
        assert (stats.name, stats.version) == ("tiny", "1")
        assert (stats.inference_count, stats.execution_count) == (3, 2)
        assert stats.last_inference > 1_700_000_000_000
        steps = stats.inference_stats
        assert (steps.success.count, steps.fail.count) == (2, 1)
        parts = (steps.queue, steps.compute_input, steps.compute_infer, steps.compute_output)
        assert [part.count for part in parts] == [2, 2, 2, 2]
        assert sum(part.ns for part in parts) == pytest.approx(steps.success.ns, abs=10)
        assert steps.compute_infer.ns > 0
        batches = {batch.batch_size: batch.compute_infer.count for batch in stats.batch_stats}
        assert batches == {1: 1, 2: 1}
        everything = client.get_inference_statistics()
        assert [each.name for each in everything.model_stats] == ["tiny"]
        assert len(client.get_inference_statistics("tiny", "1").model_stats) == 1
        for name, version in (("other", ""), ("tiny", "2"), ("", "1")):
            with pytest.raises(InferenceServerException, match="NOT_FOUND"):
                client.get_inference_statistics(name, version)

    await use(cloud, check)


async def test_index_load_and_unload(config: CloudConfig, key: SigningKey) -> None:
    write_bundle(config.bundles, key=key, name="other", model=TinyModel(seed=1))
    async with run_cloud(config) as cloud:

        def states(client: Any) -> dict[tuple[str, str], str]:
            index = client.get_model_repository_index().models
            return {(each.name, each.version): each.state for each in index}

        def check(client: Any) -> None:
            assert states(client) == {("other", "1"): "READY", ("tiny", "1"): "READY"}
            client.unload_model("other")
            assert not client.is_model_ready("other")
            assert client.is_model_ready("tiny")
            assert states(client)["other", "1"] == "UNAVAILABLE"
            with pytest.raises(InferenceServerException, match="NOT_FOUND"):
                client.infer("other", [picture(0)])
            with pytest.raises(InferenceServerException, match="NOT_FOUND"):
                client.unload_model("other")
            client.load_model("other")
            assert client.is_model_ready("other", "1")
            assert client.infer("other", [picture(0)]).as_numpy("probabilities").shape == (1, 5)
            write_bundle(config.bundles, key=key, name="other", version="2")
            client.load_model("other")
            assert list(client.get_model_metadata("other").versions) == ["2", "1"]
            with pytest.raises(InferenceServerException, match="NOT_FOUND"):
                client.load_model("nothing")
            with pytest.raises(InferenceServerException, match="INVALID_ARGUMENT"):
                client.load_model("tiny", config='{"max_batch_size": 2}')

        await use(cloud, check)


async def test_tails_of_a_loaded_model_serve(
    config: CloudConfig, key: SigningKey, model: TinyModel
) -> None:
    async with run_cloud(config) as cloud:
        await cloud.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="tiny"))
        await cloud.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="tiny"))
        tensor = model.head(random_pixels(1))
        request = request_of("frame", frame_of(tensor, contract=model.at_cut, codec="raw"))
        response = await cloud.stub.ModelInfer(request, timeout=30)
        np.testing.assert_allclose(probabilities(response), model.tail(tensor), rtol=1e-4)


async def test_a_broken_new_version_takes_no_traffic(config: CloudConfig, key: SigningKey) -> None:
    async with run_cloud(config) as cloud:
        path = write_bundle(config.bundles, key=key, version="2", model=TinyModel(seed=1))
        manifest = path / "manifest.json"
        manifest.write_bytes(manifest.read_bytes() + b" ")
        await cloud.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="tiny"))
        index = await cloud.stub.RepositoryIndex(pb.RepositoryIndexRequest())
        assert [(each.version, each.state) for each in index.models] == [
            ("1", "READY"),
            ("2", "UNAVAILABLE"),
        ]
        assert "altered" in index.models[1].reason or "match" in index.models[1].reason
        ready = await cloud.stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True))
        assert [each.version for each in ready.models] == ["1"]
        await check_serves(cloud)


async def test_unloading_finishes_what_was_accepted(config: CloudConfig) -> None:
    one = dataclasses.replace(config, instances=1)
    async with run_cloud(one) as cloud, gated(whole_stage(cloud)) as gate:
        inference = inference_of(cloud)
        calls = [
            asyncio.ensure_future(cloud.stub.ModelInfer(request_of("pixels", random_pixels(seed))))
            for seed in range(3)
        ]
        while len(inference.worker._works) < 3:
            await cloud.stub.ServerLive(pb.ServerLiveRequest())
        unload = pb.RepositoryModelUnloadRequest(model_name="tiny")
        unloading = asyncio.ensure_future(cloud.stub.RepositoryModelUnload(unload).code())
        while (await cloud.stub.ModelReady(pb.ModelReadyRequest(name="tiny"))).ready:
            pass
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await cloud.stub.ModelInfer(request_of("pixels", random_pixels(0)))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert not unloading.done()
        gate.allowed.set()
        for response in await asyncio.gather(*calls):
            assert probabilities(response).shape == (1, 5)
        assert await unloading is grpc.StatusCode.OK
        assert inference.worker._stages == {}
        await cloud.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="tiny"))
        await check_serves(cloud)


async def test_a_change_outlives_who_asked_for_it(config: CloudConfig) -> None:
    async with run_cloud(config) as cloud, gated(whole_stage(cloud)) as gate:
        call = asyncio.ensure_future(cloud.stub.ModelInfer(request_of("pixels", random_pixels(0))))
        assert await asyncio.to_thread(gate.entered.acquire, timeout=30)
        unload = pb.RepositoryModelUnloadRequest(model_name="tiny")
        with pytest.raises(grpc.aio.AioRpcError):
            await cloud.stub.RepositoryModelUnload(unload, timeout=0.05)
        gate.allowed.set()
        await call
        await cloud.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="tiny"))
        await check_serves(cloud)


async def test_models_are_the_operators_unless_said_otherwise(config: CloudConfig) -> None:
    async with run_cloud(dataclasses.replace(config, model_control=False)) as cloud:

        def check(client: Any) -> None:
            for call in (client.load_model, client.unload_model):
                with pytest.raises(InferenceServerException, match="PERMISSION_DENIED"):
                    call("tiny")
            assert len(client.get_model_repository_index().models) == 1

        await use(cloud, check)
        await check_serves(cloud)


async def test_a_stream_keeps_order_and_goes_on_after_errors(cloud: Cloud) -> None:
    expected = {
        seed: probabilities(await cloud.stub.ModelInfer(request_of("pixels", random_pixels(seed))))
        for seed in range(20)
    }

    def check(client: Any) -> None:
        answers: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        client.start_stream(lambda result, error: answers.put((result, error)))
        for seed in range(20):
            name = "nothing" if seed % 7 == 3 else "tiny"
            client.async_stream_infer(name, [picture(seed)], request_id=str(seed))
        for seed in range(20):
            result, error = answers.get(timeout=30)
            if seed % 7 == 3:
                assert "unknown model: 'nothing'" in str(error)
                continue
            assert error is None
            assert result.get_response().id == str(seed)
            np.testing.assert_allclose(result.as_numpy("probabilities"), expected[seed], rtol=1e-5)
        client.stop_stream()

    await use(cloud, check)


async def test_a_stream_names_the_request_that_failed(cloud: Cloud) -> None:
    bad = request_of("pixels", random_pixels(0)[1:])
    good = request_of("pixels", random_pixels(0), triton_enable_empty_final_response=True)
    failed, answered = [each async for each in cloud.stub.ModelStreamInfer(iter([bad, good]))]
    assert failed.error_message.startswith("bad tensor")
    assert (failed.infer_response.id, failed.infer_response.model_name) == ("7", "tiny")
    assert answered.error_message == ""
    assert oip.get_parameters(answered.infer_response.parameters)["triton_final_response"] is True


async def test_nonsense_on_a_stream_ends_it_with_a_word(cloud: Cloud) -> None:
    call: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = cloud.channel.stream_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer"
    )
    stream = call(iter([b"\xff" * 100]))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(aiter(stream))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    await check_serves(cloud)


async def test_an_idle_stream_does_not_hold_up_the_shutdown(config: CloudConfig) -> None:
    async with run_cloud(dataclasses.replace(config, grace_ms=3_600_000)) as cloud:
        stream = cloud.stub.ModelStreamInfer()
        await stream.write(request_of("pixels", random_pixels(0)))
        assert (await stream.read()).error_message == ""
        await asyncio.wait_for(cloud.server.shutdown(), 60)
        assert await stream.read() is grpc.aio.EOF


async def test_models_that_never_come() -> None:
    front = Front(Room(1 << 30, refused=ModelFigures()))
    with pytest.raises(DeadlineUnmet, match="still being loaded"):
        await front.served(0.01)
