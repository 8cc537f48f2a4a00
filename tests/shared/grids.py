"""Grids for tests, and tensors of the kind that they are for."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from hybridge.shared.codec.grids import SILENT, Grids
from hybridge.shared.codec.rans import frequencies_of
from hybridge.shared.contract import Contract


def smooth_tensors(
    count: int, shape: tuple[int, ...], *, seed: int = 0, widest: float = 40.0
) -> npt.NDArray[np.int8]:
    """Channels of different spreads; every value is the mean of nine, as after a convolution."""
    random = np.random.default_rng(seed)
    spread = np.geomspace(1.0, widest, shape[-1])
    noise = random.normal(size=(count, shape[0] + 2, shape[1] + 2, shape[2])) * spread
    down = noise[:, :-2] + noise[:, 1:-1] + noise[:, 2:]
    mean = (down[:, :, :-2] + down[:, :, 1:-1] + down[:, :, 2:]) / 3
    return np.clip(np.rint(mean), -128, 127).astype(np.int8)


def contract_of(shape: tuple[int, ...], rates: Mapping[int, Grids]) -> Contract:
    """An int8 tensor's, with grids for rates in tenths of a bit."""
    return Contract(
        tensor="cut",
        shape=shape,
        dtype="INT8",
        model="ab",
        scale=0.1,
        zero_point=0,
        codecs={f"rans-{tenths}": {"grids": grids.text()} for tenths, grids in rates.items()},
    )


@st.composite
def any_grids(draw: st.DrawFn, channels: int) -> Grids:
    """Every field anywhere within its bounds."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    bins, groups = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    top = random.integers(1, draw(st.integers(2, 32)), groups)
    group = random.integers(0, groups, channels).astype(np.uint8)
    group[random.random(channels) < draw(st.sampled_from([0.0, 0.3, 1.0]))] = SILENT
    edges = np.sort(
        [random.choice(np.arange(-300, 300), bins - 1, replace=False) for _ in range(groups)], 1
    )
    reach = int(top.max())
    frequencies = np.zeros((groups * (1 + 2 * bins), 2 * reach + 1), np.uint8)
    owner = np.concatenate([np.arange(groups), *(np.repeat(np.arange(groups), bins),) * 2])
    for row, own in zip(frequencies, top[owner], strict=True):
        chances = random.dirichlet(np.full(2 * own + 1, 0.3), size=1)
        row[reach - own : reach + own + 1] = frequencies_of(chances)[0]
    return Grids(
        top=top.astype(np.uint8),
        centre=random.integers(-128, 128, channels).astype(np.int8),
        step=np.exp(random.uniform(np.log(16), np.log(65535), channels)).astype(np.uint16),
        group=group,
        edges=edges.reshape(groups, bins - 1).astype(np.int16),
        frequencies=frequencies,
    )


def nearest_point(grids: Grids, tensor: npt.NDArray[np.int8]) -> npt.NDArray[np.int64]:
    """What a tensor must come back as, worked out value by value from the definition."""
    made = np.empty(tensor.shape, np.int64)
    for at, value in np.ndenumerate(tensor):
        channel = at[-1]
        centre, step = int(grids.centre[channel]), int(grids.step[channel])
        away = 16 * (int(value) - centre)
        symbol = min((2 * abs(away) + step) // (2 * step), 127)
        if grids.group[channel] == SILENT:
            symbol = 0
        point = (symbol * step + 8) // 16
        made[at] = max(-128, min(127, centre + (point if away > 0 else -point)))
    return made
