"""The large model's graph as a report sees it: operators, and their work."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, slots=True)
class Operator:
    """One node: what it does, the tensors it reads and makes, and what it costs.

    `reads` are tensors that depend on the input; weights count as `parameters`. `shape` is that of
    the first output without the batch, as in the ONNX file; empty where it is not known.
    """

    name: str
    detail: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    shape: tuple[int, ...] = ()
    multiply_adds: int = 0
    parameters: int = 0

    @property
    def words(self) -> str:
        return f"{self.name} {self.detail}".rstrip()


@dataclass(frozen=True)
class Graph:
    """Operators in an order in which they can run."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operators: tuple[Operator, ...]

    @cached_property
    def multiply_adds(self) -> int:
        return sum(operator.multiply_adds for operator in self.operators)

    @cached_property
    def made_by(self) -> dict[str, int]:
        """By tensor, the operator that makes it."""
        return {name: at for at, each in enumerate(self.operators) for name in each.writes}

    @cached_property
    def last_use(self) -> dict[str, int]:
        """By tensor, the last operator that reads it; the model's outputs are read after all."""
        used = {name: at for at, each in enumerate(self.operators) for name in each.reads}
        return used | dict.fromkeys(self.outputs, len(self.operators))

    def position(self, tensors: Sequence[str]) -> int | None:
        """The operator after which all these tensors are there; None if one is not in the graph."""
        found = [self.made_by[name] for name in tensors if name in self.made_by]
        return max(found) if found and len(found) == len(tensors) else None

    def work_before(self, tensors: Sequence[str]) -> float | None:
        """The share of multiply-adds that these tensors depend on, 0 to 1."""
        if self.position(tensors) is None or not self.multiply_adds:
            return None
        needed, spent = set(tensors), 0
        for operator in reversed(self.operators):
            if needed.intersection(operator.writes):
                spent += operator.multiply_adds
                needed.update(operator.reads)
        return spent / self.multiply_adds
