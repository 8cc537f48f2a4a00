import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.shared import oip
from hybridge.shared.errors import TensorError
from hybridge.shared.side import as_declared, from_text, item_bytes, items_of, joined, read_sides
from hybridge.shared.tensor import DTYPES, Array, TensorSpec

PATIENT = TensorSpec("patient", "FP32", (2,))
SITE = TensorSpec("site", "INT64", ())


def test_bytes_of_an_item() -> None:
    assert item_bytes([PATIENT, SITE]) == 2 * 4 + 8
    assert item_bytes([]) == 0


@pytest.mark.parametrize("text", ["63 1", "63,1", " 63,\t1.0 ", "6.3e1 1"])
def test_numbers_as_text(text: str) -> None:
    item = from_text(text, PATIENT)
    assert (item.dtype, item.tolist()) == (np.float32, [63, 1])


def test_a_scalar_as_text() -> None:
    assert from_text("-3", SITE).shape == ()
    assert from_text("1", TensorSpec("smokes", "BOOL", ())) == np.True_


@pytest.mark.parametrize(
    ("text", "spec", "message"),
    [
        ("63", PATIENT, r"patient FP32 \[2\] takes 2 numbers, 1 were given"),
        ("", SITE, r"site INT64 \[\] takes 1 numbers, 0 were given"),
        ("63 old", PATIENT, "'old' is no number"),
        ("63 nan", PATIENT, "NaN or infinity"),
        ("1e39 0", PATIENT, "cannot be written as patient FP32"),
        ("1.5", SITE, "'1.5' is no whole number"),
        ("256", TensorSpec("x", "UINT8", ()), "cannot be written as x UINT8"),
        ("2", TensorSpec("x", "BOOL", ()), "cannot be written as x BOOL"),
    ],
)
def test_text_that_does_not_fit(text: str, spec: TensorSpec, message: str) -> None:
    with pytest.raises(TensorError, match=message):
        from_text(text, spec)


def test_values_in_any_of_their_shapes() -> None:
    matrix = TensorSpec("m", "FP32", (2, 2))
    for values in ([1, 2, 3, 4], [[1, 2], [3, 4]], [[[1, 2], [3, 4]]]):
        assert as_declared(values, matrix).tolist() == [[1, 2], [3, 4]]
    for wrong in ([1, 2, 3], [[1], [2], [3], [4]]):
        with pytest.raises(TensorError, match="does not fit m FP32"):
            as_declared(wrong, matrix)
    with pytest.raises(TensorError, match="are no numbers"):
        as_declared(["a", "b"], PATIENT)


@given(st.sampled_from(sorted(DTYPES)), st.integers(-(2**63), 2**64 - 1))
def test_whole_numbers_come_through_unchanged_or_not_at_all(datatype: str, value: int) -> None:
    spec = TensorSpec("x", datatype, ())
    try:
        item = as_declared(value, spec)
    except TensorError:
        return
    if spec.dtype.kind == "f":
        assert float(item) == pytest.approx(value, rel=1e-3)
    else:
        assert int(item) == value


def sent(name: str, array: Array) -> oip.InputTensor:
    return oip.InputTensor(name, "FP32", array.shape, array.tobytes())


def test_reading_gives_the_order_of_the_model() -> None:
    specs = (TensorSpec("b", "FP32", (1,)), TensorSpec("a", "FP32", (2,)))
    one, two = np.ones((3, 1), np.float32), np.ones((3, 2), np.float32)
    read = read_sides([sent("a", two), sent("b", one)], specs, items=3)
    assert list(read) == ["b", "a"]
    assert read["a"].shape == (3, 2)
    assert read_sides([], (), items=3) == {}


def test_items_join_and_part() -> None:
    parts = [{"x": np.full((count, 2), count)} for count in (1, 2)]
    together = joined(parts)
    assert together["x"].shape == (3, 2)
    np.testing.assert_array_equal(items_of(together, 1, 3)["x"], parts[1]["x"])
    assert joined([{}, {}]) == {}


@pytest.mark.parametrize(
    ("name", "datatype", "shape"),
    [("", "FP32", ()), ("a,b", "FP32", ()), ("a", "BYTES", ()), ("a", "FP32", (0,))],
)
def test_specs_that_make_no_sense(name: str, datatype: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"name|datatype|sizes"):
        TensorSpec(name, datatype, shape)
