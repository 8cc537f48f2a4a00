"""Finds the codec of a name or of a frame's `wire_id` under a contract."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from ..contract import Contract, Part
from ..errors import FrameError
from .affine import Affine, AffineParts, Range, bits_of
from .affine import name_of as affine_name_of
from .base import Codec
from .channels import WIRE_ID_BASE, ChannelCoder, Channels, name_of, tenths_of
from .grids import Grids
from .klt import TABLE, WIRE_ID, Klt, quality_of
from .klt_pco import WIRE_ID as KLT_PCO_WIRE_ID
from .klt_pco import KltPco
from .klt_pco import quality_of as klt_pco_quality_of
from .layers import WIRE_ID_BASE as LAYERS_WIRE_ID_BASE
from .layers import LayerCoder, Layers
from .layers import name_of as layers_name_of
from .layers import tenths_of as layers_tenths_of
from .pco import WIRE_ID as PCO_WIRE_ID
from .pco import Pco, PcoCoder
from .pco import tenths_of as pco_tenths_of
from .picture import Picture
from .raw import Raw
from .thirds import Thirds
from .transform import MIN_QUALITY, Transform

_RAW = Raw()


@lru_cache(maxsize=256)
def _affine(bits: int, low: float, high: float) -> Affine:
    return Affine(bits=bits, low=low, high=high)


@lru_cache(maxsize=256)
def _affine_parts(bits: int, ranges: tuple[Range, ...]) -> AffineParts:
    return AffineParts(bits=bits, ranges=ranges)


def _affine_of(bits: int, contract: Contract) -> Affine | None:
    """The requantization to so many bits under this contract, if it has one."""
    tables = _tables(affine_name_of(bits), contract)
    if tables is None:
        return None
    ranges = tuple(Range(shape, float(t["low"]), float(t["high"])) for shape, t in tables)
    if contract.parts:
        return _affine_parts(bits, ranges)
    return _affine(bits, ranges[0].low, ranges[0].high)


@lru_cache(maxsize=256)
def _channels(tenths: int, texts: tuple[tuple[tuple[int, ...], str], ...]) -> Channels:
    coders = [ChannelCoder(Grids.parse(text), shape) for shape, text in texts]
    return Channels(coders, tenths=tenths)


def _channels_of(tenths: int, contract: Contract) -> Channels | None:
    """The grids of so many tenths of a bit under this contract, if it has them."""
    tables = _tables(name_of(tenths), contract)
    if tables is None:
        return None
    return _channels(tenths, tuple((shape, str(table["grids"])) for shape, table in tables))


@lru_cache(maxsize=256)
def _pco(
    tenths: int, rates: tuple[tuple[int, tuple[tuple[tuple[int, ...], str], ...]], ...]
) -> Pco:
    coders = {
        rate: [PcoCoder(Grids.parse(text), shape) for shape, text in texts] for rate, texts in rates
    }
    return Pco(coders, tenths=tenths)


def _pco_of(tenths: int | None, contract: Contract) -> Pco | None:
    """With the grids of every rate under this contract; None without those of this one, or any."""
    owner: Contract | Part = contract.parts[0] if contract.parts else contract
    rates = []
    for rate in filter(None, map(tenths_of, owner.codecs)):
        tables = _tables(name_of(rate), contract)
        if tables is not None:
            texts = tuple((shape, str(table["grids"])) for shape, table in tables)
            rates.append((rate, texts))
    known = [rate for rate, _ in rates]
    own = known[0] if tenths is None and known else tenths
    return _pco(own, tuple(rates)) if own in known else None


@lru_cache(maxsize=256)
def _layers(tenths: int, texts: tuple[tuple[tuple[int, ...], str, str], ...]) -> Layers:
    coders = [
        LayerCoder(Grids.parse(grids), Thirds.parse(thirds), shape)
        for shape, grids, thirds in texts
    ]
    return Layers(coders, tenths=tenths)


def _layers_of(tenths: int, contract: Contract) -> Layers | None:
    """The layers of so many tenths of a bit under this contract, if it has them."""
    tables = _tables(layers_name_of(tenths), contract)
    if tables is None:
        return None
    texts = ((shape, str(table["grids"]), str(table["thirds"])) for shape, table in tables)
    return _layers(tenths, tuple(texts))


@lru_cache(maxsize=64)
def _transform(text: str) -> Transform:
    return Transform.parse(text)


@lru_cache(maxsize=256)
def _klt(kind: type[Klt], quality: int, text: str) -> Klt:
    return kind(_transform(text), quality=quality)


def _klt_of(kind: type[Klt], quality: int, contract: Contract) -> Klt | None:
    """The transform of this contract in a quality, if it has one."""
    table = contract.codecs.get(TABLE)
    return None if table is None else _klt(kind, quality, str(table["transform"]))


def _tables(
    name: str, contract: Contract
) -> list[tuple[tuple[int, ...], Mapping[str, float | str]]] | None:
    """A codec's parameters for each tensor of a contract, with its shape; None unless all have."""
    owners: Sequence[Contract | Part] = contract.parts or (contract,)
    tables = [(each.shape, each.codecs[name]) for each in owners if name in each.codecs]
    return tables if len(tables) == len(owners) else None


def is_tensor_codec(name: str) -> bool:
    """Whether a contract may hold what a codec of this name needs to know of its tensor."""
    each = (bits_of, tenths_of, pco_tenths_of, layers_tenths_of, quality_of, klt_pco_quality_of)
    return any(of(name) is not None for of in each)


def codec_by_name(name: str, contract: Contract) -> Codec:
    """The codec a plan names; ValueError if there is none such under this contract."""
    if name == Raw.name:
        return _RAW
    bits = bits_of(name)
    if bits is not None:
        affine = _affine_of(bits, contract)
        if affine is not None:
            return affine
    tenths = tenths_of(name)
    if tenths is not None:
        channels = _channels_of(tenths, contract)
        if channels is not None:
            return channels
    tenths = pco_tenths_of(name)
    if tenths is not None:
        pco = _pco_of(tenths, contract)
        if pco is not None:
            return pco
    tenths = layers_tenths_of(name)
    if tenths is not None:
        layers = _layers_of(tenths, contract)
        if layers is not None:
            return layers
    for kind, found in ((Klt, quality_of(name)), (KltPco, klt_pco_quality_of(name))):
        klt = None if found is None else _klt_of(kind, found, contract)
        if klt is not None:
            return klt
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
    channels = _channels_of(wire_id - WIRE_ID_BASE, contract)
    if channels is not None:
        return channels
    layers = _layers_of(5 * (wire_id - LAYERS_WIRE_ID_BASE), contract)
    if layers is not None:
        return layers
    kind = {WIRE_ID: Klt, KLT_PCO_WIRE_ID: KltPco}.get(wire_id)
    klt = None if kind is None else _klt_of(kind, MIN_QUALITY, contract)
    if klt is not None:
        return klt
    pco = _pco_of(None, contract) if wire_id == PCO_WIRE_ID else None
    if pco is not None:
        return pco
    picture = Picture.of_wire_id(wire_id)
    if picture is None:
        raise FrameError(f"codec {wire_id:#04x} is not part of contract {contract.id[:12]}")
    return picture
