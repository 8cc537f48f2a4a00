"""Grids and tables of a tensor's channels (shared/codec/grids.py), from calibration pictures.

One number is searched, the common scale of all steps: at a given total rate the error in the answer
is least where every channel adds as much of it per bit, which for steps that are small against the
spread of a channel means steps in proportion to 1 / sqrt(sensitivity) (reverse water-filling; Cover
and Thomas, 10.3, with weights). So no combination of bits per channel is ever tried.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import numpy as np
import numpy.typing as npt

from ...shared.codec.grids import FRACTION, MAX_SYMBOL, MAX_TOP, SILENT, Grids
from ...shared.codec.neighbours import Plane
from ...shared.codec.rans import TOTAL, frequencies_of

_SEARCHED_VALUES = 1 << 20
_COUNTED_VALUES = 1 << 22
_ROUNDS = 14
_GROUPS = 8
_BINS = 13
_TOPS = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, MAX_TOP)
_PRIOR = 12.0
"""Symbols' worth of the group's own frequencies that every table begins with."""

_MODE_SHARE = 0.25

I8 = npt.NDArray[np.int8]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]


def fit_grids(tensors: I8, *, sensitivity: F64, bits: float) -> Grids:
    """Grids for int8 [n, ..., C] that take about so many bits per value, contexts apart.

    `sensitivity` [C] is the change of the answer by an error of one, squared.
    """
    channels = tensors.shape[-1]
    values = tensors.reshape(-1, channels)
    stride = max(1, values.size // _SEARCHED_VALUES)
    centre = _centres(values[::stride])
    weight = np.sqrt(sensitivity + 1e-3 * sensitivity.mean() + 1e-30)
    relative = 1.0 / (weight / weight.mean())
    # So that the largest symbol reaches every code: nothing is cut off, however rare.
    farthest = np.maximum(127 - centre.astype(np.int64), centre.astype(np.int64) + 128)
    least = np.maximum(FRACTION, np.ceil(FRACTION * farthest / MAX_SYMBOL))

    def step_at(scale: float) -> npt.NDArray[np.uint16]:
        steps = np.clip(np.rint(FRACTION * scale * relative), least, 65535)
        return cast(npt.NDArray[np.uint16], steps.astype(np.uint16))

    low, high = -4.0, 13.0  # logarithms of the scale, in codes
    few = values[::stride]
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        blank = _blank(centre, step_at(float(2.0**middle)))
        if _entropy_bits(_symbols(blank, few)) > bits:
            low = middle
        else:
            high = middle
    blank = _blank(centre, step_at(float(2.0**high)))
    return grids_of_steps(tensors, centre=blank.centre, step=blank.step)


def grids_of_steps(tensors: I8, *, centre: I8, step: npt.NDArray[np.uint16]) -> Grids:
    """Grids of these centres and steps [C] each, with tables for int8 [n, ..., C]."""
    pictures = max(8, _COUNTED_VALUES // tensors[0].size)
    return _with_tables(_blank(centre, step), tensors[:: max(1, len(tensors) // pictures)])


def _centres(values: I8) -> I8:
    """The commonest value where it is common, as the zero behind a ReLU is; the median else."""
    made = np.empty(values.shape[-1], np.int8)
    for channel, own in enumerate(values.T):
        counts = np.bincount(own.view(np.uint8), minlength=256)
        mode = int(counts.argmax())
        common = counts[mode] >= _MODE_SHARE * own.size
        made[channel] = np.uint8(mode).view(np.int8) if common else np.int8(np.median(own))
    return made


def _blank(centre: I8, step: npt.NDArray[np.uint16]) -> Grids:
    """Steps only: one table for all, that says nothing."""
    frequencies = frequencies_of(np.ones((3, 3)))
    return Grids(
        top=np.ones(1, np.uint8),
        centre=centre,
        step=step,
        group=np.zeros(centre.size, np.uint8),
        edges=np.zeros((1, 0), np.int16),
        frequencies=frequencies,
    )


def _symbols(grids: Grids, values: I8) -> I8:
    row = np.arange(values.shape[-1], dtype=np.int32) << 8
    return grids.symbol_of.ravel().take(values.view(np.uint8) + row)


def _entropy_bits(symbols: I8) -> float:
    """Order 0, per value, every channel by itself."""
    count, channels = symbols.shape
    keys = symbols.view(np.uint8).astype(np.int64) + (np.arange(channels) << 8)
    counts = np.bincount(keys.ravel(), minlength=channels << 8)
    shares = counts[counts > 0] / count
    return float(-(shares * np.log2(shares)).sum() / channels)


def _with_tables(blank: Grids, tensors: I8) -> Grids:
    channels = tensors.shape[-1]
    symbols = _symbols(blank, tensors.reshape(-1, channels)).astype(np.int16)
    size = np.abs(symbols).mean(axis=0)
    group = _groups(size)
    sent = group != SILENT
    if not sent.any():
        return replace(blank, group=group)
    shape = tensors.shape[1:]
    pictures = symbols.reshape(
        len(tensors),
        int(np.prod(shape[:-2], dtype=np.int64)) if len(shape) > 2 else 1,
        shape[-2] if len(shape) > 1 else 1,
        channels,
    )[..., sent]
    own = group[sent].astype(np.int64)
    groups = int(own.max()) + 1
    top = np.array([_top(symbols[:, group == index]) for index in range(groups)], np.uint8)
    seen = list(_with_sums(pictures, top[own].astype(np.int16)))
    edges = _edges(seen, own, groups)
    return Grids(
        top=top,
        centre=blank.centre,
        step=blank.step,
        group=group,
        edges=edges,
        frequencies=_frequencies(seen, own, edges, top=top),
    )


def _groups(size: F64) -> npt.NDArray[np.uint8]:
    """Channels of like spread share tables; those that are always at their centre are silent."""
    group = np.full(size.size, SILENT, np.uint8)
    order = np.argsort(size, kind="stable")
    order = order[size[order] > 0]
    count = min(_GROUPS, order.size)
    for index, members in enumerate(np.array_split(order, count) if count else []):
        group[members] = index
    return group


def _top(symbols: npt.NDArray[np.int16]) -> int:
    """Where a group's tables end: where rarer symbols in them cost more than a byte beside them."""
    return best_top(np.bincount(symbols.ravel().astype(np.int64) + 128, minlength=257))


