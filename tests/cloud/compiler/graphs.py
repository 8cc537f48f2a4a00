"""Running ONNX graphs in tests."""

import numpy as np
import onnxruntime
from onnx import ModelProto

from hybridge.cloud.compiler.litert import Tensor


def run(model: ModelProto, tensor: Tensor) -> Tensor:
    """The one output for the one input."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    output: Tensor = session.run(
        None, {session.get_inputs()[0].name: np.ascontiguousarray(tensor)}
    )[0]
    return output
