import pytest
import torch

from hybridge.cloud.training.inverter import Inverter, Shape

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    "shapes",
    [
        [(17, 17, 8)],
        [(40, 40, 3)],  # finer than the picture
        [(24,)],
        [(17, 8)],  # a transformer's tokens: 4 x 4 and one of their own
        [(7, 5, 3)],
        [(9, 9, 4), (5, 5, 2), (6,)],  # several tensors at once
    ],
    ids=str,
)
def test_whatever_crosses_becomes_a_picture(shapes: list[Shape]) -> None:
    net = Inverter(shapes, size_px=32, width=8)
    values = torch.randn(4, net.mean.numel())
    net.observe(values)
    pictures = net(values)
    assert pictures.shape == (4, 3, 32, 32)
    assert 0 <= pictures.min() < pictures.max() <= 1


def test_values_count_by_their_channels_spread() -> None:
    net = Inverter([(2, 2, 3)], size_px=16, width=8)
    channels = torch.tensor([1.0, 10.0, 100.0])
    values = 5 + channels * torch.randn(500, 4, 3)
    net.observe(values.reshape(500, 12))
    assert torch.allclose(net.deviation.reshape(4, 3), channels, rtol=0.1)
    assert torch.allclose((net.mean - 5).abs().reshape(4, 3), torch.zeros(4, 3), atol=10.0)


def test_a_channel_that_never_changes_does_no_harm() -> None:
    net = Inverter([(2, 2, 3)], size_px=16, width=8)
    values = torch.full((8, 12), -128.0)
    net.observe(values)
    assert torch.isfinite(net(values)).all()
