import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hybridge.shared.answer import to_probabilities, top_classes
from hybridge.shared.manifest import OutputKind

logits = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.integers(1, 9)),
    elements=st.floats(-1e3, 1e3, width=32),
)


@given(logits)
def test_softmax(values: npt.NDArray[np.float32]) -> None:
    probabilities = to_probabilities(values, OutputKind.LOGITS)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-5)
    exact = np.exp(values.astype(np.float64) - values.max(axis=-1, keepdims=True))
    exact /= exact.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(probabilities, exact, atol=1e-5)


@given(logits)
def test_probabilities_are_left_alone(values: npt.NDArray[np.float32]) -> None:
    np.testing.assert_array_equal(to_probabilities(values, OutputKind.PROBABILITIES), values)


@given(logits, st.floats(0.1, 10))
def test_a_temperature_divides_logits(values: npt.NDArray[np.float32], temperature: float) -> None:
    found = to_probabilities(values, OutputKind.LOGITS, temperature=temperature)
    wanted = to_probabilities(values / np.float32(temperature), OutputKind.LOGITS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@given(logits, st.floats(0.5, 10))
def test_probabilities_take_a_temperature_as_their_logits_would(
    values: npt.NDArray[np.float32], temperature: float
) -> None:
    values = values / 50  # so that no probability is zero
    given_them = to_probabilities(values, OutputKind.LOGITS)
    found = to_probabilities(given_them, OutputKind.PROBABILITIES, temperature=temperature)
    wanted = to_probabilities(values, OutputKind.LOGITS, temperature=temperature)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@given(
    hnp.arrays(np.float32, st.integers(1, 9), elements=st.floats(0, 1, width=32)),
    st.integers(1, 12),
)
def test_the_most_probable_come_first(values: npt.NDArray[np.float32], count: int) -> None:
    top = top_classes(values, count)
    assert len(top) == len(set(top)) == min(count, len(values))
    chosen = values[top]
    assert (np.diff(chosen) <= 0).all()
    assert chosen[0] == values.max()
    assert (np.delete(values, top) <= chosen[-1]).all()


def test_ties_keep_the_order_of_the_classes() -> None:
    assert top_classes(np.array([0.3, 0.4, 0.3, 0.4], np.float32), 3) == [1, 3, 0]
