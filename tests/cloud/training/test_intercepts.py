import numpy as np
import pytest

from hybridge.cloud.training.intercepts import key_of, shrunk


@pytest.mark.parametrize("writeable", [True, False])
def test_each_pixel_is_the_mean_of_those_that_lie_in_it(writeable: bool) -> None:
    fine = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    fine.flags.writeable = writeable
    means = fine.reshape(2, 2, 2, 2, 3).mean((1, 3))
    assert np.array_equal(shrunk(fine, 2), means.round().astype(np.uint8))
    assert shrunk(fine, 4) is fine


def test_a_key_follows_what_it_is_made_of() -> None:
    assert key_of([1, {"a": 2, "b": 3}]) == key_of([1, {"b": 3, "a": 2}])
    assert key_of([1, 2]) != key_of([2, 1])
