"""What benchmarks/link_estimate.py makes of an estimate, and one quick run."""

import json
import math
from collections.abc import Iterator
from random import Random

import pytest
from link_estimate import losses_of, main
from wan.link_model import DirectionSpec, Link, LinkSpec, Rate


def steady(_: Random) -> Iterator[tuple[float, int]]:
    while True:
        yield 1.0, 10_000


@pytest.mark.parametrize(
    ("up_bps", "delay_ms", "at_most"), [(50e6, 5.0, 0.02), (2e3, 5.0, 0.02), (50e6, 45.0, 0.07)]
)
def test_a_link_that_never_changes_is_soon_foretold(
    up_bps: float, delay_ms: float, at_most: float
) -> None:
    """All is in time on a fast one, nothing on a slow one; 92 ms and the cloud's are near 100."""
    ways = DirectionSpec(Rate(up_bps), delay_ms), DirectionSpec(Rate(50e6), delay_ms)
    losses = losses_of(Link(LinkSpec("steady", *ways), seed=1), steady, seed=1)
    assert len(losses.ours) == len(losses.peer)
    assert len(losses.ours) % 7 == 0
    assert len(losses.ours) > 7 * 50
    assert math.fsum(losses.ours) / len(losses.ours) < at_most
    assert math.fsum(losses.peer) / len(losses.peer) > math.fsum(losses.ours) / len(losses.ours)


def test_a_quick_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "--json", "--seeds", "1"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["samples"]["ours_and_peer_nats"]) == {"wifi", "lte"}
    assert report["figures"]["cells"] == 14
    (target,) = report["targets"]
    ratio = report["figures"]["loss_nats"] / report["figures"]["peer_loss_nats"]
    assert target["value"] == pytest.approx(ratio)
    assert target["holds"] == (ratio <= 1.0)
