"""The cloud's part by torch: the same answers and the same faults as by ONNX Runtime."""

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from hybridge.cloud.compiler.external import externalize
from hybridge.cloud.config import CloudConfig
from hybridge.cloud.model import ServedModel
from hybridge.cloud.opening import open_shelf
from hybridge.cloud.shelf import BundleShelf
from hybridge.cloud.torch_graph.backend import TorchBackend, torch_weights
from hybridge.cloud.torch_graph.weights import Int8Matrix, TorchWeights, borrowed
from hybridge.cloud.weights import Weights
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared import oip
from hybridge.shared.bundle import open_bundle
from hybridge.shared.errors import BundleError, ConfigError, ModelFault
from hybridge.shared.manifest import (
    Precision,
    Runtime,
    Variant,
    decode_manifest,
    encode_manifest,
)
from hybridge.shared.signing import SigningKey, TrustStore
from hybridge.shared.tensor import Array

from ..bundles import SidedModel, TinyModel, random_pixels, write_bundle
from ..conftest import run_cloud

TORCH = Runtime.TORCH


def with_torch(path: Path, key: SigningKey, *precisions: Precision) -> Path:
    """The tiny bundle with variants that torch makes of its float32 graphs."""
    manifest = decode_manifest((path / "manifest.json").read_bytes())
    own = manifest.large.variant(Precision.FLOAT32)
    variant = msgspec.structs.replace(own, runtime=TORCH)
    large = msgspec.structs.replace(manifest.large, variants=dict.fromkeys(precisions, variant))
    manifest = msgspec.structs.replace(manifest, large=large)
    encoded = encode_manifest(manifest)
    (path / "manifest.json").write_bytes(encoded)
    (path / "manifest.sig").write_bytes(key.sign(encoded))
    return path


def opened(
    path: Path,
    trust: TrustStore,
    *,
    precision: Precision = Precision.FLOAT32,
    runtime: Runtime | None = None,
) -> ServedModel:
    bundle = open_bundle(path, trust=trust)
    model = ServedModel.of(bundle, max_batch=3, precision=precision, runtime=runtime)
    for stage in model.stages:
        stage.load()
    return model


def answers(model: ServedModel, *, items: int) -> list[Array]:
    """Of the whole and of the tail, to the same pictures."""
    tiny = TinyModel()
    pixels = [random_pixels(seed) for seed in range(items)]
    sent = np.stack([tiny.head(each) for each in pixels])
    whole, tail = model.stages
    return [
        stage.run(batch, {}).probabilities
        for stage, batch in ((whole, np.stack(pixels)), (tail, sent))
    ]


@pytest.mark.parametrize("items", [1, 2, 3])
def test_torch_answers_as_onnx_runtime(bundles: Path, trust: TrustStore, items: int) -> None:
    path = bundles / "tiny" / "1"
    onnx, by_torch = opened(path, trust), opened(path, trust, runtime=TORCH)
    assert (onnx.runtime, by_torch.runtime) == (Runtime.ONNXRUNTIME, TORCH)
    for _ in range(2):  # the first run with a number of items writes down what the second does
        for wanted, made in zip(
            answers(onnx, items=items), answers(by_torch, items=items), strict=True
        ):
            np.testing.assert_allclose(made, wanted, atol=1e-6)


@pytest.mark.parametrize("precision", [Precision.BFLOAT16, Precision.INT8])
def test_torch_converts_as_it_loads(
    bundles: Path, trust: TrustStore, key: SigningKey, precision: Precision
) -> None:
    path = with_torch(bundles / "tiny" / "1", key, precision)
    float32, made = opened(path, trust), opened(path, trust, precision=precision)
    assert (made.runtime, made.precision) == (TORCH, precision)
    for wanted, given in zip(answers(float32, items=2), answers(made, items=2), strict=True):
        assert not np.array_equal(wanted, given)
        np.testing.assert_allclose(given, wanted, atol=0.05)


