import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.shared import oip
from hybridge.shared.came import Came


@given(st.data())
def test_it_survives_its_parameters(data: st.DataObject) -> None:
    in_all, frame = data.draw(st.integers(1, 32)), data.draw(st.integers(0, 10**9))
    came = Came(data.draw(st.integers(1, in_all)), in_all, data.draw(st.integers(0, frame)), frame)
    assert Came.of(came.parameters()) == came
    assert came.whole == (came.layers == in_all)


def test_an_answer_of_another_plan_tells_nothing() -> None:
    assert Came.of({}) is None


@pytest.mark.parametrize(("layers", "in_all", "came", "frame"), [
    (0, 5, 1, 2), (6, 5, 1, 2), (1, 5, 3, 2), (1, 5, -1, 2),
])  # fmt: skip
def test_what_cannot_be(layers: int, in_all: int, came: int, frame: int) -> None:
    parameters: dict[str, oip.Value] = {
        oip.LAYERS: layers, oip.LAYERS_IN_ALL: in_all,
        oip.CAME_BYTES: came, oip.FRAME_BYTES: frame,
    }  # fmt: skip
    assert Came.of(parameters) is None
