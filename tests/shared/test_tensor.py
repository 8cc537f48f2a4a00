import struct

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hybridge.shared.errors import TensorError
from hybridge.shared.tensor import (
    DTYPES,
    bytes_from_raw,
    bytes_to_raw,
    datatype_of,
    from_raw,
    to_raw,
)

arrays = st.sampled_from([*DTYPES.values()]).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=5, min_side=0))
)


@given(arrays)
def test_arrays_come_back(array: npt.NDArray[np.generic]) -> None:
    raw = to_raw(array)
    back = from_raw(raw, datatype=datatype_of(array), shape=array.shape)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert to_raw(back) == raw
    assert not back.flags.writeable


@pytest.mark.parametrize("name", DTYPES)
def test_names_and_byte_order(name: str) -> None:
    big = np.array([[0, 1], [1, 0]], DTYPES[name].newbyteorder(">"))
    assert datatype_of(big) == name
    assert to_raw(big.T[::-1]) == np.array([[1, 0], [0, 1]], DTYPES[name]).tobytes()


@pytest.mark.parametrize("dtype", ["U3", "O", "c8", "M8[s]"])
def test_dtypes_without_a_name(dtype: str) -> None:
    with pytest.raises(TensorError, match="no Open Inference Protocol name"):
        datatype_of(np.zeros(1, dtype))


@pytest.mark.parametrize(
    ("size", "datatype", "shape"),
    [
        (8, "FP32", [1]),
        (5, "FP32", [1]),
        (3, "FP32", [1]),
        (0, "UINT8", [1]),
        (1, "UINT8", [0]),
        (4, "UINT8", [-2, -2]),
        (4, "UINT8", [2**40, 2**40]),
        (4, "BYTES", [1]),
        (4, "uint8", [4]),
        (1, "UINT8", [1] * 65),
        (0, "UINT8", [0, 2**62, 2**62]),
        (0, "UINT8", [0, 2**70]),
    ],
)
def test_bytes_and_shape_that_disagree(size: int, datatype: str, shape: list[int]) -> None:
    with pytest.raises(TensorError):
        from_raw(bytes(size), datatype=datatype, shape=shape)


@pytest.mark.parametrize("size", [0, 7, 9, 16])
def test_how_many_bytes_it_takes(size: int) -> None:
    with pytest.raises(TensorError, match=rf"FP32 \[2, 1\] takes 8 bytes, {size} were sent"):
        from_raw(bytes(size), datatype="FP32", shape=[2, 1])


@given(st.lists(st.binary(max_size=50), max_size=8))
def test_elements_come_back(elements: list[bytes]) -> None:
    raw = bytes_to_raw(elements)
    assert bytes_from_raw(raw, count=len(elements)) == elements
    for wrong in {len(elements) + 1, max(len(elements) - 1, 0)} - {len(elements)}:
        with pytest.raises(TensorError):
            bytes_from_raw(raw, count=wrong)


@given(st.lists(st.binary(max_size=9), min_size=1, max_size=4), st.data())
def test_elements_cut_off(elements: list[bytes], data: st.DataObject) -> None:
    raw = bytes_to_raw(elements)
    keep = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(TensorError):
        bytes_from_raw(raw[:keep], count=len(elements))


def test_an_element_that_claims_four_gigabytes() -> None:
    with pytest.raises(TensorError, match="cut off"):
        bytes_from_raw(struct.pack("<I", 2**32 - 1) + b"abc", count=1)
