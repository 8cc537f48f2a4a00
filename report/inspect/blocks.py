"""The graph condensed: chains of operators, and blocks of them between the cuts. Pure."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from .graph import Graph, Operator
from .lanes import LaneRow, Step, lay_out

_LONGEST_CHAIN = 8


@dataclass(frozen=True, slots=True)
class Chain:
    """Operators one after the other, with nothing coming in or leaving between them."""

    operators: tuple[Operator, ...]
    row: LaneRow

    @property
    def words(self) -> str:
        return " · ".join(operator.words for operator in self.operators)

    @property
    def shape(self) -> tuple[int, ...]:
        """What comes out."""
        return self.operators[-1].shape

    @property
    def writes(self) -> frozenset[str]:
        return frozenset(name for operator in self.operators for name in operator.writes)


@dataclass(frozen=True, slots=True)
class Block:
    """What lies between two cuts, and the cut's name at its end (empty at the model's end)."""

    chains: tuple[Chain, ...]
    cut: str
    work: float

    @property
    def operators(self) -> list[Operator]:
        return [operator for chain in self.chains for operator in chain.operators]

    @property
    def parameters(self) -> int:
        return sum(operator.parameters for operator in self.operators)

    @property
    def census(self) -> str:
        """Its commonest operators, such as `13 Conv, 13 Relu, 5 MaxPool`."""
        counts = Counter(operator.name for operator in self.operators).most_common()
        words = ", ".join(f"{count} {name}" for name, count in counts[:4])
        rest = sum(count for _, count in counts[4:])
        return f"{words}, {rest} other" if rest else words


def blocks(
    graph: Graph, cuts: Sequence[tuple[str, Sequence[str]]], *, marked: Collection[str] = ()
) -> list[Block]:
    """The model in blocks that end at the named cuts; chains end at `marked` tensors too."""
    ends: dict[int, str] = {}
    for name, tensors in cuts:
        position = graph.position(tensors)
        if position is not None:
            ends[position] = name
    groups = list(_chained(graph, breaks=ends.keys() | _positions(graph, marked)))
    rows = lay_out([_step(group) for group in groups], inputs=graph.inputs, outputs=graph.outputs)
    total = graph.multiply_adds or 1
    made: list[Block] = []
    chains: list[Chain] = []
    at = -1
    for group, row in zip(groups, rows, strict=True):
        at += len(group)
        chains.append(Chain(tuple(group), row))
        if at in ends or at == len(graph.operators) - 1:
            work = sum(operator.multiply_adds for each in chains for operator in each.operators)
            made.append(Block(tuple(chains), ends.get(at, ""), work / total))
            chains = []
    return made


def _positions(graph: Graph, tensors: Iterable[str]) -> set[int]:
    return {graph.made_by[name] for name in tensors if name in graph.made_by}


def _chained(graph: Graph, *, breaks: Collection[int]) -> Iterable[list[Operator]]:
    """Operators in their order, joined while one only passes on to the next."""
    readers = Counter(name for operator in graph.operators for name in operator.reads)
    readers.update(graph.outputs)
    group: list[Operator] = []
    for at, operator in enumerate(graph.operators):
        if group and not _joins(group, operator, readers):
            yield group
            group = []
        group.append(operator)
        if at in breaks:
            yield group
            group = []
    if group:
        yield group


def _joins(group: Sequence[Operator], operator: Operator, readers: Counter[str]) -> bool:
    before = group[-1]
    passes_on = operator.reads == before.writes and readers[before.writes[0]] == 1
    return passes_on and len(group) < _LONGEST_CHAIN and not _shrinks(group[0], operator)


def _shrinks(first: Operator, operator: Operator) -> bool:
    """A new size of picture begins a new row, so that rows tell where it happens."""
    spatial = len(first.shape) == len(operator.shape) == 3
    return spatial and first.shape[-2:] != operator.shape[-2:]


def _step(group: Sequence[Operator]) -> Step:
    return Step(reads=group[0].reads, writes=group[-1].writes)
