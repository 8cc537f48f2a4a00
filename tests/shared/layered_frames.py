"""A contract with a codec in layers, and the fixtures made of it.

python -m hybridge.tests.shared.layered_frames      (with the package's parent on PYTHONPATH)
"""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from hybridge.cloud.compiler.layer_fit import fit_layers
from hybridge.shared.contract import Contract, Part

from .grids import smooth_tensors
from .layered import CODEC, FOLDER, Layered

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
