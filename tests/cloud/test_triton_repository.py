"""Triton's model-repository layout, read as it is and served to Triton's own clients."""

import asyncio
import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton  # type: ignore[import-untyped]
import tritonclient.http as triton_http  # type: ignore[import-untyped]
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from tritonclient.grpc import model_config_pb2 as tritons
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

from hybridge.cloud.config import CloudConfig
from hybridge.cloud.named import NamedModel
from hybridge.cloud.opening import open_shelf
from hybridge.cloud.triton_config import check_config, read_config, served_versions
from hybridge.cloud.triton_shelf import TritonShelf
from hybridge.protos import model_config_pb2 as pb
from hybridge.protos import open_inference_pb2 as oip_pb
from hybridge.shared.errors import BundleError, ConfigError
from hybridge.shared.security import MAX_MESSAGE_BYTES, Address

from .conftest import Cloud, run_cloud
from .named_models import SCALE_CONFIG, write_config, write_scale

X = np.arange(6, dtype=np.float32).reshape(2, 3)
Y = np.array([[10], [20]], np.int64)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """`scale` as its config says, `bare` without any, `single` without an axis of items."""
    root = tmp_path / "repository"
    for version, factor in ((1, 2.0), (3, 3.0)):
        write_scale(root / "scale" / str(version), factor=factor)
    write_config(root / "scale", SCALE_CONFIG)
    (root / "scale" / "labels.txt").write_text("one\ntwo\nthree\n")
    write_scale(root / "bare" / "1", external=True)
    write_scale(root / "single" / "1", batched=False)
    (root / "notes").mkdir()
    return root


@pytest.fixture
def config(config: CloudConfig, root: Path) -> CloudConfig:
    return dataclasses.replace(
        config,
        bundles=root / "none",
        model_repository=root,
        model_control=True,
        http=Address("127.0.0.1", 0),
    )


async def use(cloud: Cloud, check: Callable[[Any], None]) -> None:
    def run() -> None:
        with triton.InferenceServerClient(str(cloud.address)) as client:
            check(client)

    await asyncio.to_thread(run)


def inputs(x: Any = X, y: Any = Y, *, of: Any = triton) -> list[Any]:
    made = []
    for name, array, datatype in (("x", x, "FP32"), ("y", y, "INT64")):
        tensor = of.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array)
        made.append(tensor)
    return made


async def test_by_its_config(cloud: Cloud) -> None:
    def check(client: Any) -> None:
        result = client.infer("scale", inputs())
        np.testing.assert_array_equal(result.as_numpy("scaled"), X * 3 + Y)
        assert result.as_numpy("count") is None, "config.pbtxt leaves it out"
        told = client.get_model_metadata("scale")
        assert (list(told.versions), told.platform) == (["3"], "onnxruntime_onnx")
        assert [(each.name, list(each.shape)) for each in told.inputs] == [
            ("x", [-1, 3]),
            ("y", [-1, 1]),
        ]
        about = client.get_model_config("scale").config
        assert (about.name, about.max_batch_size) == ("scale", 8)
        assert about.dynamic_batching.max_queue_delay_microseconds == 500
        assert about.output[0].label_filename == "labels.txt"
        nine = inputs(np.zeros((9, 3), np.float32), np.zeros((9, 1), np.int64))
        with pytest.raises(InferenceServerException, match="1 to 8 items"):
            client.infer("scale", nine)

    await use(cloud, check)
    front = cloud.server._front
    assert front is not None
    assert front.now is not None
    model = front.now.inference.repository.model("scale")
    assert isinstance(model, NamedModel)
    assert model.labels == ("one", "two", "three")
    assert model.default_budget_ms == 30_000
    assert model.stage.together == 4
    assert model.stage.cost.linger_ms <= 0.5


async def test_without_a_config_as_triton_completes_it(cloud: Cloud) -> None:
    def check(client: Any) -> None:
        about = client.get_model_config("bare").config
        assert about.max_batch_size == 4
        assert about.HasField("dynamic_batching")
        assert [list(each.dims) for each in about.input] == [[3], [1]]
        np.testing.assert_array_equal(
            client.infer("bare", inputs()).as_numpy("count"), np.array([[11], [21]])
        )
        about = client.get_model_config("single").config
        assert about.max_batch_size == 0
        result = client.infer("single", inputs(X[0], Y[0]))
        np.testing.assert_array_equal(result.as_numpy("scaled"), X[0] * 2 + 10)
        wanted = [triton.InferRequestedOutput("count")]
        result = client.infer("single", inputs(X[0], Y[0]), outputs=wanted)
        assert [each.name for each in result.get_response().outputs] == ["count"]

    await use(cloud, check)


