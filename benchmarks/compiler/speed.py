"""Int8 heads against float heads: whole heads in turns, operators one by one."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from hybridge.cloud.compiler.quantization.exclusions import OperatorTime, time_operators
from hybridge.cloud.compiler.quantization.operators import kind_of
from hybridge.cloud.compiler.tflite_graph import save
from hybridge.devices.models import DeviceModels
from hybridge.shared.bundle import Bundle
from hybridge.shared.manifest import Precision

_WARM_UP = 3
_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")


@dataclass(frozen=True)
class HeadTimes:
    """One cut's heads on one thread, run in turns; ms of processor time, whatever else runs.

    From the large model's pixels to the tensors of the cut, as a device runs them.
    """

    cut: str
    int8_ms: list[float]
    float32_ms: list[float]

    @property
    def speedup(self) -> float:
        """How many times faster int8 is, in medians."""
        return statistics.median(self.float32_ms) / statistics.median(self.int8_ms)


def time_heads(bundle: Bundle, *, rounds: int) -> list[HeadTimes]:
    """Every cut's heads, the shallow ones first."""
    large, models = bundle.manifest.large, DeviceModels(bundle)
    size_px = large.preprocessing.spec.size_px
    noise = np.random.default_rng(0).integers(0, 256, (size_px, size_px, 3), np.uint8)
    made = []
    for cut in large.cuts:
        runs = [
            partial(models.head_outputs, cut.name, precision, noise)
            for precision in (Precision.INT8, Precision.FLOAT32)
        ]
        times: tuple[list[float], list[float]] = ([], [])
        for number in range(_WARM_UP + rounds):
            for run, kept in zip(runs, times, strict=True):
                start_ns = time.thread_time_ns()
                run()
                if number >= _WARM_UP:
                    kept.append((time.thread_time_ns() - start_ns) / 1e6)
        made.append(HeadTimes(cut.name, *times))
    return made


def operator_times(bundle: Bundle) -> list[OperatorTime]:
    """Every int8 operator of the deepest head beside its float twin, alone, in turns."""
    large = bundle.manifest.large
    if not large.cuts:
        return []
    deepest = large.cuts[-1]
    int8, float32 = (
        _alone(bundle.read(large.head_files[precision]), deepest.heads[precision])
        for precision in (Precision.INT8, Precision.FLOAT32)
    )
    return time_operators(float32, int8)


def slower(times: Sequence[OperatorTime], *, margin: float) -> list[OperatorTime]:
    """Those that take more than `margin` times as long in int8 as in float."""
    return [each for each in times if each.int8_ms > margin * each.float32_ms]


def _alone(heads: bytes, signature: str) -> bytes:
    """One signature of a file of heads as a file of its own."""
    tree = schema.ModelT.InitFromPackedBuf(heads, 0)
    (kept,) = (each for each in tree.signatureDefs if each.signatureKey.decode() == signature)
    tree.subgraphs = [tree.subgraphs[kept.subgraphIndex]]
    kept.subgraphIndex = 0
    tree.signatureDefs = [kept]
    _name_by_order(tree)
    return save(tree)


def _name_by_order(tree: Any) -> None:
    """Heads have no tensor names; the n-th operator of both computes the same tensor."""
    (graph,) = tree.subgraphs
    for position, tensor in enumerate(graph.tensors):
        tensor.name = f"tensor {position}".encode()
    computing = [each for each in graph.operators if kind_of(tree, each) not in _CONVERSIONS]
    for number, operator in enumerate(computing):
        name = f"{number} {kind_of(tree, operator)}"
        graph.tensors[operator.outputs[0]].name = name.encode()
