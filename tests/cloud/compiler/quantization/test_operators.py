from collections import Counter

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from hybridge.cloud.compiler.litert import Tensor
from hybridge.cloud.compiler.quantization.operators import Twins, runner, twins
from hybridge.cloud.compiler.quantization.tflite import dynamic_int8

from ..conftest import Converted


def run(model: bytes, *, seed: int = 0) -> Tensor:
    """The only output for noise."""
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    noise = np.random.default_rng(seed)
    for entry in interpreter.get_input_details():
        shape, dtype = entry["shape"], entry["dtype"]
        values = (
            noise.integers(-100, 100, shape)
            if dtype == np.int8
            else noise.uniform(-1, 1, size=shape)
        )
        interpreter.set_tensor(entry["index"], values.astype(dtype))
    interpreter.invoke()
    (entry,) = interpreter.get_output_details()
    output: Tensor = interpreter.get_tensor(entry["index"])
    return output


def found(converted: Converted) -> list[Twins]:
    return list(twins(converted.float32, converted.int8))


def test_every_int8_operator_has_its_twin(converted: Converted) -> None:
    kinds = Counter(each.kind for each in found(converted))
    assert kinds["CONV_2D"] == 3
    assert kinds["DEPTHWISE_CONV_2D"] == 1
    assert kinds["ADD"] == 1
    assert not {"QUANTIZE", "DEQUANTIZE"} & kinds.keys()


def test_twins_compute_the_same(converted: Converted) -> None:
    for each in found(converted):
        int8, float32 = (run(model).astype(int) for model in (each.int8, each.float32))
        assert np.abs(int8 - float32).max() <= 2, each.kind
        assert np.ptp(int8) > 5, each.kind


def test_twins_of_a_dynamic_model_take_floats(converted: Converted) -> None:
    made = list(twins(converted.float32, dynamic_int8(converted.float32)))
    assert {each.kind for each in made} >= {"CONV_2D", "FULLY_CONNECTED"}
    for each in made:
        int8, float32 = run(each.int8), run(each.float32)
        assert float32.dtype == np.float32
        assert 0 < np.abs(int8 - float32).max() < 0.05 * np.abs(float32).max(), each.kind


def test_operators_of_one_shape_are_told_from_others(converted: Converted) -> None:
    shapes = Counter(each.shape for each in found(converted))
    assert max(shapes.values()) == 1
    again = Counter(each.shape for each in found(converted))
    assert shapes == again


def test_a_runner_computes(converted: Converted) -> None:
    each = found(converted)[0]
    runner(each.int8)()