async def test_over_http(cloud: Cloud) -> None:
    address = cloud.server.sites["http"]

    def check() -> None:
        with triton_http.InferenceServerClient(str(address)) as client:
            result = client.infer("scale", inputs(of=triton_http))
            np.testing.assert_array_equal(result.as_numpy("scaled"), X * 3 + Y)
            about = client.get_model_config("scale")
            assert about["max_batch_size"] == 8
            assert about["input"][0] == {"name": "x", "data_type": "TYPE_FP32", "dims": ["3"]}
            assert client.get_model_config("single")["max_batch_size"] == 0

    await asyncio.to_thread(check)
    url = f"http://{address}/v2/models/none/config"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert response.status == 404


BAD = [
    ([X.astype(np.float64), Y], "FP64 .* does not fit x FP32"),
    ([X[:, :2], Y], r"\[2, 2\] does not fit x FP32 \[3\]"),
    ([X, Y[:1]], r"\[2, 1\] items"),
    ([X[0], Y[0]], "does not fit"),
]


@pytest.mark.parametrize(("arrays", "words"), BAD)
async def test_bad_requests_are_told_what_fits(cloud: Cloud, arrays: list[Any], words: str) -> None:
    def check(client: Any) -> None:
        sent = []
        for name, array in zip("xy", arrays, strict=True):
            datatype = {"f8": "FP64", "f4": "FP32", "i8": "INT64"}[array.dtype.str[1:]]
            sent.append(triton.InferInput(name, list(array.shape), datatype))
            sent[-1].set_data_from_numpy(array)
        with pytest.raises(InferenceServerException, match=words):
            client.infer("scale", sent)
        with pytest.raises(InferenceServerException, match="input 'y' is missing"):
            client.infer("scale", inputs()[:1])
        twice = [*inputs(), inputs()[0]]
        with pytest.raises(InferenceServerException, match="came twice"):
            client.infer("scale", twice)
        with pytest.raises(InferenceServerException, match="output 'none' is unknown"):
            client.infer("scale", inputs(), outputs=[triton.InferRequestedOutput("none")])

    await use(cloud, check)


async def test_files_that_change_under_the_same_version_are_taken_up(
    cloud: Cloud, root: Path
) -> None:
    def check(client: Any) -> None:
        write_scale(root / "bare" / "1", factor=5.0)
        client.load_model("bare")
        np.testing.assert_array_equal(client.infer("bare", inputs()).as_numpy("scaled"), X * 5 + Y)
        (root / "bare" / "1" / "model.onnx").write_bytes(b"nothing")
        client.load_model("bare")
        (told,) = [each for each in client.get_model_repository_index().models
                   if each.name == "bare"]  # fmt: skip
        assert told.state == "READY"
        assert "ONNX Runtime refuses" in told.reason
        np.testing.assert_array_equal(client.infer("bare", inputs()).as_numpy("scaled"), X * 5 + Y)

    await use(cloud, check)


async def test_a_repository_that_is_away_is_told_and_costs_nobody_an_answer(
    cloud: Cloud, root: Path
) -> None:
    await asyncio.to_thread(root.rename, root.with_name("away"))
    for call in (
        cloud.stub.RepositoryIndex(oip_pb.RepositoryIndexRequest()),
        cloud.stub.RepositoryModelLoad(oip_pb.RepositoryModelLoadRequest(model_name="bare")),
    ):
        assert await call.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "the models cannot be read" in str(await call.details())

    def check(client: Any) -> None:
        assert client.infer("bare", inputs()).as_numpy("scaled") is not None

    await use(cloud, check)


async def test_a_version_that_the_policy_leaves_out_can_be_chosen(cloud: Cloud) -> None:
    request = oip_pb.RepositoryModelLoadRequest(model_name="scale")
    request.parameters["version"].string_param = "previous"
    await cloud.stub.RepositoryModelLoad(request, timeout=60)

    def check(client: Any) -> None:
        result = client.infer("scale", inputs())
        np.testing.assert_array_equal(result.as_numpy("scaled"), X * 2 + Y)
        assert list(client.get_model_metadata("scale").versions) == ["1", "3"]

    await use(cloud, check)


REFUSED = [
    ('backend: "python"', "backend 'python' is not there"),
    ('platform: "pytorch_libtorch"', "can be exported to ONNX"),
    ("sequence_batching { }", "sequence_batching: models that keep state"),
    ('name: "other"', "is of 'other'"),
    ("max_batch_size: many", "cannot be read"),
    ("no_such_field: 1", "no_such_field"),
    ("model_transaction_policy { decoupled: true }", "decoupled"),
    ("max_batch_size: -3", "max_batch_size is -3"),
    ('input [ { name: "x" data_type: TYPE_STRING dims: [3] } ]', "TYPE_STRING"),
    ('input [ { name: "z" data_type: TYPE_FP32 dims: [3] } ]', "no input 'z'"),
    ('input [ { name: "x" data_type: TYPE_FP32 dims: [3] optional: true } ]', "optional"),
    ('max_batch_size: 4 input [ { name: "x" data_type: TYPE_FP32 dims: [4] } ]', "the model's is"),
    ('max_batch_size: 4 input [ { name: "x" data_type: TYPE_FP32 dims: [3] } ]', "leaves out"),
    ('output [ { name: "count" data_type: TYPE_INT64 dims: [1] label_filename: "../x" } ]', "name"),
    ('default_model_filename: "none.onnx"', "there is no"),
    ('backend: "hybridge_remote"', "needs the parameter"),
]


