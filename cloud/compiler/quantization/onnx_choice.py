"""Which int8 ONNX model the tails are cut from, and the models of further precisions altogether."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import onnxruntime
from onnx import ModelProto, load_from_string

from ....devices.profile import StageTime, summarize
from ....shared.errors import BuildError
from ....shared.manifest import Precision, Quantized, Runtime
from ..litert import Floats
from ..progress import Count, Progress, counted, unwatched
from .compare import Candidate, Quality, Scheme, best_of, held_out, is_better, static_or_dynamic
from .onnx_models import Feeds, dynamic_int8, float16, observe_onnx, static_int8
from .ranges import Ranges
from .timing import interleaved
from .torch_trial import TorchTrial, torch_trial

WHOLE = "whole"
_CAST = "cast"
_LOOKING = "looking at activations, twice"
_BY_TORCH = "trying torch"
_ROUNDS = 7
_MOST_FLOAT16 = float(np.finfo(np.float16).max)


@dataclass(frozen=True, kw_only=True)
class OnnxModel:
    """A model in a further precision, and what was tried on the way.

    Where torch is the runtime there is no `model`: it converts the float32 one as it loads it.
    """

    model: bytes = field(repr=False)
    tried: tuple[Quantized, ...]
    runtime: Runtime = Runtime.ONNXRUNTIME

    @property
    def proto(self) -> ModelProto | None:
        return load_from_string(self.model) if self.model else None


def in_precision(
    model: ModelProto,
    precision: Precision,
    feeds: Sequence[Feeds],
    *,
    kept: Collection[str] = (),
    progress: Progress = unwatched,
) -> OnnxModel:
    """A float32 model in another precision; `feeds` are real inputs, the answer is first.

    Every fourth calibrates nothing: on those candidates are compared. The tensors `kept`, where
    the model will be cut, are there in it.
    """
    if not feeds:
        raise BuildError("quantization needs calibration tensors")
    match precision:
        case Precision.INT8:
            return _int8(model, feeds, kept, progress)
        case Precision.FLOAT16:
            return _float16(model, feeds, progress)
        case Precision.BFLOAT16:
            return _bfloat16(model, feeds, progress)
        case Precision.FLOAT32:
            raise ValueError("the model is float32 already")


def _int8(
    model: ModelProto, feeds: Sequence[Feeds], kept: Collection[str], progress: Progress
) -> OnnxModel:
    calibrating, held = held_out(feeds)
    reference = _session(model)
    wanted = _answers(reference, held)

    def candidate(made: ModelProto, scheme: Scheme, ranges: Ranges | None = None) -> Candidate:
        quality = Quality.of(_answers(_session(made), held), wanted)
        encoded = made.SerializeToString(deterministic=True)
        return Candidate(scheme=scheme, ranges=ranges, model=encoded, quality=quality)

    seen = observe_onnx(model, calibrating, count=partial(progress, _LOOKING))
    static = [
        candidate(static_int8(model, seen, ranges=ranges, kept=kept), Scheme.STATIC, ranges)
        for ranges in counted(list(Ranges), partial(progress, "trying ways to find ranges"))
    ]
    progress("without a grid for activations", 0, 0)
    dynamic = candidate(dynamic_int8(model), Scheme.DYNAMIC)
    best_static = best_of(static)
    sessions = {
        Scheme.STATIC: _session(load_from_string(best_static.model)),
        Scheme.DYNAMIC: _session(load_from_string(dynamic.model)),
    }
    times = _times(sessions, held[0])
    chosen = static_or_dynamic(best_static, dynamic, times)
    by_torch = _by_torch(model, held, partial(progress, _BY_TORCH))
    if by_torch is None:
        return _of_onnx(chosen, (*static, dynamic))
    quality = Quality.of(by_torch.answers, wanted)
    wins = is_better(
        quality,
        by_torch.time.cpu_ms,
        than=chosen.quality,
        than_ms=times[chosen.scheme].cpu_ms,
    )
    record = _torch_record(by_torch, quality, Precision.INT8, str(Scheme.DYNAMIC), chosen=wins)
    if wins:
        tried = (each.record(part=WHOLE, chosen=False) for each in (*static, dynamic))
        return OnnxModel(model=b"", tried=(*tried, record), runtime=Runtime.TORCH)
    return _of_onnx(chosen, (*static, dynamic), record)


def _of_onnx(chosen: Candidate, candidates: Sequence[Candidate], *others: Quantized) -> OnnxModel:
    tried = (each.record(part=WHOLE, chosen=each is chosen) for each in candidates)
    return OnnxModel(model=chosen.model, tried=(*tried, *others))


def _by_torch(model: ModelProto, held: Sequence[Feeds], count: Count) -> TorchTrial | None:
    """Torch's dynamic int8; None where it lacks an operator, as ONNX Runtime does not."""
    try:
        return torch_trial(model, Precision.INT8, held, count=count)
    except BuildError:
        return None


def _bfloat16(model: ModelProto, feeds: Sequence[Feeds], progress: Progress) -> OnnxModel:
    """By torch alone: ONNX Runtime has no bfloat16 kernels for CPUs."""
    _, held = held_out(feeds)
    try:
        made = torch_trial(model, Precision.BFLOAT16, held, count=partial(progress, _BY_TORCH))
    except BuildError as error:
        raise BuildError(f"{error}; leave bfloat16 out of `tails`") from error
    quality = Quality.of(made.answers, _answers(_session(model), held))
    record = _torch_record(made, quality, Precision.BFLOAT16, _CAST, chosen=True)
    return OnnxModel(model=b"", tried=(record,), runtime=Runtime.TORCH)


def _torch_record(
    made: TorchTrial, quality: Quality, precision: Precision, method: str, *, chosen: bool
) -> Quantized:
    return Quantized(
        part=WHOLE,
        precision=precision,
        method=f"{Runtime.TORCH}/{method}",
        bytes=made.bytes,
        agreement=quality.agreement,
        snr_db=round(quality.snr_db, 1),
        chosen=chosen,
    )


def _float16(model: ModelProto, feeds: Sequence[Feeds], progress: Progress) -> OnnxModel:
    """Judged on the CPU, where ONNX Runtime computes in float32 what it has no half kernel for.

    There nothing overflows, so that is judged by the values of the float model.
    """
    _, held = held_out(feeds)
    observed = observe_onnx(model, held, count=partial(progress, _LOOKING))
    for name, seen in observed.histograms.items():
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
        method=_CAST,
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
