"""The forms in which a request may bring its input, each checked before it is queued.

    frame    UINT8 [bytes]               one frame (shared/frame.py): a cut's tensor, or a picture
    pixels   [*item] or [n,*item]        what any client of the protocol can send: UINT8 [S,S,3],
                                         or what else the model's own contract says
    picture  BYTES [1]                   an encoded picture: one of S x S is taken as prepared, any
                                         other is cropped and resized as the bundle says

A model's further inputs come beside it, one item for each of its items.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import msgspec

from ..shared import oip
from ..shared.came import Came
from ..shared.codec import codec_by_name
from ..shared.contract import Contract
from ..shared.errors import RequestError, TensorError
from ..shared.frame import (
    FrameHeader,
    codec_of,
    decode_layers,
    decode_payload,
    read_header,
)
from ..shared.picture import decode_picture, picture_size
from ..shared.side import Tensors, read_sides, split_inputs
from ..shared.tensor import Array
from .model import Model, ServedModel
from .named import NamedModel
from .repository import Repository
from .resize import prepare
from .stage import Stage
from .upload import Upload
from .work import Load

_CHECK_ON_LOOP_BYTES = 1 << 19
"""A checksum over so much takes a quarter of a millisecond; longer ones are left to a thread."""

_MAX_PIXELS = 16_000_000
"""Of one picture to be resized: 48 MB, several of which may be in memory at a time."""

Parameters = Mapping[str, oip.Value]


class Input(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What a request is about: `items` inputs for a stage of a model.

    What is `at_hand` takes no time to load.
    """

    model: Model
    stage: Stage
    items: int
    load: Load
    at_hand: bool = False
    sides: Tensors = {}
    upload: Upload | None = None
    """Of a frame in layers that is still on its way; `load` has nothing of it."""
    came: Came | None = None

    def of(self, layers: Sequence[bytes]) -> "Input":
        """The same, made of the layers that came up in time."""
        assert self.upload is not None
        header = self.upload.header
        load = partial(_decoded_layers, layers, header, self.stage.contract)
        came = Came(
            layers=len(layers),
            layers_in_all=len(header.layers),
            came_bytes=self.upload.came_bytes,
            frame_bytes=header.frame_bytes,
        )
        return msgspec.structs.replace(self, load=load, came=came)


async def read_input(
    sent: Iterable[oip.InputTensor],
    parameters: Parameters,
    *,
    model: Model,
    version: str,
    repository: Repository,
    upload: Upload | None = None,
) -> Input:
    """The input of a request about a model; RequestError or UnknownContract if it is not one.

    An empty version leaves the choice to us: a frame may belong to another than `model`. With
    `upload` the frame is in layers, and more of it may be on its way.
    """
    if isinstance(model, NamedModel):
        if upload is not None:
            raise RequestError(f"{model.name} takes tensors, and no frames")
        first, others = model.read(sent)
        return Input(
            model=model,
            stage=model.whole,
            items=len(first),
            load=partial(_as_it_is, first),
            at_hand=True,
            sides=others,
        )
    assert isinstance(model, ServedModel)
    tensor, beside = split_inputs(sent, pictures=(oip.FRAME, oip.PIXELS, oip.PICTURE))
    if upload is not None:
        found = _read_upload(
            upload, parameters, name=model.name, version=version, repository=repository
        )
    elif tensor.name == oip.FRAME:
        found = await _read_frame(
            tensor, parameters, name=model.name, version=version, repository=repository
        )
    elif tensor.name == oip.PIXELS:
        found = _read_pixels(tensor, model)
    else:
        found = await _read_picture(tensor, model)
    if parameters:
        _check_parameter(parameters, oip.CONTRACT, found.stage.contract.id)
        _check_parameter(parameters, oip.CUT, found.stage.key.cut)
    sides = read_sides(beside, found.stage.inputs, items=found.items)
    if upload is not None:
        upload.admit()
    return msgspec.structs.replace(found, sides=sides) if sides else found


async def _read_frame(
    tensor: oip.InputTensor,
    parameters: Parameters,
    *,
    name: str,
    version: str,
    repository: Repository,
) -> Input:
    frame = bytes(tensor.raw)
    _check_tensor(tensor, datatype="UINT8", shape=(len(frame),))
    if len(frame) > _CHECK_ON_LOOP_BYTES:
        header = await asyncio.to_thread(read_header, frame)
    else:
        header = read_header(frame)
    model, stage = repository.stage(header.contract, name=name, version=version)
    contract = stage.contract
    _check_codec(parameters, header, contract)

    load = partial(_decoded_frame, frame, header, contract)
    return Input(model=model, stage=stage, items=1, load=load)