@pytest.mark.parametrize(("text", "words"), REFUSED)
def test_what_is_not_served_is_named(tmp_path: Path, text: str, words: str) -> None:
    write_scale(tmp_path / "scale" / "1")
    write_config(tmp_path / "scale", text)
    with pytest.raises(ConfigError, match=words):
        open_shelf(TritonShelf(root=tmp_path, max_batch=4))


def test_what_is_left_aside_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = (
        "optimization { graph { level: 1 } } instance_group [ { count: 3 } ] "
        'parameters { key: "intra_op_thread_count" value: { string_value: "4" } } '
        "dynamic_batching { preserve_ordering: true "
        "priority_queue_policy { key: 1 value: { max_queue_size: 3 } } "
        "default_queue_policy { max_queue_size: 9 timeout_action: DELAY } }"
    )
    write_config(tmp_path / "scale", text)
    check_config(read_config(tmp_path / "scale"))
    for word in ("optimization", "instance_group", "intra_op_thread_count", "preserve_ordering",
                 "priority_queue_policy", "max_queue_size", "DELAY"):  # fmt: skip
        assert word in caplog.text


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ("", [12]),
        ("version_policy { latest { num_versions: 2 } }", [3, 12]),
        ("version_policy { all { } }", [1, 3, 12]),
        ("version_policy { specific { versions: [1, 12, 99] } }", [1, 12]),
    ],
)
def test_version_policies(tmp_path: Path, policy: str, served: list[int]) -> None:
    write_config(tmp_path / "scale", policy)
    assert served_versions(read_config(tmp_path / "scale"), [3, 12, 1]) == served
    for version in ("3", "12", "1", "01", "new"):
        (tmp_path / "scale" / version).mkdir()
    found = TritonShelf(root=tmp_path, max_batch=4).found()
    assert [int(each.version) for each in found] == served


def test_a_batch_that_no_message_holds_is_not_measured(tmp_path: Path) -> None:
    write_scale(tmp_path / "scale" / "1")
    write_config(
        tmp_path / "scale", SCALE_CONFIG.replace("max_batch_size: 8", "max_batch_size: 1000000000")
    )
    (tmp_path / "scale" / "labels.txt").write_text("one\n")
    opened = open_shelf(TritonShelf(root=tmp_path, max_batch=4))
    whole = opened.repository.model("scale").whole
    assert whole.max_batch == MAX_MESSAGE_BYTES // (3 * 4 + 8)
    assert whole.cost.batch_items <= 4


def test_a_broken_config_is_no_reason_to_serve_nothing_else(root: Path) -> None:
    write_config(root / "bare", "{")
    opened = open_shelf(TritonShelf(root=root, max_batch=4))
    assert {model.name for model in opened.repository} == {"scale", "single"}
    assert "cannot be read" in opened.reasons["bare", "1"]


def test_the_message_is_tritons_own() -> None:
    ours, theirs = FileDescriptorProto(), FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(ours)
    tritons.DESCRIPTOR.CopyToProto(theirs)
    said = str(ours).replace(".hybridge.inference.v2.", ".inference.")
    assert said.partition("message_type")[2] == str(theirs).partition("message_type")[2]


async def test_bundles_have_a_config_too(bundles: Path, config: CloudConfig) -> None:
    async with run_cloud(dataclasses.replace(config, bundles=bundles)) as cloud:
        response = await cloud.stub.ModelConfig(oip_pb.ModelConfigRequest(name="tiny"))
        about = response.config
        assert (about.name, about.backend, about.max_batch_size) == ("tiny", "onnxruntime", 8)
        assert list(about.input[0].dims) == [16, 16, 3]
        assert about.output[0].data_type == pb.TYPE_FP32
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await cloud.stub.ModelConfig(oip_pb.ModelConfigRequest(name="none"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_reading_a_config_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "config.pbtxt").write_bytes(b"\xff\xfe")
    with pytest.raises(BundleError, match="cannot be read"):
        read_config(tmp_path)


def test_a_stage_is_opened_anew_after_it_was_closed_and_elsewhere(root: Path) -> None:
    (model,) = open_shelf(TritonShelf(root=root, max_batch=4)).repository.versions("single")
    stage = model.whole
    stage.unload()
    for opened in (stage.open(), pickle.loads(pickle.dumps(stage.open))()):
        made = opened.run(X[:1], {"y": Y[:1]}).outputs
        np.testing.assert_array_equal(made["scaled"], X[:1] * 2 + Y[:1])
