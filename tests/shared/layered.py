"""Frames in layers as they were when they came out, and what every part of them decodes to.

`layered_frames.py` writes those that are missing below `layered/`; what is there is never written
again.
"""

import base64
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from hybridge.shared.arrival import Arrival
from hybridge.shared.codec import codec_by_name
from hybridge.shared.contract import Contract
from hybridge.shared.frame import decode_layers, encode_layers
from hybridge.shared.tensor import Array, from_raw, to_raw

FOLDER = Path(__file__).parent / "layered"
CODEC = "layers-25"


def layers_of(tensor: Array, contract: Contract) -> list[bytes]:
    return encode_layers(tensor, contract=contract, codec=codec_by_name(CODEC, contract))


def made_of(start: bytes, contract: Contract) -> Array:
    """What a frame's beginning decodes to."""
    arrival = Arrival(start)
    return decode_layers(arrival.layers, arrival.header, contract=contract)


@dataclass(frozen=True)
class Layered:
    """A frame under its contract, and what its first layers decode to, one and more of them."""

    name: str
    contract: Contract
    layers: list[bytes]
    tensors: list[Array]

    @classmethod
    def of(cls, name: str, tensor: Array, contract: Contract) -> "Layered":
        layers = layers_of(tensor, contract)
        starts = [b"".join(layers[: count + 1]) for count in range(len(layers))]
        return cls(name, contract, layers, [made_of(start, contract) for start in starts])

    @classmethod
    def read(cls, file: Path) -> "Layered":
        found = json.loads(file.read_text())
        contract = msgspec.convert(found["contract"], Contract)
        raws = map(base64.b64decode, found["tensors"])
        tensors = [from_raw(raw, datatype=contract.dtype, shape=contract.shape) for raw in raws]
        return cls(file.stem, contract, list(map(base64.b64decode, found["layers"])), tensors)

    def write(self, file: Path) -> None:
        found = {
            "contract": asdict(self.contract),
            "layers": [base64.b64encode(layer).decode() for layer in self.layers],
            "tensors": [base64.b64encode(to_raw(each)).decode() for each in self.tensors],
        }
        file.write_text(json.dumps(found, indent=1) + "\n")


def all_layered() -> list[Layered]:
    return [Layered.read(file) for file in sorted(FOLDER.glob("*.json"))]
