from itertools import accumulate

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hybridge.cloud.torch_graph.placement import place
from hybridge.shared.errors import BundleError

MIB = 1 << 20
SIZES = st.lists(st.integers(1, 64), min_size=1, max_size=40).map(
    lambda sizes: {f"w{at}": size * MIB // 4 for at, size in enumerate(sizes)}
)


@given(SIZES, st.integers(0, 700), st.sampled_from([1.0, 3.0]))
def test_what_stays_and_the_buffers_fit(
    sizes: dict[str, int], budget: int, in_flight: float
) -> None:
    budget_bytes = budget * MIB
    try:
        placement = place(sizes, budget_bytes=budget_bytes, in_flight=in_flight)
    except BundleError:
        small = sum(size for size in sizes.values() if size < MIB)
        assert small + max(sizes.values()) * in_flight > budget_bytes
        return
    resident = sum(size for name, size in sizes.items() if name not in placement.read)
    largest = max((sizes[name] for name in placement.read), default=0)
    buffers = int(largest * in_flight) * placement.buffers
    assert resident + buffers <= budget_bytes
    if sum(sizes.values()) <= budget_bytes:
        assert not placement.read
    else:
        assert placement.read
        assert placement.buffers in (1, 2)
        assert min(sizes[name] for name in placement.read) >= MIB


@given(SIZES, st.integers(1, 700))
def test_no_more_is_read_than_must_be(sizes: dict[str, int], budget: int) -> None:
    try:
        placement = place(sizes, budget_bytes=budget * MIB)
    except BundleError:
        return
    assume(placement.read)
    resident = sum(size for name, size in sizes.items() if name not in placement.read)
    spare = budget * MIB - resident - placement.buffers * max(sizes.values())
    assert all(sizes[name] > spare for name in placement.read)


def test_every_part_of_a_run_keeps_the_same_share() -> None:
    sizes = {f"w{at}": 4 * MIB for at in range(100)}
    read = place(sizes, budget_bytes=(8 + 200) * MIB).read
    kept = list(accumulate(int(f"w{at}" not in read) for at in range(100)))
    assert kept[-1] == 50
    assert all(abs(kept[at] - (at + 1) / 2) <= 1 for at in range(100))


def test_less_than_one_layer_is_refused_with_what_it_takes() -> None:
    with pytest.raises(BundleError, match=r"largest layer takes 64 MiB.*--memory-limit"):
        place({"w0": 64 * MIB, "w1": 2 * MIB}, budget_bytes=63 * MIB)


def test_one_buffer_where_two_leave_no_room() -> None:
    placement = place({"w0": 8 * MIB, "w1": 8 * MIB}, budget_bytes=15 * MIB)
    assert placement.buffers == 1
    assert placement.read == {"w0", "w1"}
