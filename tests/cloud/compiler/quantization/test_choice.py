import pytest

from hybridge.cloud.compiler.litert import Runner, relative_error
from hybridge.cloud.compiler.quantization.choice import choose_int8
from hybridge.cloud.compiler.quantization.ranges import Ranges
from hybridge.shared.errors import BuildError
from hybridge.shared.manifest import Precision

from ..conftest import Converted
from ..watching import Watch


def test_the_chosen_model_answers_as_the_float_one(converted: Converted) -> None:
    watch = Watch()
    chosen = choose_int8(converted.float32, converted.tensors, part="light", progress=watch)
    assert watch.finished["looking at activations, twice"] == 2 * 6
    assert watch.finished["trying ways to find ranges"] == len(Ranges)
    assert watch.finished["timing operators"] > 3
    int8, float32 = Runner(chosen.model), Runner(converted.float32)
    for tensor in converted.tensors:
        assert relative_error(int8.run(tensor), float32.run(tensor)) < 0.05
    (record,) = [each for each in chosen.tried if each.chosen]
    assert record.bytes == len(chosen.model) < len(converted.float32)
    assert {each.method for each in chosen.tried} >= {
        "dynamic",
        *(f"static/{ranges}" for ranges in Ranges),
    }
    assert {each.part for each in chosen.tried} == {"light"}
    assert chosen.times.keys() == {Precision.FLOAT32, Precision.INT8}
    assert all(time.cpu_ms > 0 for time in chosen.times.values())


def test_no_tensors_is_a_build_error(converted: Converted) -> None:
    with pytest.raises(BuildError, match="needs calibration tensors"):
        choose_int8(converted.float32, [], part="light")
