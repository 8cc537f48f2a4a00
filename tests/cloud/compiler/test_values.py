"""Equal tensors are found by their values, whatever their layout."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hybridge.cloud.compiler.litert import relative_error
from hybridge.cloud.compiler.values import Fingerprint, match_values

ERROR = 1e-3


@given(st.integers(0, 2**32 - 1), st.floats(0, 3e-3))
def test_a_fingerprint_never_parts_what_is_equal(seed: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    wanted = (rng.standard_normal((1, 2, 3, 4)) * rng.exponential()).astype(np.float32)
    made = wanted + np.float32(noise * np.abs(wanted).max()) * rng.choice([-1, 1], wanted.shape)
    made = made.astype(np.float32)
    if relative_error(made, wanted) <= ERROR:
        turned = np.ascontiguousarray(made.transpose(0, 2, 3, 1))
        assert Fingerprint.of(turned).may_be(Fingerprint.of(wanted), error=ERROR)


def test_a_fingerprint_parts_what_is_far_apart() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.standard_normal(64), rng.standard_normal(64)
    assert not Fingerprint.of(one).may_be(Fingerprint.of(two), error=ERROR)


def test_turned_and_reshaped_tensors_match_and_zeros_do_not() -> None:
    rng = np.random.default_rng(0)
    planes = rng.standard_normal((1, 3, 4, 5), np.float32)
    other = rng.standard_normal((1, 3, 4, 5), np.float32)
    made = {7: planes.transpose(0, 2, 3, 1), 8: other.reshape(1, 60), 9: np.zeros((1, 60))}
    wanted = {"planes": planes, "other": other, "zeros": np.zeros((1, 60), np.float32)}
    found = {(m.tensor, m.onnx): m for m in match_values(made, wanted, error=ERROR)}
    assert found.keys() == {(7, "planes"), (8, "other")}
    assert found[7, "planes"].channels_first
    assert not found[7, "planes"].reshaped
    assert found[8, "other"].reshaped
    assert not found[8, "other"].channels_first