def _read_upload(
    upload: Upload, parameters: Parameters, *, name: str, version: str, repository: Repository
) -> Input:
    header = upload.open().header
    model, stage = repository.stage(header.contract, name=name, version=version)
    codec_of(header, stage.contract)  # that there is one, and that the header's sizes make sense
    _check_codec(parameters, header, stage.contract)
    return Input(model=model, stage=stage, items=1, load=_nothing_yet, upload=upload)


def _read_pixels(tensor: oip.InputTensor, model: ServedModel) -> Input:
    contract = model.whole.contract
    item = contract.shape
    single = len(tensor.shape) == len(item)
    items = 1 if single else tensor.shape[0] if tensor.shape else 0
    most = model.whole.max_batch
    fits = tensor.datatype == contract.dtype and tensor.shape[-len(item) :] == item
    if not fits or not 1 <= items <= most:
        sizes = ",".join(map(str, item))
        raise TensorError(
            f"{tensor.datatype} {list(tensor.shape)} is not {contract.dtype} [{sizes}] "
            f"or [n,{sizes}] with n from 1 to {most}"
        )
    if not single and len(tensor.shape) != len(item) + 1:
        raise TensorError(f"{list(tensor.shape)} has {len(tensor.shape)} dimensions")
    pixels = tensor.view()
    load = partial(_as_it_is, pixels[None] if single else pixels)
    return Input(model=model, stage=model.whole, items=items, load=load, at_hand=True)


async def _read_picture(tensor: oip.InputTensor, model: ServedModel) -> Input:
    _check_tensor(tensor, datatype="BYTES", shape=(1,))
    if model.whole.contract.dtype != "UINT8":
        raise TensorError(
            f"{model.name} takes {model.whole.contract.dtype}, which no picture holds"
        )
    (encoded,) = tensor.elements()
    size = model.size_px
    if picture_size(encoded) == (size, size):
        load = partial(_decoded_picture, encoded, size * size)
    else:  # not by the instance: what takes so long and varies so much is no cost of its stage
        pixels = await asyncio.to_thread(_prepared, encoded, model)
        load = partial(_as_it_is, pixels[None])
    return Input(model=model, stage=model.whole, items=1, load=load)


# What instances are to do is said by values, since they may be in other processes.


def _decoded_frame(frame: bytes, header: FrameHeader, contract: Contract) -> Array:
    return decode_payload(frame, header, contract=contract)[None]


def _decoded_layers(layers: Sequence[bytes], header: FrameHeader, contract: Contract) -> Array:
    return decode_layers(layers, header, contract=contract)[None]


def _nothing_yet() -> Array:
    raise AssertionError("a frame in layers is gathered before it is decoded")


def _decoded_picture(encoded: bytes, max_pixels: int) -> Array:
    return decode_picture(encoded, max_pixels=max_pixels)[None]


def _as_it_is(array: Array) -> Array:
    return array


def _prepared(encoded: bytes, model: ServedModel) -> Array:
    spec = model.bundle.manifest.large.preprocessing.spec
    return prepare(decode_picture(encoded, max_pixels=_MAX_PIXELS), spec)


def _check_tensor(tensor: oip.InputTensor, *, datatype: str, shape: tuple[int, ...]) -> None:
    if tensor.datatype != datatype or tensor.shape != shape:
        raise TensorError(
            f"input {tensor.name!r} must be {datatype} {list(shape)}, "
            f"not {tensor.datatype} {list(tensor.shape)}"
        )


def _check_codec(parameters: Parameters, header: FrameHeader, contract: Contract) -> None:
    name = parameters.get(oip.CODEC)
    if name is None:
        return
    try:
        wire_id = codec_by_name(str(name), contract).wire_id
    except ValueError as error:
        raise RequestError(str(error)) from None
    if wire_id != header.codec_wire_id:
        raise RequestError(f"parameter codec says {name}, the frame {header.codec_wire_id:#04x}")


def _check_parameter(parameters: Parameters, name: str, truth: str) -> None:
    said = parameters.get(name, truth)
    if said != truth:
        raise RequestError(f"parameter {name} says {said}, the input {truth or 'whole'!r}")
