"""Which TFLite tensor is which ONNX tensor: decided by their values on real inputs.

Names, layouts and fusions differ between the two graphs of one model; values do not. A pair is kept
only if head and tail, run one after the other, give the whole model's answer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import ModelProto

from ...shared.errors import BuildError
from .litert import Floats, Runner, Tensor, relative_error
from .onnx_graph import (
    TAIL_INPUT,
    OnnxCut,
    Wire,
    extract_tail,
    find_cuts,
    input_of,
    with_outputs,
)
from .tflite_graph import TfliteCut, pack_heads
from .tflite_graph import find_cuts as find_tflite_cuts

_HEAD = "head"


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

    `name` holds the position from the input on and the shape. `answer_error` is that of float head
    and float tail against the whole ONNX model; `int8_agreement` the share of inputs on which int8
    head and tail choose the whole model's class. Without an int8 model, or where its tensor is too
    far from the float one, `int8` and the last two are None.
    """

    name: str
    onnx: OnnxCut
    float32: TfliteCut
    int8: TfliteCut | None
    shape: tuple[int, ...]
    channels_first: bool
    value_error: float
    answer_error: float
    int8_snr_db: float | None
    int8_agreement: float | None

    @property
    def elements(self) -> int:
        return int(np.prod(self.shape))

    @property
    def float_wire(self) -> Wire:
        return Wire(shape=self.shape, channels_first=self.channels_first)

    @property
    def int8_wire(self) -> Wire:
        """What the int8 head sends; BuildError if this cut has none."""
        if self.int8 is None:
            raise BuildError(f"cut {self.name} has no int8 head")
        return Wire(
            shape=self.shape,
            channels_first=self.channels_first,
            scale=self.int8.scale,
            zero_point=self.int8.zero_point,
        )


def pair_cuts(
    model: ModelProto,
    *,
    float_model: bytes,
    int8_model: bytes | None,
    tensors: Sequence[Floats],
    limits: Limits | None = None,
    whole: bool = True,
) -> list[PairedCut]:
    """The cuts a TFLite model and an ONNX model have in common, from the input on.

    `tensors` are real inputs, float32 [1, h, w, c]; two or three tell tensors apart, more make
    `int8_agreement` finer. A float cut pairs with the int8 cut of the same tensor name if its
    values agree too. BuildError if the two models give different answers; a TFLite model that is
    not `whole` ends earlier and gives none.
    """
    if not tensors:
        raise BuildError("pairing needs real inputs")
    limits = limits or Limits()
    onnx_cuts = find_cuts(model)
    values, answers = _onnx_values(model, onnx_cuts, tensors)
    if whole:
        _check_whole(float_model, tensors=tensors, answers=answers, limits=limits)
    int8_cuts = {cut.name: cut for cut in find_tflite_cuts(int8_model)} if int8_model else {}
    pairs: list[PairedCut] = []
    for cut in find_tflite_cuts(float_model):
        made = _run_head(float_model, cut, tensors)
        match = _match(made, onnx_cuts, values, limits=limits)
        # TFLite may hold one ONNX tensor twice, transposed: the earlier head is the shorter one.
        if match is None or any(pair.onnx == match[0] for pair in pairs):
            continue
        onnx_cut, channels_first, value_error = match
        wire = Wire(shape=cut.shape, channels_first=channels_first)
        finished = _run_tail(model, onnx_cut, wire, made)
        answer_error = relative_error(finished, answers)
        if answer_error > limits.answer_error:
            continue
        int8_cut, snr_db, agreement = int8_cuts.get(cut.name), None, None
        if int8_model is not None and int8_cut is not None:
            int8_cut, snr_db, agreement = _check_int8(
                int8_model,
                int8_cut,
                tail=(model, onnx_cut, wire),
                tensors=tensors,
                wanted=(made, answers),
                limits=limits,
            )
        size = "x".join(map(str, cut.shape))
        pairs.append(
            PairedCut(
                name=f"c{len(pairs):02d}-{size}",
                onnx=onnx_cut,
                float32=cut,
                int8=int8_cut,
                shape=cut.shape,
                channels_first=channels_first,
                value_error=value_error,
                answer_error=answer_error,
                int8_snr_db=snr_db,
                int8_agreement=agreement,
            )
        )
    return pairs


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


