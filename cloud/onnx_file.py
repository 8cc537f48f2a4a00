"""An ONNX file as it is, with its weights in it or beside it."""

from collections.abc import Sequence
from pathlib import Path

import onnxruntime

from ..shared.errors import BundleError
from ..shared.side import Tensors
from .leash import file_may_loop, run_leashed
from .named import Slot, Source

_DATATYPES = {
    "bool": "BOOL",
    "float": "FP32",
    "double": "FP64",
    "float16": "FP16",
    **{
        f"{sign}int{bits}": f"{sign}INT{bits}".upper()
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
}


class OnnxFile(Source):
    """A session of it, one thread for each call."""

    def __init__(self, file: Path) -> None:
        """BundleError if ONNX Runtime refuses it, or if it has tensors that are not served."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        available = onnxruntime.get_available_providers()
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        providers = [provider for provider in wanted if provider in available]
        try:
            self._session = onnxruntime.InferenceSession(file, options, providers=providers)
        except Exception as error:  # it has a class of its own for each status, all of Exception
            raise BundleError(f"ONNX Runtime refuses {file.name}: {error}") from error
        self.device = "cuda" if "CUDAExecutionProvider" in providers else "cpu"
        self.takes = {slot.name: slot for slot in map(_slot, self._session.get_inputs())}
        self.gives = {slot.name: slot for slot in map(_slot, self._session.get_outputs())}
        self._loops = file_may_loop(file)

    def run(self, fed: Tensors, *, outputs: Sequence[str]) -> Tensors:
        if self._loops:
            made = run_leashed(self._session, list(outputs), dict(fed))
        else:
            made = self._session.run(list(outputs), dict(fed))
        return dict(zip(outputs, made, strict=True))


def _slot(value: onnxruntime.NodeArg) -> Slot:
    kind = value.type.removeprefix("tensor(").removesuffix(")")
    if kind not in _DATATYPES:
        raise BundleError(f"{value.name} is {value.type}, which is not served")
    dims = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in value.shape)
    return Slot(value.name, _DATATYPES[kind], dims)
