"""Parcels, and how they cross between two mappings of one memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hybridge.cloud.executors.arena import HEAD, Arena, Note, owned
from hybridge.cloud.executors.parcel import Parcel, pack, unpack
from hybridge.shared.contract import Contract
from hybridge.shared.tensor import Array

VALUES = arrays.arrays(
    st.sampled_from(["u1", "i1", "<f4", "<i8"]), arrays.array_shapes(min_dims=0, min_side=0)
)
CONTRACT = Contract(tensor="x", shape=(2,), dtype="UINT8", model="none")


@pytest.fixture
def ends() -> tuple[Arena, Arena]:
    near = Arena.create()
    return near, Arena(near.file)


def crossed(parcel: Parcel, sender: Arena, taker: Arena, *, start: int = 0) -> tuple[Parcel, int]:
    wire = sender.write(parcel, start=start)
    note = Note.read(wire[: HEAD.size])
    assert note.rest_bytes == len(wire) - HEAD.size
    return taker.read(note, wire[HEAD.size :])


def check_same(found: list[Array], expected: list[Array]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@settings(deadline=None)
@given(values=st.lists(VALUES, max_size=4))
def test_arrays_come_through(values: list[Array]) -> None:
    near = Arena.create()
    parcel, _ = crossed(pack(values), near, Arena(near.file))
    check_same(unpack(parcel), values)


def test_no_bytes_of_an_array_are_in_the_head() -> None:
    parcel = pack(np.zeros(100_000, np.uint8))
    assert len(parcel.head) < 1_000
    assert parcel.bytes == 100_000


def test_arrays_of_other_layouts_come_through() -> None:
    values: list[Array] = [np.arange(12).reshape(3, 4).T, np.arange(12)[::3]]
    check_same(unpack(pack(values)), values)


def test_what_both_know_is_not_sent() -> None:
    parcel = pack(("before", CONTRACT), known=CONTRACT, place=3)
    assert b"none" not in parcel.head
    before, found = unpack(parcel, look_up={3: CONTRACT}.__getitem__)
    assert before == "before"
    assert found is CONTRACT


def test_an_answer_does_not_overwrite_its_order(ends: tuple[Arena, Arena]) -> None:
    near, far = ends
    order, end = crossed(pack(np.full(5_000, 1, np.uint8)), near, far)
    taken = unpack(order)
    answer, _ = crossed(pack([taken, np.full(9_000_000, 2, np.uint8)]), far, near, start=end)
    kept = owned(answer)
    crossed(pack(np.full(9_000_000, 3, np.uint8)), near, far)
    same, large = unpack(kept)
    assert (same == 1).all()
    assert (large == 2).all()


def test_arrays_cannot_be_written_to(ends: tuple[Arena, Arena]) -> None:
    parcel, _ = crossed(pack(np.zeros(10)), *ends)
    assert not unpack(parcel).flags.writeable
