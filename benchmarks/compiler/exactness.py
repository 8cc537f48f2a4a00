"""Float head and float tail of every cut in a bundle, one after the other, against the whole."""

from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto

from hybridge.cloud.compiler.litert import relative_error
from hybridge.cloud.compiler.pictures import Pixels
from hybridge.cloud.weights import SessionSettings, Weights, open_session
from hybridge.devices.litert import runtime
from hybridge.devices.models import DeviceModels
from hybridge.shared.bundle import Bundle
from hybridge.shared.manifest import Precision
from hybridge.shared.tensor import Array


def composition_errors(bundle: Bundle, pictures: list[Pixels]) -> dict[str, float]:
    """By cut: the largest difference from the whole's answers, over the largest answer."""
    large = bundle.manifest.large
    weights = Weights.from_file(bundle.file(large.weights), table=bundle.read(large.weights_index))
    models = DeviceModels(bundle)
    pixels = [models.resize_large(picture) for picture in pictures]
    whole = open_session(bundle.read(large.whole), weights=weights, settings=SessionSettings())
    wanted = np.concatenate([_run(whole, each) for each in pixels])
    normalize = _Signature(bundle.file(large.preprocessing.blob), "normalize")
    errors: dict[str, float] = {}
    for cut in large.cuts:
        head = _Signature(
            bundle.file(large.head_files[Precision.FLOAT32]), cut.heads[Precision.FLOAT32]
        )
        tail = open_session(
            _with_float_wire(onnx.load_from_string(bundle.read(cut.tail))), weights=weights
        )
        answers = []
        for each in pixels:
            parts = head.run(normalize.run(each[None])[0])
            sent = parts[0][0] if len(parts) == 1 else np.concatenate([p.ravel() for p in parts])
            answers.append(_run(tail, sent))
        errors[cut.name] = relative_error(np.concatenate(answers), wanted)
    return errors


def _with_float_wire(tail: ModelProto) -> bytes:
    """The tail as it is, but for the int8 grid at its front: its input is float."""
    for node in tail.graph.node:
        if node.op_type == "DequantizeLinear":
            del node.input[1:]
            node.op_type = "Identity"
    tail.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    return bytes(tail.SerializeToString())


def _run(session: Any, tensor: Array) -> Array:
    output: Array = session.run(None, {session.get_inputs()[0].name: tensor[None]})[0]
    return output


class _Signature:
    """One signature of a TFLite file, with one input and any number of outputs."""

    def __init__(self, file: Any, name: str) -> None:
        self._interpreter = runtime().interpreter(model_path=str(file), num_threads=1)
        self._runner = self._interpreter.get_signature_runner(name)
        (self._input,) = self._runner.get_input_details()

    def run(self, tensor: Array) -> list[Array]:
        outputs = self._runner(**{self._input: tensor})
        return [outputs[name] for name in sorted(outputs)]
