"""Contracts of cuts: the int8 grid a head and its tail share, and what its codecs need to know."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...shared.codec import layers, pco
from ...shared.codec.channels import name_of, tenths_of
from ...shared.codec.klt import TABLE
from ...shared.codec.klt_pco import is_transformed
from ...shared.contract import Contract, Part
from ...shared.errors import BuildError
from .grid_fit import fit_grids
from .layer_fit import fit_layers
from .paired_cut import PairedCut
from .sensitivity import Sensitivity
from .transform_fit import fit_transform, has_transform

_CODES = np.arange(-128, 128, dtype=np.float64)
_CLIPPED_SHARES = (0.0, 1e-4, 5e-4, 2e-3, 5e-3, 1e-2)


def cut_contract(
    pair: PairedCut,
    tensors: Sequence[npt.NDArray[np.int8]],
    *,
    model_sha256: str,
    codecs: Sequence[str],
    sensitivity: Sensitivity | None = None,
) -> Contract:
    """The contract of a cut of which these are calibration tensors, as they cross the link.

    The parts of a cut of several tensors have distributions of their own, so each has a grid and
    codec parameters of its own. `sensitivity` is by int8 codes and has the wire's shape
    (sensitivity.py); without it all values count alike. A cut that has no transform has no `klt-`
    codecs either.
    """
    sent = np.stack([tensor.reshape(pair.int8_wire.shape) for tensor in tensors])
    wire = pair.int8_wire
    squares = np.ones(wire.shape) if sensitivity is None else sensitivity.squares
    if not wire.parts:
        return Contract(
            tensor=pair.onnx.tensor,
            shape=wire.shape,
            dtype="INT8",
            model=model_sha256,
            scale=wire.scale,
            zero_point=wire.zero_point,
            codecs=_tables(sent, squares, codecs) | _transforms(sent, sensitivity, codecs),
        )
    parts: list[Part] = []
    start = 0
    for own, onnx in zip(wire.parts, pair.onnx.tensors, strict=True):
        if own.scale is None or own.zero_point is None:
            raise BuildError(f"part {onnx.tensor!r} of cut {pair.name} has no int8 grid")
        end = start + math.prod(own.shape)
        values = sent[:, start:end].reshape(-1, *own.shape)
        parts.append(
            Part(
                tensor=onnx.tensor,
                shape=own.shape,
                scale=own.scale,
                zero_point=own.zero_point,
                codecs=_tables(values, squares[start:end].reshape(own.shape), codecs),
            )
        )
        start = end
    return Contract(
        tensor=pair.onnx.tensor,
        shape=wire.shape,
        dtype="INT8",
        model=model_sha256,
        parts=tuple(parts),
    )


def _tables(
    values: npt.NDArray[np.int8], squares: npt.NDArray[np.float64], codecs: Sequence[str]
) -> dict[str, dict[str, float | str]]:
    """Each codec's parameters for int8 [n, *shape] and a sensitivity [*shape]."""
    channel = squares.reshape(-1, squares.shape[-1]).mean(axis=0)
    own = dict.fromkeys(_table_name(name) for name in codecs if not is_transformed(name))
    return {name: _table(name, values, channel) for name in own}


def _table_name(codec: str) -> str:
    """Under which name a contract holds a codec's parameters: `pco-N` has those of `rans-N`."""
    tenths = pco.tenths_of(codec)
    return codec if tenths is None else name_of(tenths)


def _transforms(
    values: npt.NDArray[np.int8], sensitivity: Sensitivity | None, codecs: Sequence[str]
) -> dict[str, dict[str, float | str]]:
    """The one transform of all qualities, if there is any in `codecs` and the shape has one."""
    if not any(map(is_transformed, codecs)) or not has_transform(values.shape[1:]):
        return {}
    return {TABLE: {"transform": fit_transform(values, sensitivity).text()}}


def _table(
    name: str, values: npt.NDArray[np.int8], channel: npt.NDArray[np.float64]
) -> dict[str, float | str]:
    tenths = tenths_of(name)
    if tenths is not None:
        return {"grids": fit_grids(values, sensitivity=channel, bits=tenths / 10).text()}
    tenths = layers.tenths_of(name)
    if tenths is not None:
        grids, thirds = fit_layers(values, sensitivity=channel, bits=tenths / 10)
        return {"grids": grids.text(), "thirds": thirds.text()}
    low, high = clipping_range(values, bits=int(name.removeprefix("affine")))
    return {"low": low, "high": high}


def clipping_range(values: npt.NDArray[np.int8], *, bits: int) -> tuple[float, float]:
    """Where to clip int8 values before `bits` bits: the quantile pair of least squared error.

    Eight bits clip nothing: the codes then are the int8 values themselves.
    """
    if bits == 8:
        return -128.0, 127.0
    counts = np.bincount(values.ravel().astype(np.int64) + 128, minlength=256).astype(np.float64)
    below = np.cumsum(counts) / counts.sum()
    ranges = {(-128.0, 127.0)}
    for share in _CLIPPED_SHARES:
        low = float(_CODES[np.searchsorted(below, share, side="right")])
        high = float(_CODES[min(int(np.searchsorted(below, 1 - share)), 255)])
        if low < high:
            ranges.add((low, high))
    return min(sorted(ranges), key=lambda ends: _squared_error(counts, *ends, bits=bits))


def _squared_error(counts: npt.NDArray[np.float64], low: float, high: float, *, bits: int) -> float:
    """Of all values together, as the codec gives them back: whole codes."""
    levels = 2**bits - 1
    step = (high - low) / levels
    rebuilt = np.rint(low + step * np.clip(np.rint((_CODES - low) / step), 0, levels))
    return float((counts * (_CODES - rebuilt) ** 2).sum())