def best_top(counts: I64) -> int:
    """The same for a table's counts [2 * farthest + 1]."""
    zero = counts.size // 2
    costs = []
    for top in _TOPS:
        table = counts[zero - top : zero + 1 + top].astype(np.float64)
        table[0] += counts[: zero - top].sum()
        table[-1] += counts[zero + 1 + top :].sum()
        bits = -(table * np.log2(frequencies_of(table[None])[0] / TOTAL)).sum()
        costs.append(float(bits + 8 * (table[0] + table[-1])))
    return _TOPS[int(np.argmin(costs))]


def _with_sums(
    pictures: npt.NDArray[np.int16], top: npt.NDArray[np.int16]
) -> Iterator[tuple[int, npt.NDArray[np.int16], npt.NDArray[np.int16]]]:
    """Kind, clipped symbols and neighbours' sums of every pass of every picture."""
    for picture in np.clip(pictures, -top, top):
        plane = Plane(*picture.shape)
        plane.symbols[...] = picture
        for each in plane.passes():
            yield each.kind, plane.of(each).copy(), plane.sums(each)


def _edges(
    seen: list[tuple[int, npt.NDArray[np.int16], npt.NDArray[np.int16]]], group: I64, groups: int
) -> npt.NDArray[np.int16]:
    """Sums that split each group's pixels into parts about as large; distinct, so that all hold."""
    made = np.empty((groups, _BINS - 1), np.int16)
    known = [sums.reshape(-1, group.size) for kind, _, sums in seen if kind]
    if not known:
        return np.zeros((groups, 0), np.int16)
    sums = np.concatenate(known)
    for index in range(groups):
        own = sums[:, group == index].ravel()
        wanted = np.quantile(own, np.linspace(0, 1, _BINS + 1)[1:-1]).round().astype(np.int64)
        made[index] = _distinct(wanted)
    return made


def _distinct(wanted: I64) -> I64:
    """Ascending strictly: equal ones make room around their middle."""
    middle = wanted.size // 2
    made = wanted.copy()
    for at in range(middle + 1, made.size):
        made[at] = max(made[at], made[at - 1] + 1)
    for at in range(middle - 1, -1, -1):
        made[at] = min(made[at], made[at + 1] - 1)
    return made


def _frequencies(
    seen: list[tuple[int, npt.NDArray[np.int16], npt.NDArray[np.int16]]],
    group: I64,
    edges: npt.NDArray[np.int16],
    *,
    top: npt.NDArray[np.uint8],
) -> npt.NDArray[np.uint8]:
    groups, bins, most = len(edges), edges.shape[1] + 1, int(top.max())
    symbols = 2 * most + 1
    counts = np.zeros((groups * (1 + 2 * bins), symbols))
    reach = 4 * most
    all_sums = np.arange(-reach, reach + 1)
    bin_of = np.stack([np.searchsorted(own, all_sums, side="right") for own in edges])
    for kind, found, sums in seen:
        table = np.broadcast_to(group, found.shape)
        if kind:
            start = groups + (kind - 1) * groups * bins
            table = start + group * bins + bin_of[group, sums + reach]
        keys = table * symbols + found + most
        counts += np.bincount(keys.ravel(), minlength=counts.size).reshape(counts.shape)
    owner = np.concatenate([np.arange(groups), *(np.repeat(np.arange(groups), bins),) * 2])
    whole = np.zeros((groups, symbols))
    np.add.at(whole, owner, counts)
    whole = (whole + 0.1) / (whole + 0.1).sum(axis=1, keepdims=True)
    counts += _PRIOR * whole[owner]
    made = np.zeros(counts.shape, np.uint8)
    for index, own in enumerate(top.astype(int)):
        inner = np.ix_(owner == index, np.arange(most - own, most + own + 1))
        made[inner] = frequencies_of(counts[inner])
    return made
