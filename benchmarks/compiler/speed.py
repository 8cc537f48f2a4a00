"""Int8 heads against float heads: whole heads in turns, operators one by one."""

import statistics
import time
from collections.abc import Callable, Sequence
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

_TURN = 20
_SETTLING = 10
"""An EfficientNet-Lite0 after a float turn, run by run: 2.17, 2.07, 2.02, 2.00, 1.96, 1.96, ... ms,
and from the ninth on 1.93. A loop of scalar code is then slower too, by 5 %: float kernels lower
the core's clock. Reading 8 MB before, which no second-level cache holds, costs 3 % alone."""
_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")


@dataclass(frozen=True)
class HeadTimes:
    """One cut's heads on one thread; ms of processor time, whatever else runs.

    From the large model's pixels to the tensors of the cut, as a device runs them. They take turns
    of many runs each: in the first the clock is the other's and so are the caches (`cold`), the
    last ones are those of a head that runs picture after picture.
    """

    cut: str
    int8_ms: list[float]
    float32_ms: list[float]
    int8_cold_ms: list[float]
    float32_cold_ms: list[float]

    @property
    def speedup(self) -> float:
        """How many times faster int8 is, in medians."""
        return statistics.median(self.float32_ms) / statistics.median(self.int8_ms)

    @property
    def cold_speedup(self) -> float:
        """The same of the first run of each turn."""
        return statistics.median(self.float32_cold_ms) / statistics.median(self.int8_cold_ms)


def time_heads(bundle: Bundle, *, rounds: int) -> list[HeadTimes]:
    """Every cut's heads, the shallow ones first."""
    large, models = bundle.manifest.large, DeviceModels(bundle)
    size_px = large.preprocessing.spec.size_px
    noise = np.random.default_rng(0).integers(0, 256, (size_px, size_px, 3), np.uint8)
    made = []
    for cut in large.cuts:
        int8, float32 = (
            partial(models.head_outputs, cut.name, precision, noise)
            for precision in (Precision.INT8, Precision.FLOAT32)
        )
        for run in (int8, float32):
            run()  # loads it
        turns = [(_turn(int8), _turn(float32)) for _ in range(rounds)]
        made.append(
            HeadTimes(
                cut=cut.name,
                int8_ms=[each for own, _ in turns for each in own[_SETTLING:]],
                float32_ms=[each for _, own in turns for each in own[_SETTLING:]],
                int8_cold_ms=[own[0] for own, _ in turns],
                float32_cold_ms=[own[0] for _, own in turns],
            )
        )
    return made


def _turn(run: Callable[[], object]) -> list[float]:
    times_ms = []
    for _ in range(_TURN):
        start_ns = time.thread_time_ns()
        run()
        times_ms.append((time.thread_time_ns() - start_ns) / 1e6)
    return times_ms


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
