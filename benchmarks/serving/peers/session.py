"""What every peer runs: one ONNX Runtime session on one core. Nothing of ours is imported here.

    peer.py MODEL.onnx DATATYPE N,H,W,C

Each is set up as its own documentation says for a model on two cores, and prints its port when it
listens. They run under an interpreter of their own, since what they need disagrees.
"""

import os
import socket
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

_DTYPES = {"UINT8": np.uint8, "FP32": np.float32}
CORES = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Arguments:
    """What a peer is told."""

    model: str
    datatype: str
    shape: tuple[int, ...]

    @classmethod
    def read(cls) -> "Arguments":
        model, datatype, shape = sys.argv[1:4]
        return cls(model, datatype, tuple(int(size) for size in shape.split(",")))

    def array(self, raw: bytes) -> "np.ndarray[Any, Any]":
        """The one input of a request."""
        return np.frombuffer(raw, _DTYPES[self.datatype]).reshape(self.shape)


class Session:
    """The model, on one core."""

    def __init__(self, model: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        self._name = self._session.get_inputs()[0].name

    def run(self, array: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
        (answer,) = self._session.run(None, {self._name: array})
        return answer


def free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def announce(port: int) -> None:
    """Tells the benchmark where to send requests; from then on the output is not read."""
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
