"""Finds the codec of a name or of a frame's `wire_id` under a contract."""

from functools import lru_cache

from ..contract import Contract
from ..errors import FrameError
from .affine import Affine
from .base import Codec
from .picture import Picture
from .raw import Raw

_RAW = Raw()


@lru_cache(maxsize=256)
def _affine(bits: int, low: float, high: float) -> Affine:
    return Affine(bits=bits, low=low, high=high)


def codec_by_name(name: str, contract: Contract) -> Codec:
    """The codec a plan names; ValueError if there is none such under this contract."""
    if name == Raw.name:
        return _RAW
    table = contract.codecs.get(name)
    if table is not None and name.startswith("affine"):
        return _affine(int(name.removeprefix("affine")), table["low"], table["high"])
    picture = Picture.parse(name)
    if picture is None:
        raise ValueError(f"no codec {name!r} under the contract of {contract.tensor!r}")
    return picture


def codec_by_wire_id(wire_id: int, contract: Contract) -> Codec:
    """The codec that decodes a frame; FrameError if there is none such under this contract."""
    if wire_id == Raw.wire_id:
        return _RAW
    bits = wire_id - Affine.WIRE_ID_BASE
    table = contract.codecs.get(f"affine{bits}")
    if table is not None:
        return _affine(bits, table["low"], table["high"])
    picture = Picture.of_wire_id(wire_id)
    if picture is None:
        raise FrameError(f"codec {wire_id:#04x} is not part of contract {contract.id[:12]}")
    return picture
