"""One node of an ONNX graph as the functions that run it in torch see it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, helper

from ...shared.errors import BuildError

Constant = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Call:
    """A node's attributes, and the values of those inputs that are constants."""

    operator: str
    tensor: str
    outputs: int
    attributes: Mapping[str, Any] = field(repr=False)
    constants: tuple[Constant | None, ...] = field(repr=False)

    @classmethod
    def of(cls, node: NodeProto, constants: Mapping[str, Constant]) -> "Call":
        return cls(
            operator=node.op_type,
            tensor=node.output[0],
            outputs=len(node.output),
            attributes={a.name: helper.get_attribute_value(a) for a in node.attribute},
            constants=tuple(constants.get(name) for name in node.input),
        )

    def constant(self, index: int) -> Constant | None:
        """The value of an input that is a constant; None if it is none, or not there."""
        return self.constants[index] if index < len(self.constants) else None

    def integer(self, name: str, default: int) -> int:
        return int(self.attributes.get(name, default))

    def number(self, name: str, default: float) -> float:
        return float(self.attributes.get(name, default))

    def text(self, name: str, default: str) -> str:
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else str(value)

    def integers(self, name: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        return tuple(int(value) for value in self.attributes.get(name, default))

    def integers_at(self, index: int, name: str = "") -> tuple[int, ...] | None:
        """Integers that newer opsets take as an input and older ones as an attribute."""
        value = self.constant(index)
        if value is not None:
            return tuple(int(item) for item in np.atleast_1d(value))
        return self.integers(name) if name in self.attributes else None

    def number_at(self, index: int) -> float | None:
        """An optional scalar input."""
        value = self.constant(index)
        return None if value is None or value.size == 0 else float(value.reshape(-1)[0])

    def unsupported(self, what: str) -> BuildError:
        """The error that ends a road at this node."""
        return BuildError(f"operator {self.operator} ({self.tensor!r}) {what}")
