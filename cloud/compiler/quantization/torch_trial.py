"""What torch makes of a float ONNX model in another precision: its answers, its time, its size."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from onnx import ModelProto

from ....devices.profile import StageTime, summarize
from ....shared.errors import BuildError, BundleError
from ....shared.manifest import Precision
from ....shared.tensor import Array
from ...weights import Weights
from ..apart import counted_apart
from ..external import externalize
from ..litert import Floats
from ..progress import Count, counted
from .timing import interleaved

_WHOLE = "whole"
_ROUNDS = 7


@dataclass(frozen=True)
class TorchTrial:
    """Answers [n, classes] to real inputs, one run on one thread, and the bytes of the weights."""

    answers: Floats
    time: StageTime
    bytes: int


def torch_trial(
    model: ModelProto,
    precision: Precision,
    feeds: Sequence[Mapping[str, Array]],
    *,
    count: Count,
) -> TorchTrial:
    """Runs a model as a cloud's torch would; BuildError if torch lacks one of its operators."""
    parts = externalize({_WHOLE: model})
    with tempfile.NamedTemporaryFile(prefix="hybridge-weights-") as file:
        Path(file.name).write_bytes(parts.weights)
        return counted_apart(
            "torch",
            count,
            _run,
            file.name,
            parts.graphs[_WHOLE],
            parts.table,
            precision,
            list(feeds),
        )


def _run(
    count: Count,
    file: str,
    graph: bytes,
    table: bytes,
    precision: Precision,
    feeds: Sequence[Mapping[str, Array]],
) -> TorchTrial:
    import torch

    from ...torch_graph.backend import torch_weights
    from ...torch_graph.program import Program
    from ...torch_graph.weights import borrowed

    weights = torch_weights(
        Weights.from_file(Path(file), table=table), precision=precision, on_cpu=True
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        program = Program(graph, weights=weights)
        fed = [{name: borrowed(array) for name, array in feed.items()} for feed in feeds]
        answer = program.outputs[0]
        answers = [program.run(each)[answer].numpy() for each in counted(fed, count)]
        runs = interleaved({_WHOLE: partial(program.run, fed[0])}, rounds=_ROUNDS)
    except BundleError as error:
        raise BuildError(str(error)) from error
    finally:
        torch.set_num_threads(threads)
    return TorchTrial(
        np.concatenate(answers).astype(np.float32), summarize(runs[_WHOLE]), weights.bytes
    )