def test_such_a_variant_adds_no_blob(bundles: Path, trust: TrustStore, key: SigningKey) -> None:
    path = bundles / "tiny" / "1"
    before = open_bundle(path, trust=trust).manifest.blobs()
    with_torch(path, key, Precision.BFLOAT16)
    manifest = open_bundle(path, trust=trust).manifest
    assert manifest.blobs() == before
    assert manifest.large.precisions == (Precision.FLOAT32, Precision.BFLOAT16)


def test_an_int8_answer_does_not_depend_on_the_batch(
    bundles: Path, trust: TrustStore, key: SigningKey
) -> None:
    path = with_torch(bundles / "tiny" / "1", key, Precision.INT8)
    model = opened(path, trust, precision=Precision.INT8)
    for together, alone in zip(answers(model, items=3), answers(model, items=1), strict=True):
        np.testing.assert_array_equal(together[:1], alone)


def test_a_variant_is_served_by_what_it_was_measured_with(
    bundles: Path, trust: TrustStore, key: SigningKey
) -> None:
    with_torch(bundles / "tiny" / "1", key, Precision.BFLOAT16)
    with pytest.raises(ConfigError, match="bfloat16 was made for and measured with torch; serve"):
        open_shelf(
            BundleShelf(
                root=bundles,
                trust=trust,
                max_batch=1,
                precision=Precision.BFLOAT16,
                runtime=Runtime.ONNXRUNTIME,
            )
        )


def test_further_inputs_and_outputs_go_through_torch(tmp_path: Path, key: SigningKey) -> None:
    tiny = SidedModel()
    path = write_bundle(tmp_path, key=key, model=tiny)
    trust = TrustStore(frozenset({key.public_hex}))
    tail = opened(path, trust, runtime=TORCH).stages[1]
    tensor = tiny.head(random_pixels(1))
    sides = {"patient": np.array([[0.3, -1.0]], np.float32), "site": np.array([-1], np.int64)}
    made = tail.run(tensor[None], sides)
    np.testing.assert_allclose(made.probabilities, tiny.answer(tensor, sides), atol=1e-5)
    np.testing.assert_allclose(made.outputs["embedding"], tiny.embedding(tensor), atol=1e-5)


def test_answers_that_are_not_finite_are_a_fault(tmp_path: Path, key: SigningKey) -> None:
    path = write_bundle(tmp_path, key=key, model=TinyModel(poisoned=True))
    whole = opened(path, TrustStore(frozenset({key.public_hex})), runtime=TORCH).whole
    with pytest.raises(ModelFault, match="not finite"):
        whole.run(np.full((1, 16, 16, 3), 255, np.uint8), {})


def test_what_torch_raises_is_the_models_fault(bundles: Path, trust: TrustStore) -> None:
    whole = opened(bundles / "tiny" / "1", trust, runtime=TORCH).whole
    with pytest.raises(ModelFault, match="tiny"):
        whole.run(np.zeros((1, 16, 16, 2), np.uint8), {})


def test_an_operator_that_torch_lacks_is_named() -> None:
    node = helper.make_node("LRN", ["x"], ["y"], size=3)
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 4]) for n in "xy"]
    graph = helper.make_model(helper.make_graph([node], "g", values[:1], values[1:]))
    with pytest.raises(BundleError, match=r"no operator LRN \('y'\); .*--runtime onnxruntime"):
        TorchBackend(graph.SerializeToString(), weights=TorchWeights({}))


def test_tails_share_one_dictionary_of_weights() -> None:
    parts = externalize(TinyModel().graphs())
    weights = Weights.from_bytes(parts.weights, table=parts.table)
    for precision, share in ((Precision.FLOAT32, 1.0), (Precision.BFLOAT16, 0.5)):
        shared = torch_weights(weights, precision=precision, on_cpu=True)
        batches = {"whole": random_pixels(0)[None], "tail": np.zeros((1, 4, 4, 8), np.int8)}
        for name in ("whole", "tail", "whole"):
            backend = TorchBackend(parts.graphs[name], weights=shared)
            backend.run(batches[name], {})
        assert shared.bytes == share * sum(array.nbytes for array in weights.arrays.values())


def test_float32_weights_are_not_copied() -> None:
    parts = externalize(TinyModel().graphs())
    weights = Weights.from_bytes(parts.weights, table=parts.table)
    shared = torch_weights(weights, precision=Precision.FLOAT32, on_cpu=True)
    assert shared.tensor("matrix").data_ptr() == weights.arrays["matrix"].ctypes.data


