"""The tiny model with a codec in layers at its cut, and chunks of its frames."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from hybridge.cloud.compiler.layer_fit import fit_layers
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared import oip
from hybridge.shared.codec import codec_by_name
from hybridge.shared.contract import Contract
from hybridge.shared.frame import encode_layers
from hybridge.shared.tensor import Array

from .bundles import CHANNELS, CODECS, TinyModel, random_pixels

CODEC = "layers-25"


@dataclass(frozen=True)
class LayeredModel(TinyModel):
    @cached_property
    def _tables(self) -> dict[str, str]:
        tensors = np.stack([self.head(random_pixels(seed)) for seed in range(100, 110)])
        grids, thirds = fit_layers(tensors, sensitivity=np.ones(CHANNELS), bits=2.5)
        return {"grids": grids.text(), "thirds": thirds.text()}

    @property
    def at_cut(self) -> Contract:
        return replace(super().at_cut, codecs={**CODECS, CODEC: dict(self._tables)})

    def layers(self, tensor: Array) -> list[bytes]:
        codec = codec_by_name(CODEC, self.at_cut)
        return encode_layers(tensor, contract=self.at_cut, codec=codec)

    def decoded(self, layers: Sequence[bytes], count: int) -> Array:
        """What the first layers of a frame are."""
        from hybridge.shared.arrival import Arrival
        from hybridge.shared.frame import decode_layers

        arrival = Arrival(b"".join(layers[:count]))
        return decode_layers(arrival.layers, arrival.header, contract=self.at_cut)


def chunk(
    raw: bytes, offset: oip.Value, *, id: str = "7", model: str = "tiny", **parameters: oip.Value
) -> pb.ModelInferRequest:
    """A chunk as a stream has it; what is beside the offset goes with the first alone."""
    request = pb.ModelInferRequest(id=id, model_name=model if offset == 0 else "")
    oip.set_parameters(request.parameters, {oip.FRAME_OFFSET: offset, **parameters})
    oip.add_input(request, oip.FRAME, np.frombuffer(raw, np.uint8))
    return request


def chunks(
    pieces: Sequence[bytes], *, id: str = "7", **parameters: oip.Value
) -> Iterator[pb.ModelInferRequest]:
    """One for each piece; the parameters go with the first."""
    at = 0
    for piece in pieces:
        yield chunk(piece, at, id=id, **(parameters if at == 0 else {}))
        at += len(piece)
