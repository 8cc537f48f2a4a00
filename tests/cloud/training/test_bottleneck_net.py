"""Encoder, decoder, rounding, and the ONNX that is written of them."""

import numpy as np
import onnxruntime
import pytest
import torch

from hybridge.cloud.compiler.bottleneck import PICTURES
from hybridge.cloud.training.bottleneck_net import (
    Bottleneck,
    Decoder,
    Encoder,
    Features,
    drawn_offset,
    on_grid,
)
from hybridge.cloud.training.bottleneck_onnx import as_onnx

FEATURES = Features(channels=10, side=4, halvings=2, scale=2.5, relu=True)


def make_net(features: Features = FEATURES) -> Bottleneck:
    torch.manual_seed(1)
    encoder = Encoder(halvings=features.halvings, width=4, channels=3)
    return Bottleneck(encoder, Decoder(features, channels=3, width=8, blocks=2), channels=3)


def test_rounding_is_to_whole_steps_and_lets_gradients_pass() -> None:
    latents = torch.linspace(-2, 2, 24).reshape(2, 3, 2, 2).requires_grad_(True)
    rounded = on_grid(latents)
    assert torch.equal(rounded.detach(), latents.detach().round())
    (slope,) = torch.autograd.grad(rounded.sum(), latents)
    assert torch.equal(slope, torch.ones_like(slope))


def test_an_offset_moves_the_steps_and_nothing_else() -> None:
    torch.manual_seed(0)
    latents = torch.randn(4, 3, 5, 5)
    offset = drawn_offset(latents)
    moved = on_grid(latents, offset=offset)
    assert (moved - latents).abs().max() <= 0.5 + 1e-6
    steps = moved + offset
    assert torch.allclose(steps, steps.round(), atol=1e-5)


def test_bytes_become_dearer_while_too_many_are_sent() -> None:
    net = make_net()
    before = float(net.price)
    net.follow(300.0, wanted=100.0)
    dearer = float(net.price)
    net.follow(50.0, wanted=100.0)
    assert before < dearer
    assert float(net.price) < dearer


@pytest.mark.parametrize("relu", [True, False])
def test_what_is_written_computes_the_same(relu: bool) -> None:
    features = Features(channels=10, side=4, halvings=2, scale=2.5, relu=relu)
    net = make_net(features)
    pictures = torch.randn(6, 3, 16, 16)
    net.decoder(net.encoder(pictures))  # so that norms have statistics
    net.eval()
    session = onnxruntime.InferenceSession(
        as_onnx(net, features, size_px=16).SerializeToString(),
        providers=["CPUExecutionProvider"],
    )
    (made,) = session.run(None, {PICTURES: pictures.numpy()})
    with torch.inference_mode():
        wanted = net.decoder(net.encoder(pictures)).numpy()
    assert made.shape == (6, 10, 4, 4)
    np.testing.assert_allclose(made, wanted, atol=1e-4)
