import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybridge.cloud.training.similarity import ssim

pytestmark = pytest.mark.usefixtures("one_thread")

# structural_similarity of scikit-image 0.26.0 in float64, with gaussian_weights, sigma 1.5,
# without use_sample_covariance, data_range 1, on pairs(seed, h, w).
KNOWN = [
    (0, 16, 16, 0.4404464946930456),
    (1, 32, 48, 0.41706640573039583),
    (2, 64, 64, 0.41659905806524167),
]


def pairs(seed: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Waves, and the same with noise: float64 [1, 3, h, w]."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.sin(x / 5)[..., None] * np.cos(y / 7)[..., None]
    one = 0.5 + 0.4 * waves * np.array([1, 0.5, -1])
    other = np.clip(one + random.normal(0, 0.1, one.shape), 0, 1)
    first, second = (torch.from_numpy(each).permute(2, 0, 1)[None] for each in (one, other))
    return first, second


@pytest.mark.parametrize(("seed", "height", "width", "known"), KNOWN)
def test_it_is_what_others_compute(seed: int, height: int, width: int, known: float) -> None:
    one, other = pairs(seed, height, width)
    assert float(ssim(one, other)) == pytest.approx(known, abs=1e-12)
    assert float(ssim(one.float(), other.float())) == pytest.approx(known, abs=1e-5)


@given(st.floats(0, 1), st.floats(0, 1))
def test_of_two_even_greys_by_hand(a: float, b: float) -> None:
    one, other = (torch.full((1, 1, 11, 11), each, dtype=torch.float64) for each in (a, b))
    wanted = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
    assert float(ssim(one, other)) == pytest.approx(wanted, abs=1e-9)


def test_each_pair_by_itself_and_either_way_round() -> None:
    batch = [torch.cat(each) for each in zip(*(pairs(s, 16, 16) for s in (0, 3)), strict=True)]
    apart = [float(ssim(*pairs(seed, 16, 16))) for seed in (0, 3)]
    assert ssim(*batch).tolist() == pytest.approx(apart)
    assert ssim(*reversed(batch)).tolist() == pytest.approx(apart)
    assert ssim(batch[0], batch[0]).tolist() == pytest.approx([1.0, 1.0])


def test_it_can_be_learned_by() -> None:
    one, other = pairs(0, 16, 16)
    with torch.inference_mode():
        ssim(one, other)  # leaves nothing behind that could not be learned by
    rebuilt = other.clone().requires_grad_()
    ssim(one, rebuilt).sum().backward()
    assert rebuilt.grad is not None
    better = other + 0.1 * rebuilt.grad
    assert float(ssim(one, better)) > float(ssim(one, other))


def test_pictures_smaller_than_the_window_are_refused() -> None:
    for shape in ((1, 3, 10, 16), (3, 16, 16)):
        with pytest.raises(ValueError, match="not compared"):
            ssim(torch.zeros(shape), torch.zeros(shape))
