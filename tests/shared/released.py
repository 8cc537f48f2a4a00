"""Frames of every codec as they were when it came out, with the tensors they hold.

    python -m hybridge.tests.shared.released      (with the package's parent on PYTHONPATH)

writes those that are missing below `released/`. What is there is never written again: a frame that
no longer decodes to its tensor is a broken promise, not an old fixture.
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

from hybridge.shared.codec import codec_by_name
from hybridge.shared.contract import Contract, Part
from hybridge.shared.frame import decode_payload, encode_frame, read_header
from hybridge.shared.tensor import Array, from_raw, to_raw

FOLDER = Path(__file__).parent / "released"
_SHAPE = (6, 5, 4)


@dataclass(frozen=True)
class Released:
    """A frame under its contract, and what it decodes to."""

    name: str
    contract: Contract
    frame: bytes
    tensor: Array

    @classmethod
    def read(cls, file: Path) -> "Released":
        found = json.loads(file.read_text())
        contract = msgspec.convert(found["contract"], Contract)
        return cls(
            name=file.stem,
            contract=contract,
            frame=base64.b64decode(found["frame"]),
            tensor=from_raw(
                base64.b64decode(found["tensor"]), datatype=contract.dtype, shape=contract.shape
            ),
        )

    def write(self, file: Path) -> None:
        found = {
            "contract": asdict(self.contract),
            "frame": base64.b64encode(self.frame).decode(),
            "tensor": base64.b64encode(to_raw(self.tensor)).decode(),
        }
        file.write_text(json.dumps(found, indent=1) + "\n")


def all_released() -> list[Released]:
    return [Released.read(file) for file in sorted(FOLDER.glob("*.json"))]


def _tensor() -> Array:
    rows = np.arange(120).reshape(_SHAPE)
    return np.asarray((rows * 37 % 101 - 50) * np.array([1, 1, 2, 2]) // 2, np.int8)


def _contract(codecs: dict[str, dict[str, Any]]) -> Contract:
    return Contract(
        tensor="cut",
        shape=_SHAPE,
        dtype="INT8",
        model="0" * 64,
        scale=0.125,
        zero_point=-3,
        codecs=codecs,
    )


def _grids() -> dict[str, Any]:
    from hybridge.cloud.compiler.grid_fit import fit_grids

    tensors = np.stack([_tensor(), _tensor()[::-1], _tensor()[:, ::-1]])
    return {"grids": fit_grids(tensors, sensitivity=np.arange(1.0, 5.0), bits=2.5).text()}


def _transform() -> dict[str, Any]:
    from hybridge.cloud.compiler.transform_fit import fit_transform

    tensors = np.stack([_tensor(), _tensor()[::-1], _tensor()[:, ::-1]])
    return {"transform": fit_transform(tensors, None).text()}


def _makings() -> Iterator[tuple[str, str, Contract, Array]]:
    """Name, codec, contract and tensor of every fixture."""
    pixels = Contract(tensor="pixels", shape=(12, 10, 3), dtype="UINT8", model="0" * 64)
    ramp = np.arange(360, dtype=np.int64).reshape(12, 10, 3) % 251
    for codec in ("raw", "png", "jpeg-90", "webp-90", "avif-90", "jxl-90", "jxl"):
        yield codec, codec, pixels, np.asarray(ramp, np.uint8)
    yield "raw-int8", "raw", _contract({}), _tensor()
    for bits in range(2, 9):
        table = {f"affine{bits}": {"low": -40.0, "high": 45.5}}
        yield f"affine{bits}", f"affine{bits}", _contract(table), _tensor()
    grids = _grids()
    yield "rans-25", "rans-25", _contract({"rans-25": grids}), _tensor()
    yield "pco-25", "pco-25", _contract({"rans-25": grids}), _tensor()
    for codec in ("klt-30", "kltp-30"):
        yield codec, codec, _contract({"klt": _transform()}), _tensor()
    for codec, own, table in (
        ("affine4", "affine4", {"low": -40.0, "high": 45.5}),
        ("rans-25", "rans-25", grids),
        ("pco-25", "rans-25", grids),
    ):
        parts = tuple(
            Part(tensor=name, shape=_SHAPE, scale=0.5, zero_point=1, codecs={own: table})
            for name in ("one", "two")
        )
        joined = Contract(tensor="one+two", shape=(240,), dtype="INT8", model="0" * 64, parts=parts)
        yield f"{codec}-parts", codec, joined, np.tile(_tensor().ravel(), 2)


def main() -> None:
    """Writes the fixtures that are missing."""
    FOLDER.mkdir(exist_ok=True)
    for name, codec, contract, tensor in _makings():
        file = FOLDER / f"{name}.json"
        if file.exists():
            continue
        frame = encode_frame(tensor, contract=contract, codec=codec_by_name(codec, contract))
        decoded = decode_payload(frame, read_header(frame), contract=contract)
        Released(name, contract, frame, decoded).write(file)
        sys.stdout.write(f"{file}\n")


if __name__ == "__main__":
    main()
