import copy

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from hybridge.cloud.compiler.checking import signal_to_noise_db
from hybridge.cloud.compiler.litert import Floats, Runner
from hybridge.cloud.compiler.quantization.exclusions import (
    OperatorTime,
    fragile_operators,
    kinds_of,
    slow_operators,
    time_operators,
    wasted_ms,
)
from hybridge.cloud.compiler.quantization.operators import kind_of
from hybridge.cloud.compiler.quantization.ranges import Activations, Ranges, observe
from hybridge.cloud.compiler.quantization.tflite import static_int8
from hybridge.cloud.compiler.tflite_graph import load, save

from ..conftest import Converted


def times(kind: str, *pairs: tuple[float, float]) -> list[OperatorTime]:
    return [OperatorTime(kind, f"{kind}{at}", *pair) for at, pair in enumerate(pairs)]


def test_a_kind_that_loses_goes_as_a_whole() -> None:
    fast = times("CONV_2D", (1, 3), (1, 3))
    slow = times("HARD_SWISH", (2, 0.5), (0.4, 0.5))
    assert slow_operators([*fast, *slow]) == {"HARD_SWISH0", "HARD_SWISH1"}


def test_what_is_near_the_margin_stays() -> None:
    assert slow_operators(times("ADD", (1.03, 1.0), (1.03, 1.0))) == frozenset()


def test_what_loses_a_tenth_goes() -> None:
    assert slow_operators(times("MUL", (1.12, 1.0), (1.12, 1.0))) == {"MUL0", "MUL1"}


def test_what_is_no_part_of_the_time_stays() -> None:
    assert slow_operators([*times("CONV_2D", (10, 30)), *times("MEAN", (0.02, 0.01))]) == set()


def test_a_single_operator_goes_if_it_loses_by_far() -> None:
    assert slow_operators(times("CONV_2D", (1, 5), (1, 5), (1, 0.3))) == {"CONV_2D2"}
    assert slow_operators(times("CONV_2D", (1, 5), (1, 5), (0.3, 0.25))) == frozenset()


def test_what_int8_loses_where_it_loses() -> None:
    assert wasted_ms([*times("CONV_2D", (1, 5), (2, 1.5)), *times("MUL", (3, 1))]) == 2.5


def convolutions(model: bytes) -> list[str]:
    tree = load(model)
    (graph,) = tree.subgraphs
    return [
        graph.tensors[operator.outputs[0]].name.decode()
        for operator in graph.operators
        if kind_of(tree, operator) == "CONV_2D"
    ]


def with_hard_swishes(model: bytes, count: int) -> bytes:
    """The model with hard swishes behind its first convolution, one after the other."""
    tree = load(model)
    (graph,) = tree.subgraphs
    at = next(i for i, each in enumerate(graph.operators) if kind_of(tree, each) == "CONV_2D")
    source = int(graph.operators[at].outputs[0])
    last = len(graph.tensors) + count - 1
    for operator in graph.operators:
        operator.inputs = [last if i == source else i for i in operator.inputs]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.HARD_SWISH
    tree.operatorCodes.append(code)
    for number in range(count):
        swish, made = schema.OperatorT(), copy.copy(graph.tensors[source])
        made.name = f"swish{number}".encode()
        graph.tensors.append(made)
        swish.opcodeIndex = len(tree.operatorCodes) - 1
        swish.inputs = [source if number == 0 else len(graph.tensors) - 2]
        swish.outputs = [len(graph.tensors) - 1]
        graph.operators.insert(at + 1 + number, swish)
    return save(tree)


def test_hard_swish_is_found_by_its_time(converted: Converted) -> None:
    """The known trap: nobody has int8 kernels for it. Its factor is 5 on this small net and 70 on a
    MobileNetV3, where 1.06 decides."""
    float32 = with_hard_swishes(converted.float32, 20)
    seen = observe(float32, converted.tensors)
    measured = time_operators(float32, static_int8(float32, seen, ranges=Ranges.MIN_MAX))
    slow = slow_operators(measured)
    assert {f"swish{number}" for number in range(20)} <= slow
    left = static_int8(float32, seen, ranges=Ranges.MIN_MAX, keep_float=slow)
    assert not {each.name for each in time_operators(float32, left)} & slow


def test_kinds_say_how_many(converted: Converted) -> None:
    convolution = convolutions(converted.float32)[0]
    assert kinds_of(converted.float32, frozenset({convolution})) == ("CONV_2D (1 of 3)",)
    assert kinds_of(converted.float32, frozenset()) == ()


def answers(model: bytes, converted: Converted) -> Floats:
    runner = Runner(model)
    return np.concatenate([runner.run(tensor) for tensor in converted.tensors])


def with_one_bad_range(converted: Converted, name: str) -> Activations:
    """Ranges in which one tensor keeps next to nothing of its values."""
    seen = observe(converted.float32, converted.tensors)
    bad = seen.histograms[name]
    seen.histograms[name] = type(bad)(bad.low * 300, bad.high * 300, bad.counts)
    return seen


def test_the_operator_that_spoils_the_answers_is_found(converted: Converted) -> None:
    name = convolutions(converted.float32)[0]
    seen = with_one_bad_range(converted, name)
    wanted = answers(converted.float32, converted)
    kept = fragile_operators(
        converted.float32,
        quantized=lambda kept: static_int8(
            converted.float32, seen, ranges=Ranges.MIN_MAX, keep_float=kept
        ),
        quality_db=lambda made: signal_to_noise_db(answers(made, converted), wanted),
        tensors=converted.tensors[:2],
        kept=frozenset(),
        most=1,
    )
    assert name in kept
    assert len(kept) < 4


@pytest.mark.parametrize("gain_db", [2.9, 3.1])
def test_only_a_clear_gain_leaves_an_operator_in_float(
    converted: Converted, gain_db: float
) -> None:
    seen = observe(converted.float32, converted.tensors)
    plain = static_int8(converted.float32, seen, ranges=Ranges.MIN_MAX)
    kept = fragile_operators(
        converted.float32,
        quantized=lambda kept: static_int8(
            converted.float32, seen, ranges=Ranges.MIN_MAX, keep_float=kept
        ),
        quality_db=lambda made: 10.0 if made == plain else 10.0 + gain_db,
        tensors=converted.tensors[:2],
        kept=frozenset(),
    )
    assert bool(kept) == (gain_db > 3)
