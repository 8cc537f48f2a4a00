"""The nodes of a graph as steps over named tensors."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

from onnx import NodeProto
from torch import Tensor

from .call import Call, Constant
from .operators import OPERATORS, Operator

_ONNX_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class Step:
    """A node: where its tensors come from (None: not given) and what is not needed after it."""

    operator: Operator
    call: Call
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    dead: tuple[str, ...] = ()


def run_step(step: Step, values: dict[str, Tensor]) -> None:
    """Adds what a step makes to the values, and drops what nothing needs any more."""
    given = [None if name is None else values[name] for name in step.inputs]
    made = step.operator.run(step.call, *given)
    values.update(zip(step.outputs, made if isinstance(made, tuple) else (made,), strict=True))
    for name in step.dead:
        values.pop(name, None)


def step_of(
    node: NodeProto,
    constants: Mapping[str, Constant],
    operators: Mapping[str, Operator] = OPERATORS,
) -> Step:
    """BuildError if the operator is not in the table or takes data where a constant must be."""
    call = Call.of(node, constants)
    operator = operators.get(node.op_type)
    if operator is None or node.domain not in _ONNX_DOMAINS:
        raise call.unsupported("cannot run on a device")
    for index in operator.static:
        if index < len(node.input) and node.input[index] and call.constant(index) is None:
            raise call.unsupported(f"takes input {index} from data")
    inputs = [name or None for i, name in enumerate(node.input) if i not in operator.static]
    while inputs and inputs[-1] is None:
        inputs.pop()
    outputs = tuple(node.output)
    while len(outputs) > 1 and not outputs[-1]:
        outputs = outputs[:-1]
    return Step(operator, call, tuple(inputs), outputs)


def with_deaths(steps: Sequence[Step], *, keep: Container[str]) -> list[Step]:
    """Steps that drop what none after them reads."""
    last = {name: index for index, step in enumerate(steps) for name in step.inputs}
    dead: dict[int, list[str]] = {}
    for name, index in last.items():
        if name is not None and name not in keep:
            dead.setdefault(index, []).append(name)
    return [replace(step, dead=tuple(dead.get(index, ()))) for index, step in enumerate(steps)]
