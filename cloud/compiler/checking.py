"""Heads and tails run one after the other: how far they are off the whole model."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ...devices.models import on_grid
from .candidates import Candidate, LargeGraph, RealInputs
from .litert import Floats, Tensor, relative_error
from .onnx_graph import TAIL_INPUT, Wire, extract_tail
from .paired_cut import Limits, PairedCut
from .progress import Count, Ticks, uncounted
from .tflite_graph import TfliteCut, quantized_twins
from .values import HeadValues

_HELD_ELEMENTS = 1 << 25  # of float32: what checking holds of all pictures at once


class Check:
    """Runs heads and tails together, in groups that fit into memory."""

    def __init__(
        self,
        large: LargeGraph,
        float_model: bytes,
        int8_model: bytes | None,
        inputs: RealInputs,
        answers: Sequence[Mapping[str, Tensor]],
        limits: Limits,
    ) -> None:
        self._large, self._float_model, self._int8_model = large, float_model, int8_model
        self._inputs, self._answers, self._limits = inputs, answers, limits
        self._twins = quantized_twins(int8_model) if int8_model else {}

    def run(self, found: Sequence[Candidate], *, count: Count = uncounted) -> Iterator[PairedCut]:
        ticks = Ticks(count, len(found))
        for group in self._groups(found):
            int8 = [self._int8_cut(each) for each in group]
            float_values = self._values(self._float_model, [each.float32 for each in group])
            int8_cuts = [cut for cut in int8 if cut is not None]
            int8_values = self._values(self._int8_model or b"", int8_cuts)
            for each, cut in ticks.over(zip(group, int8, strict=True)):
                yield self._checked(each, cut, float_values, int8_values)

    def _groups(self, found: Sequence[Candidate]) -> Iterator[list[Candidate]]:
        group: list[Candidate] = []
        held = 0
        for each in found:
            size = 2 * math.prod(each.wire.shape) * len(self._inputs.tensors)
            if group and held + size > _HELD_ELEMENTS:
                yield group
                group, held = [], 0
            group.append(each)
            held += size
        if group:
            yield group

    def _values(self, model: bytes, cuts: Sequence[TfliteCut]) -> list[dict[int, Tensor]]:
        if not cuts:
            return []
        heads = HeadValues(model, cuts)
        return [heads.run(tensor) for tensor in self._inputs.tensors]

    def _int8_cut(self, found: Candidate) -> TfliteCut | None:
        """The same tensors in the int8 model; None if it lacks one, or has it in another shape."""
        parts = [self._twins.get(part.name) for part in found.float32.tensors]
        present = [part for part in parts if part is not None]
        shapes = [part.shape for part in found.float32.tensors]
        if len(present) < len(parts) or [part.shape for part in present] != shapes:
            return None
        return TfliteCut.joined(present)

    def _checked(
        self,
        found: Candidate,
        int8: TfliteCut | None,
        float_values: Sequence[Mapping[int, Tensor]],
        int8_values: Sequence[Mapping[int, Tensor]],
    ) -> PairedCut:
        graph = extract_tail(self._large.bare.model, cut=found.onnx, wire=found.wire)
        session = self._large.bare.session(graph)

        def finished(sent: Sequence[Floats]) -> list[dict[str, Tensor]]:
            names = [value.name for value in session.get_outputs()]
            return [
                dict(zip(names, session.run(None, {TAIL_INPUT: value, **sides}), strict=True))
                for value, sides in zip(sent, self._inputs.sides, strict=True)
            ]

        parts = [part.tensor for part in found.float32.tensors]
        made = [_joined([values[part] for part in parts]) for values in float_values]
        pair = PairedCut(
            name=_size_of(found.wire),
            onnx=found.onnx,
            float32=found.float32,
            int8=None,
            float_wire=found.wire,
            work=found.work,
            value_error=found.error,
            answer_error=_worst_error(finished(made), self._answers),
        )
        if int8 is None:
            return pair
        grid, real = _calibrated(int8, found.wire, int8_values)
        snr_db = signal_to_noise_db(np.concatenate(real), np.concatenate(made))
        if snr_db < self._limits.int8_snr_db:
            return replace(pair, int8_snr_db=snr_db)
        answer = self._large.answer
        hits = [
            given[answer].argmax(axis=-1) == wanted[answer].argmax(axis=-1)
            for given, wanted in zip(finished(real), self._answers, strict=True)
        ]
        agreement = float(np.mean(hits))
        return replace(
            pair, int8=int8, int8_grid=grid, int8_snr_db=snr_db, int8_agreement=agreement
        )


def _size_of(wire: Wire) -> str:
    """The shape, or how many tensors of how many elements together."""
    sizes = "x".join(map(str, wire.shape))
    return f"{sizes}in{len(wire.parts)}" if wire.parts else sizes


def _joined(values: Sequence[Tensor]) -> Floats:
    """One item as it crosses the link: a tensor as it is, several flat, one after the other."""
    if len(values) == 1:
        return np.asarray(values[0], np.float32)
    return np.concatenate([np.asarray(each, np.float32).reshape(1, -1) for each in values], axis=1)


def _calibrated(
    int8: TfliteCut, wire: Wire, values: Sequence[Mapping[int, Tensor]]
) -> tuple[Wire, list[Floats]]:
    """The wire with each part's int8 grid, and the real values that cross it."""
    wires: list[Wire] = []
    real: list[list[Floats]] = [[] for _ in values]
    for part, own in zip(int8.tensors, wire.parts or (wire,), strict=True):
        seen = [each[part.tensor] for each in values]
        scale, zero_point = part.scale, part.zero_point
        if scale is None or zero_point is None:
            scale, zero_point = grid_of(seen)
        wires.append(replace(own, scale=scale, zero_point=zero_point))
        seen = [on_grid(each, wires[-1]) for each in seen]
        for item, each in zip(real, seen, strict=True):
            item.append(dequantize(each, scale=scale, zero_point=zero_point))
    return Wire.joined(wires), [_joined(each) for each in real]


