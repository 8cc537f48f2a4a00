"""The cloud's figures as the Open Inference Protocol's statistics extension tells them."""

from typing import Any

from ..shared.errors import UnknownModel
from .inference import Inference
from .statistics import BatchFigures, Durations, ModelFigures


def model_statistics(inference: Inference, *, name: str, version: str) -> dict[str, Any]:
    """The fields of ModelStatisticsResponse; UnknownModel for a model that is not served.

    `compute_input` is decoding, `compute_output` what remains of the total beside waiting and
    computing. Steps count answered requests; batches count executions by their size.
    """
    repository = inference.repository
    if name:
        models = [repository.model(name, version)] if version else [*repository.versions(name)]
    elif version:
        raise UnknownModel(f"version {version!r} of no model")
    else:
        models = [*repository]
    return {
        "model_stats": [
            {
                "name": model.name,
                "version": model.version,
                **_figures(inference.statistics.of(model.name, model.version)),
            }
            for model in models
        ]
    }


def _figures(figures: ModelFigures) -> dict[str, Any]:
    answered = figures.codes["OK"]
    told_s = figures.queue.sum_s + figures.decode.sum_s + figures.compute.sum_s
    return {
        "last_inference": int(figures.last_inference_s * 1e3),
        "inference_count": figures.items,
        "execution_count": sum(batch.count for batch in figures.batches.values()),
        "inference_stats": {
            "success": _sum(figures.total),
            "fail": _duration(figures.codes.total() - answered, figures.failed_s),
            "queue": _sum(figures.queue),
            "compute_input": _sum(figures.decode),
            "compute_infer": _sum(figures.compute),
            "compute_output": _duration(answered, figures.total.sum_s - told_s),
        },
        "batch_stats": [_batch(size, batch) for size, batch in sorted(figures.batches.items())],
    }


def _batch(size: int, batch: BatchFigures) -> dict[str, Any]:
    return {
        "batch_size": size,
        "compute_input": _duration(batch.count, batch.decode_s),
        "compute_infer": _duration(batch.count, batch.compute_s),
    }


def _sum(durations: Durations) -> dict[str, int]:
    return _duration(durations.count, durations.sum_s)


def _duration(count: int, took_s: float) -> dict[str, int]:
    return {"count": count, "ns": max(0, round(took_s * 1e9))}
