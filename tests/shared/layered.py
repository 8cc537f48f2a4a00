"""Frames in layers as they were when they came out, and what every part of them decodes to.

    python -m hybridge.tests.shared.layered      (with the package's parent on PYTHONPATH)

writes those that are missing below `layered/`. What is there is never written again.
"""

import base64
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from hybridge.cloud.compiler.layer_fit import fit_layers
from hybridge.shared.arrival import Arrival
from hybridge.shared.codec import codec_by_name
from hybridge.shared.contract import Contract, Part
from hybridge.shared.frame import decode_layers, encode_layers
from hybridge.shared.tensor import Array, from_raw, to_raw

from .grids import smooth_tensors

FOLDER = Path(__file__).parent / "layered"
CODEC = "layers-25"
SHAPE = (9, 7, 12)
TENSORS = smooth_tensors(12, SHAPE)


def table() -> dict[str, Any]:
    sensitivity = np.linspace(1.0, 4.0, SHAPE[-1])
    grids, thirds = fit_layers(TENSORS[:8], sensitivity=sensitivity, bits=2.5)
    return {"grids": grids.text(), "thirds": thirds.text()}


def layered_contract() -> Contract:
    return Contract(
        tensor="cut", shape=SHAPE, dtype="INT8", model="0" * 64, scale=0.125, zero_point=-3,
        codecs={CODEC: table()},
    )  # fmt: skip


def contract_of_two() -> Contract:
    parts = tuple(
        Part(tensor=name, shape=SHAPE, scale=0.5, zero_point=1, codecs={CODEC: table()})
        for name in ("one", "two")
    )
    size = 2 * int(np.prod(SHAPE))
    return Contract(tensor="one+two", shape=(size,), dtype="INT8", model="0" * 64, parts=parts)


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


def _makings() -> Iterator[Layered]:
    yield Layered.of(CODEC, TENSORS[0], layered_contract())
    yield Layered.of(
        f"{CODEC}-parts", np.concatenate([TENSORS[1].ravel(), TENSORS[2].ravel()]),
        contract_of_two(),
    )  # fmt: skip


def main() -> None:
    """Writes the fixtures that are missing."""
    FOLDER.mkdir(exist_ok=True)
    for each in _makings():
        file = FOLDER / f"{each.name}.json"
        if not file.exists():
            each.write(file)
            sys.stdout.write(f"{file}\n")


if __name__ == "__main__":
    main()
