"""Finds the codec of a name or of a frame's `wire_id` under a contract."""

from functools import lru_cache

from ..contract import Contract
from ..errors import FrameError
from .affine import Affine, AffineParts, Range
from .base import Codec
from .picture import Picture
from .raw import Raw

_RAW = Raw()


@lru_cache(maxsize=256)
def _affine(bits: int, low: float, high: float) -> Affine:
    return Affine(bits=bits, low=low, high=high)


@lru_cache(maxsize=256)
def _affine_parts(bits: int, ranges: tuple[Range, ...]) -> AffineParts:
    return AffineParts(bits=bits, ranges=ranges)


def _affine_of(bits: int, contract: Contract) -> Affine | None:
    """The requantization to so many bits under this contract, if it has one."""
    name = f"affine{bits}"
    if not contract.parts:
        table = contract.codecs.get(name)
        return None if table is None else _affine(bits, table["low"], table["high"])
    tables = [(part.shape, part.codecs.get(name)) for part in contract.parts]
    ranges = tuple(Range(shape, t["low"], t["high"]) for shape, t in tables if t is not None)
    return _affine_parts(bits, ranges) if len(ranges) == len(tables) else None


def codec_by_name(name: str, contract: Contract) -> Codec:
    """The codec a plan names; ValueError if there is none such under this contract."""
    if name == Raw.name:
        return _RAW
    bits = name.removeprefix("affine")
    if bits != name and bits.isdecimal():
        affine = _affine_of(int(bits), contract)
        if affine is not None:
            return affine
    picture = Picture.parse(name)
    if picture is None:
        raise ValueError(f"no codec {name!r} under the contract of {contract.tensor!r}")
    return picture


def codec_by_wire_id(wire_id: int, contract: Contract) -> Codec:
    """The codec that decodes a frame; FrameError if there is none such under this contract."""
    if wire_id == Raw.wire_id:
        return _RAW
    affine = _affine_of(wire_id - Affine.WIRE_ID_BASE, contract)
    if affine is not None:
        return affine
    picture = Picture.of_wire_id(wire_id)
    if picture is None:
        raise FrameError(f"codec {wire_id:#04x} is not part of contract {contract.id[:12]}")
    return picture