def test_an_array_of_bytes_that_came_is_not_copied() -> None:
    array = np.frombuffer(bytes(range(12)), np.uint8).reshape(3, 4)
    assert not array.flags.writeable
    tensor = borrowed(array)
    assert tensor.data_ptr() == array.ctypes.data
    np.testing.assert_array_equal(tensor.numpy(), array)


def test_an_int8_matrix_is_as_near_as_its_codes_allow() -> None:
    matrix = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 7)).astype(np.float32))
    made = Int8Matrix.of(matrix)
    assert made.codes.dtype is torch.int8
    off = (made.codes * made.scales - matrix).abs()
    assert bool((off <= made.scales * 0.5001).all())


def test_every_instance_has_the_threads_it_was_given() -> None:
    parts = externalize(TinyModel().graphs())
    weights = Weights.from_bytes(parts.weights, table=parts.table)
    shared = torch_weights(weights, precision=Precision.FLOAT32, on_cpu=True)
    backend = TorchBackend(parts.graphs["tail"], weights=shared, threads=1)
    before, seen = torch.get_num_threads(), []

    def instance() -> None:
        backend.run(np.zeros((1, 4, 4, 8), np.int8), {})
        seen.append(torch.get_num_threads())

    try:
        thread = threading.Thread(target=instance)
        thread.start()
        thread.join()
        assert seen == [1]
    finally:
        torch.set_num_threads(before)


async def test_a_cloud_serves_by_torch(config: CloudConfig, model: TinyModel) -> None:
    async with run_cloud(replace(config, runtime=TORCH)) as cloud:
        metadata = await cloud.stub.ModelMetadata(pb.ModelMetadataRequest(name="tiny"))
        assert metadata.platform == "pytorch_libtorch"
        pixels = random_pixels(3)
        request = pb.ModelInferRequest(model_name="tiny")
        request.inputs.add(name=oip.PIXELS, datatype="UINT8", shape=[1, *pixels.shape])
        request.raw_input_contents.append(pixels.tobytes())
        response = await cloud.stub.ModelInfer(request)
        given = np.frombuffer(response.raw_output_contents[0], np.float32)
        whole = ServedModel.of(
            open_bundle(config.bundles / "tiny" / "1", trust=config.trust), max_batch=1
        ).whole
        whole.load()
        np.testing.assert_allclose(given, whole.run(pixels[None], {}).probabilities[0], atol=1e-6)


def test_a_cloud_of_onnx_runtime_imports_no_torch() -> None:
    code = "import sys, hybridge.cloud.server; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[4]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, check=False)
    assert run.returncode == 0


def test_without_torch_it_is_said_what_to_install(
    bundles: Path, trust: TrustStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "hybridge.cloud.torch_graph.backend", None)
    with pytest.raises(ConfigError, match=r"hybridge\[cloud,torch\]"):
        open_shelf(BundleShelf(root=bundles, trust=trust, max_batch=1, runtime=TORCH))


def test_an_old_variant_is_onnx_runtimes() -> None:
    blob = {"sha256": "0" * 64, "bytes": 1}
    old = {"whole": blob, "weights": blob, "weights_index": blob, "tails": {}}
    assert msgspec.convert(old, Variant).runtime is Runtime.ONNXRUNTIME


def test_a_graph_for_one_item_takes_several_one_by_one() -> None:
    graphs = TinyModel().graphs()
    parts = externalize(graphs)
    graphs["tail"].graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    single = externalize(graphs).graphs["tail"]
    weights = Weights.from_bytes(parts.weights, table=parts.table)
    shared = torch_weights(weights, precision=Precision.FLOAT32, on_cpu=True)
    batch = np.random.default_rng(0).integers(-128, 128, (3, 4, 4, 8), np.int8)
    wanted, made = (
        TorchBackend(graph, weights=shared).run(batch, {}).answer
        for graph in (parts.graphs["tail"], single)
    )
    np.testing.assert_allclose(made, wanted, atol=1e-6)
