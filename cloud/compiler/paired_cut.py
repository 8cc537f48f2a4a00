"""One cut in all graphs of a model: the cloud's ONNX and the device's float and int8 TFLite."""

import math
from dataclasses import dataclass

from ...shared.errors import BuildError
from ...shared.manifest import CutRecord
from .onnx_graph import OnnxCut, Wire
from .tflite_graph import TfliteCut


@dataclass(frozen=True, slots=True)
class Limits:
    """When two tensors count as one; errors are relative to the largest absolute value.

    Inside a network errors of different kernels have not averaged out yet, so that values may
    differ more than answers.
    """

    value_error: float = 1e-3
    answer_error: float = 1e-4
    int8_snr_db: float = 10.0

    def __post_init__(self) -> None:
        if not (0 < self.value_error < 1 and 0 < self.answer_error < 1):
            raise ValueError("errors must lie between 0 and 1")


@dataclass(frozen=True, slots=True)
class PairedCut:
    """One cut in all three graphs, and how well they agree.

    `name` holds the position from the input on and the shape. `work` is the share of the model's
    multiply-adds before the cut. `answer_error` is that of float head and float tail against the
    whole ONNX model; `int8_agreement` the share of inputs on which int8 head and tail choose the
    whole model's class. `int8` is None without an int8 model, or where its tensor is too far from
    the float one (`int8_snr_db` says how far); where that model keeps the tensor in float, the grid
    of `int8_grid` is the calibration's, and the device quantizes what the head gives.
    """

    name: str
    onnx: OnnxCut
    float32: TfliteCut
    int8: TfliteCut | None
    float_wire: Wire
    work: float
    value_error: float
    answer_error: float
    int8_grid: Wire | None = None
    int8_snr_db: float | None = None
    int8_agreement: float | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.float_wire.shape

    @property
    def channels_first(self) -> bool:
        return self.float_wire.channels_first

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def int8_wire(self) -> Wire:
        """What the int8 head sends; BuildError if this cut has none."""
        if self.int8_grid is None:
            raise BuildError(f"cut {self.name} has no int8 head")
        return self.int8_grid

    def record(self, fate: str) -> CutRecord:
        """This cut in a bundle's record of its build."""
        return CutRecord(
            name=self.name,
            tensors=tuple(part.tensor for part in self.onnx.tensors),
            shapes=tuple(wire.shape for wire in self.float_wire.parts or (self.float_wire,)),
            work=self.work,
            error=float(f"{self.answer_error:.2e}"),
            fate=fate,
            int8_snr_db=None if self.int8_snr_db is None else round(self.int8_snr_db, 2),
            int8_agreement=self.int8_agreement,
        )


@dataclass(frozen=True)
class Pairing:
    """The cuts that can be offered, from the input on, and why the others of the graph cannot."""

    pairs: tuple[PairedCut, ...]
    refused: tuple[CutRecord, ...] = ()
