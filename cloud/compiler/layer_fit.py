"""Coarse grids and what refines them (shared/codec/layers.py), from calibration pictures."""

import numpy as np
import numpy.typing as npt

from ...shared.codec.channels import ChannelCoder
from ...shared.codec.grids import Grids
from ...shared.codec.rans import frequencies_of
from ...shared.codec.thirds import (
    LAYERS,
    SIZES,
    SUMS,
    Thirds,
    fine_code_of,
    surroundings,
    third_of,
)
from .grid_fit import fit_grids, grids_of_steps

_PRIOR = 12.0
"""Thirds' worth of all tables together that every table begins with."""
_MOST_STEP = 65535

I8 = npt.NDArray[np.int8]
F64 = npt.NDArray[np.float64]


def fit_layers(tensors: I8, *, sensitivity: F64, bits: float) -> tuple[Grids, Thirds]:
    """For int8 [n, ..., C]: all layers together are as fine as `fit_grids` with these bits.

    Channels are refined in the order of what that spares the answer for a bit: the weighted squared
    error of the coarse grid less that of the fine one, over the entropy of the thirds.
    """
    fine = fit_grids(tensors, sensitivity=sensitivity, bits=bits)
    steps = np.minimum(fine.step.astype(np.int64) * 3, _MOST_STEP).astype(np.uint16)
    grids = grids_of_steps(tensors, centre=fine.centre, step=steps)
    coder = ChannelCoder(grids, tensors.shape[1:])
    thirds_of, code_of = third_of(grids), fine_code_of(grids)
    channels = tensors.shape[-1]
    row = np.arange(channels, dtype=np.int32)
    counts = np.zeros(((grids.groups + 1) * SIZES * SUMS, 3))
    entropy_counts = np.zeros((channels, 3))
    gained = np.zeros(channels)
    for tensor in tensors:
        symbols = coder.joined(*coder.split(tensor))
        tables, side = surroundings(symbols, grids)
        own = tensor.reshape(symbols.shape)
        thirds = thirds_of.ravel().take(own.view(np.uint8) + (row << 8))
        keys = tables * 3 + (thirds * side + 1)
        counts += np.bincount(keys.ravel(), minlength=counts.size).reshape(counts.shape)
        keys = row * 3 + thirds + 1
        entropy_counts += np.bincount(keys.ravel(), minlength=3 * channels).reshape(-1, 3)
        coarse = symbols.astype(np.int32) * 3 + 512 + (row << 10)
        for sign, at in ((1, coarse), (-1, coarse + thirds)):
            off = code_of.ravel().take(at).astype(np.float64) - own
            gained += sign * (off * off).sum((0, 1))
    shares = entropy_counts / entropy_counts.sum(axis=1, keepdims=True)
    entropy = -(shares * np.log2(np.maximum(shares, 1e-12))).sum(axis=1)
    whole = counts.sum(axis=0) / max(counts.sum(), 1)
    layer = _layers(gained * sensitivity, entropy)
    return grids, Thirds(layer=layer, frequencies=frequencies_of(counts + _PRIOR * whole))


def _layers(gained: F64, entropy: F64) -> npt.NDArray[np.uint8]:
    """Parts of about equal size, what gains most for a bit first; 0 for what has no thirds."""
    layer = np.zeros(gained.size, np.uint8)
    refined = np.flatnonzero(entropy > 0)
    order = refined[np.argsort(-gained[refined] / entropy[refined], kind="stable")]
    before = np.cumsum(entropy[order]) - entropy[order]
    part = before / max(float(entropy[order].sum()), 1e-12) * (LAYERS - 1)
    layer[order] = 1 + np.minimum(part.astype(int), LAYERS - 2)
    return layer
