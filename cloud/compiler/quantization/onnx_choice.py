"""Which int8 ONNX model the tails are cut from, and the models of further precisions altogether."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import onnxruntime
from onnx import ModelProto, load_from_string

from ....devices.profile import StageTime, summarize
from ....shared.errors import BuildError
from ....shared.manifest import Precision, Quantized
from ..litert import Floats
from .compare import Candidate, Quality, Scheme, best_of, held_out, static_or_dynamic
from .onnx_models import Feeds, dynamic_int8, float16, observe_onnx, static_int8
from .ranges import Ranges
from .timing import interleaved

WHOLE = "whole"
_ROUNDS = 7
_MOST_FLOAT16 = float(np.finfo(np.float16).max)


@dataclass(frozen=True, kw_only=True)
class OnnxModel:
    """A model in a further precision, and what was tried on the way."""

    model: bytes = field(repr=False)
    tried: tuple[Quantized, ...]

    @property
    def proto(self) -> ModelProto:
        return load_from_string(self.model)


def in_precision(
    model: ModelProto,
    precision: Precision,
    feeds: Sequence[Feeds],
    *,
    kept: Collection[str] = (),
) -> OnnxModel:
    """A float32 ONNX model in another precision; `feeds` are real inputs, the answer is first.

    Every fourth calibrates nothing: on those candidates are compared. The tensors `kept`, where
    the model will be cut, are there in it.
    """
    if not feeds:
        raise BuildError("quantization needs calibration tensors")
    match precision:
        case Precision.INT8:
            return _int8(model, feeds, kept)
        case Precision.FLOAT16:
            return _float16(model, feeds)
        case Precision.FLOAT32:
            raise ValueError("the model is float32 already")


def _int8(model: ModelProto, feeds: Sequence[Feeds], kept: Collection[str]) -> OnnxModel:
    calibrating, held = held_out(feeds)
    reference = _session(model)
    wanted = _answers(reference, held)

    def candidate(made: ModelProto, scheme: Scheme, ranges: Ranges | None = None) -> Candidate:
        quality = Quality.of(_answers(_session(made), held), wanted)
        encoded = made.SerializeToString(deterministic=True)
        return Candidate(scheme=scheme, ranges=ranges, model=encoded, quality=quality)

    seen = observe_onnx(model, calibrating)
    static = [
        candidate(static_int8(model, seen, ranges=ranges, kept=kept), Scheme.STATIC, ranges)
        for ranges in Ranges
    ]
    dynamic = candidate(dynamic_int8(model), Scheme.DYNAMIC)
    best_static = best_of(static)
    sessions = {
        Scheme.STATIC: _session(load_from_string(best_static.model)),
        Scheme.DYNAMIC: _session(load_from_string(dynamic.model)),
    }
    times = _times(sessions, held[0])
    chosen = static_or_dynamic(best_static, dynamic, times)
    return OnnxModel(
        model=chosen.model,
        tried=tuple(each.record(part=WHOLE, chosen=each is chosen) for each in (*static, dynamic)),
    )


def _float16(model: ModelProto, feeds: Sequence[Feeds]) -> OnnxModel:
    """Judged on the CPU, where ONNX Runtime computes in float32 what it has no half kernel for.

    There nothing overflows, so that is judged by the values of the float model.
    """
    _, held = held_out(feeds)
    for name, seen in observe_onnx(model, held).histograms.items():
        if max(-seen.low, seen.high) > _MOST_FLOAT16:
            raise BuildError(
                f"the large model overflows in float16: {name!r} reaches "
                f"{max(-seen.low, seen.high):.3g}; leave float16 out of `tails`"
            )
    made = float16(model)
    answers, wanted = _answers(_session(made), held), _answers(_session(model), held)
    quality = Quality.of(answers, wanted)
    encoded = made.SerializeToString(deterministic=True)
    record = Quantized(
        part=WHOLE,
        precision=Precision.FLOAT16,
        method="cast",
        bytes=len(encoded),
        agreement=quality.agreement,
        snr_db=round(quality.snr_db, 1),
        chosen=True,
    )
    return OnnxModel(model=encoded, tried=(record,))


def _times(
    sessions: Mapping[Scheme, onnxruntime.InferenceSession], feed: Feeds
) -> dict[str, StageTime]:
    work = {str(name): partial(each.run, None, dict(feed)) for name, each in sessions.items()}
    return {name: summarize(runs) for name, runs in interleaved(work, rounds=_ROUNDS).items()}


def _answers(session: onnxruntime.InferenceSession, feeds: Sequence[Feeds]) -> Floats:
    (answer, *_) = (value.name for value in session.get_outputs())
    runs = [session.run([answer], dict(feed))[0] for feed in feeds]
    return np.concatenate(runs).astype(np.float32)


def _session(model: ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
