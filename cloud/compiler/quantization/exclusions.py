"""Which operators stay in float: those that int8 makes slower, and those that it makes wrong.

Nothing here knows an operator's name. Times are those of single operators against their float
twins on the same tensors, in turns. The margin of a decision by time lies where no operator was
seen, so that the same machine decides the same way every time.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..litert import Floats
from ..progress import Count, counted, uncounted
from ..tflite_graph import load
from .operators import Twins, kind_of, runner, twins
from .ranges import each_activation
from .timing import interleaved_ms

MARGIN = 1.06
"""Where an operator counted, it took 0.98 of its twin's time at most, or 1.12 and more: seen in
EfficientNet-Lite0, ResNet-50, MobileNetV3 and a static DenseNet-121, a few rounds each."""
_WORTH, _WORTH_ALONE = 0.005, 0.04
"""What a kind and what a single operator has to waste of the model's time. Single convolutions of
dynamic int8 models wasted 0.3 to 1.9 %, in every measurement others."""
_WORTH_MS = 0.01
"""What has to be wasted at all: below that is mostly overhead."""


@dataclass(frozen=True)
class OperatorTime:
    """One operator in int8 and as its float twin between conversions; ms."""

    kind: str
    name: str
    int8_ms: float
    float32_ms: float


def time_operators(
    float_model: bytes, int8_model: bytes, *, count: Count = uncounted
) -> list[OperatorTime]:
    """Every int8 operator against its float twin; of the same shapes one is measured."""
    measured: dict[str, tuple[float, float]] = {}
    times: list[OperatorTime] = []
    for each in twins(float_model, int8_model, count=count):
        if each.shape not in measured:
            measured[each.shape] = _measure(each)
        times.append(OperatorTime(each.kind, each.name, *measured[each.shape]))
    return times


def slower_in_int8(
    float_model: bytes, int8_model: bytes, *, count: Count = uncounted
) -> frozenset[str]:
    """Names of the operators to leave in float because int8 loses time; slow twice, or not at all.

    A verdict is part of what a bundle is, and must not hang on one busy moment.
    """
    found = slow_operators(time_operators(float_model, int8_model, count=count))
    return found and found & slow_operators(time_operators(float_model, int8_model, count=count))


def wasted_ms(times: Sequence[OperatorTime]) -> float:
    """What int8 loses where it loses."""
    return sum(max(0.0, each.int8_ms - each.float32_ms) for each in times)


def slow_operators(times: Sequence[OperatorTime]) -> frozenset[str]:
    """Names of the operators to leave in float: whole kinds, then single ones, that lose time."""
    total_ms = sum(min(each.int8_ms, each.float32_ms) for each in times)
    by_kind: dict[str, list[OperatorTime]] = defaultdict(list)
    for each in times:
        by_kind[each.kind].append(each)
    slow = {
        each.name
        for group in by_kind.values()
        if _loses(group, worth_ms=_WORTH * total_ms)
        for each in group
    }
    return frozenset(
        slow | {e.name for e in times if _loses([e], worth_ms=_WORTH_ALONE * total_ms)}
    )


def fragile_operators(
    float_model: bytes,
    *,
    quantized: Callable[[frozenset[str]], bytes],
    quality_db: Callable[[bytes], float],
    tensors: Sequence[Floats],
    kept: frozenset[str],
    most: int = 4,
    gain_db: float = 3.0,
    count: Count = uncounted,
) -> frozenset[str]:
    """`kept`, and the operators that cost the most accuracy in int8, as far as that helps.

    Operators are ranked by how much noise each adds by itself. One is left in float together with
    those that read it, which would quantize its output otherwise, and only if the answers'
    signal-to-noise ratio rises by `gain_db`; the search ends at the first that fails.
    """
    best = quality_db(quantized(kept))
    readers = _readers(float_model)
    noisiest = _noisiest(float_model, quantized(kept), tensors)[:most]
    for name in counted(noisiest, count):
        candidate = kept | {name} | readers.get(name, set())
        found = quality_db(quantized(candidate))
        if found < best + gain_db:
            break
        kept, best = candidate, found
    return kept


def _measure(each: Twins) -> tuple[float, float]:
    times_ms = interleaved_ms(
        {"int8": runner(each.int8), "float32": runner(each.float32)}, rounds=9
    )
    return times_ms["int8"], times_ms["float32"]


def _loses(group: Sequence[OperatorTime], *, worth_ms: float) -> bool:
    int8_ms = sum(each.int8_ms for each in group)
    float32_ms = sum(each.float32_ms for each in group)
    wasted_ms = int8_ms - float32_ms
    return int8_ms > MARGIN * float32_ms and wasted_ms > max(worth_ms, _WORTH_MS)


def kinds_of(model: bytes, names: frozenset[str]) -> tuple[str, ...]:
    """What a report calls these operators: a kind that is there whole by its name alone.

    A kind of which only a part is meant gets the count, such as `CONV_2D (2 of 53)`.
    """
    tree = load(model)
    (graph,) = tree.subgraphs
    everything: dict[str, list[str]] = defaultdict(list)
    for operator in graph.operators:
        everything[kind_of(tree, operator)].append(
            graph.tensors[int(operator.outputs[0])].name.decode()
        )
    said: list[str] = []
    for kind, there in sorted(everything.items()):
        meant = sum(name in names for name in there)
        if meant:
            said.append(kind if meant == len(there) else f"{kind} ({meant} of {len(there)})")
    return tuple(said)


def _readers(model: bytes) -> dict[str, set[str]]:
    """The operators that read each operator's first output, by name."""
    (graph,) = load(model).subgraphs
    names = [tensor.name.decode() for tensor in graph.tensors]
    found: dict[str, set[str]] = defaultdict(set)
    for operator in graph.operators:
        for at in operator.inputs:
            if int(at) >= 0:
                found[names[int(at)]].add(names[int(operator.outputs[0])])
    return found


def _noisiest(float_model: bytes, int8_model: bytes, tensors: Sequence[Floats]) -> list[str]:
    """Operators by the noise they add over that of their inputs, the noisiest first."""
    noise = _noise(float_model, int8_model, tensors)
    tree = load(float_model)
    (graph,) = tree.subgraphs
    names = [tensor.name.decode() for tensor in graph.tensors]
    added: dict[str, float] = {}
    for operator in graph.operators:
        output = names[int(operator.outputs[0])]
        inputs = [names[int(at)] for at in operator.inputs if int(at) >= 0]
        before = max((noise[name] for name in inputs if name in noise), default=0.0)
        if output in noise:
            added[output] = noise[output] - before
    return sorted((n for n in added if added[n] > 0), key=lambda name: (-added[name], name))


def _noise(float_model: bytes, int8_model: bytes, tensors: Sequence[Floats]) -> dict[str, float]:
    """By activation, the power of what int8 adds over that of the float value.

    One input at a time: all activations of a large model are a multiple of its weights.
    """
    power: dict[str, float] = defaultdict(float)
    added: dict[str, float] = defaultdict(float)
    for tensor in tensors:
        wanted: dict[str, Floats] = {}
        each_activation(float_model, [tensor], wanted.__setitem__)
        each_activation(int8_model, [tensor], partial(_compare, wanted, power, added))
    return {name: added[name] / max(power[name], 1e-30) for name in power}


def _compare(
    wanted: dict[str, Floats],
    power: dict[str, float],
    added: dict[str, float],
    name: str,
    made: Floats,
) -> None:
    values = wanted.pop(name, None)
    if values is not None and values.shape == made.shape and np.isfinite(values).all():
        power[name] += float(np.sum(values**2))
        added[name] += float(np.sum((made - values) ** 2))