def _match(
    made: Floats, cuts: Sequence[OnnxCut], values: Sequence[Floats], *, limits: Limits
) -> tuple[OnnxCut, bool, float] | None:
    """The ONNX cut with these values, whether its channels come first, and the error."""
    candidates: list[tuple[bool, float, int, OnnxCut, bool]] = []
    for position, (cut, wanted) in enumerate(zip(cuts, values, strict=True)):
        if wanted.size != made.size or not np.any(wanted):
            continue
        for channels_first, arranged in _arrangements(made, wanted.shape):
            error = relative_error(arranged, wanted)
            if error <= limits.value_error:
                reshaped = len(cut.shape) != made.ndim - 1
                # Of equal tensors the later one leaves the tail less to do.
                candidates.append((reshaped, error, -position, cut, channels_first))
    if not candidates:
        return None
    reshaped = min(candidate[0] for candidate in candidates)
    best = min(
        (candidate for candidate in candidates if candidate[0] == reshaped),
        key=lambda candidate: candidate[2],
    )
    return best[3], best[4], best[1]


def _arrangements(made: Floats, shape: tuple[int, ...]) -> Iterator[tuple[bool, Floats]]:
    if made.ndim == 4:
        turned = made.transpose(0, 3, 1, 2)
        if turned.shape == shape:
            yield True, turned
    yield False, made.reshape(shape)


def _check_int8(
    int8_model: bytes,
    cut: TfliteCut,
    *,
    tail: tuple[ModelProto, OnnxCut, Wire],
    tensors: Sequence[Floats],
    wanted: tuple[Floats, Floats],
    limits: Limits,
) -> tuple[TfliteCut | None, float | None, float | None]:
    """The cut with its signal-to-noise ratio and agreement, or nothing where it is too noisy."""
    if cut.dtype != "int8" or cut.scale is None or cut.zero_point is None:
        return None, None, None
    model, onnx_cut, wire = tail
    values, answers = wanted
    if cut.shape != wire.shape:
        return None, None, None
    sent = _run_head(int8_model, cut, tensors)
    real = dequantize(sent, scale=cut.scale, zero_point=cut.zero_point)
    snr_db = signal_to_noise_db(real, values)
    if snr_db < limits.int8_snr_db:
        return None, None, None
    int8_wire = Wire(
        shape=wire.shape,
        channels_first=wire.channels_first,
        scale=cut.scale,
        zero_point=cut.zero_point,
    )
    finished = _run_tail(model, onnx_cut, int8_wire, sent)
    agreement = float(np.mean(finished.argmax(axis=-1) == answers.argmax(axis=-1)))
    return cut, snr_db, agreement


def _check_whole(
    float_model: bytes, *, tensors: Sequence[Floats], answers: Floats, limits: Limits
) -> None:
    runner = Runner(float_model)
    made = np.concatenate([runner.run(tensor) for tensor in tensors])
    if made.shape != answers.shape:
        raise BuildError(f"TFLite answers {made.shape}, ONNX {answers.shape}")
    error = relative_error(made, answers)
    if error > limits.answer_error:
        raise BuildError(f"the TFLite and the ONNX model differ by {error:.1e} on real inputs")


def _run_head(model: bytes, cut: TfliteCut, tensors: Sequence[Tensor]) -> npt.NDArray[np.float32]:
    runner = Runner(pack_heads(model, {_HEAD: cut}))
    return np.concatenate([runner.run(tensor) for tensor in tensors])


def _run_tail(model: ModelProto, cut: OnnxCut, wire: Wire, sent: Tensor) -> Floats:
    session = _session(extract_tail(model, cut=cut, wire=wire))
    parts = [session.run(None, {TAIL_INPUT: item[None]})[0] for item in sent]
    return np.concatenate(parts)


def _onnx_values(
    model: ModelProto, cuts: Sequence[OnnxCut], tensors: Sequence[Floats]
) -> tuple[list[Floats], Floats]:
    """The values of every cut and the answers, each [len(tensors), ...]."""
    name, sizes = input_of(model)
    session = _session(with_outputs(model, cuts))
    runs = []
    for tensor in tensors:
        arranged = tensor if sizes[1:] == tensor.shape[1:] else tensor.transpose(0, 3, 1, 2)
        runs.append(session.run(None, {name: np.ascontiguousarray(arranged)}))
    stacked = [np.concatenate(parts) for parts in zip(*runs, strict=True)]
    return stacked[:-1], stacked[-1]


def _session(model: ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