def as_sent(outputs: Sequence[Tensor], wire: Wire) -> npt.NDArray[np.int8]:
    """A head's outputs for one picture as they cross an int8 wire."""
    owns = wire.parts or (wire,)
    parts = [on_grid(output, own) for output, own in zip(outputs, owns, strict=True)]
    if not wire.parts:
        return parts[0]
    return np.concatenate([part.reshape(1, -1) for part in parts], axis=1)


def grid_of(values: Sequence[Tensor]) -> tuple[float, int]:
    """Scale and zero point of int8 for all that was seen, zero among it, however small it is.

    >>> grid_of([np.array([-1.0, 1.55])]), grid_of([np.array([0.0, 5.1e-9])])
    ((0.01, -28), (2e-11, -128))
    """
    low = min(0.0, *(float(each.min()) for each in values))
    high = max(0.0, *(float(each.max()) for each in values))
    scale = float(f"{np.float32((high - low) / 255):.7g}") or 1.0
    return scale, int(np.clip(round(-128 - low / scale), -128, 127))


def _worst_error(
    given: Sequence[Mapping[str, Tensor]], wanted: Sequence[Mapping[str, Tensor]]
) -> float:
    return max(
        relative_error(made[name], value)
        for made, values in zip(given, wanted, strict=True)
        for name, value in values.items()
    )


def signal_to_noise_db(values: Tensor, reference: Tensor) -> float:
    """10 log10 of the reference's power over the difference's.

    >>> round(signal_to_noise_db(np.array([1.1, 0.9]), np.array([1.0, 1.0])), 6)
    20.0
    """
    wanted = np.asarray(reference, np.float64)
    noise = float(np.sum((np.asarray(values, np.float64) - wanted) ** 2))
    power = float(np.sum(wanted**2))
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(power / noise)) if power > 0 else float("-inf")


def dequantize(values: Tensor, *, scale: float, zero_point: int) -> Floats:
    """Real values, float32, of int8 ones: scale * (value - zero_point)."""
    return (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
