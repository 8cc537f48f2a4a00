"""The LiteRT (TFLite) runtime: whichever of its packages is installed, found once."""

import importlib
import importlib.metadata
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..shared.errors import ConfigError, ModelFault, TensorError
from ..shared.tensor import Array

# (module, distribution); the first that imports is used. tflite-runtime is 8 to 24 times slower on
# int8 than LiteRT and breaks with numpy 2, tensorflow is large: both are for devices that have
# nothing else.
_PACKAGES = (
    ("ai_edge_litert.interpreter", "ai-edge-litert"),
    ("tflite_runtime.interpreter", "tflite-runtime"),
    ("tensorflow.lite.python.interpreter", "tensorflow"),
)


@dataclass(frozen=True, slots=True)
class Runtime:
    """The runtime in use."""

    package: str
    version: str
    interpreter: Any


@cache
def runtime() -> Runtime:
    """The installed LiteRT runtime; ConfigError if there is none."""
    for module, package in _PACKAGES:
        try:
            interpreter = importlib.import_module(module).Interpreter
        except ImportError:
            continue
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # such as tensorflow-cpu
            version = "unknown"
        return Runtime(package, version, interpreter)
    raise ConfigError("no TFLite runtime is installed; pip install ai-edge-litert")


class LiteRtFile:
    """One TFLite file in memory, for models of all its signatures.

    They share its memory: the ten float heads of a ResNet-50 take 505 MB in one interpreter and
    3,632 MB in one each, for every interpreter packs the weights of every signature.
    """

    def __init__(self, model: bytes | Path, *, threads: int = 1) -> None:
        source = (
            {"model_content": model} if isinstance(model, bytes) else {"model_path": str(model)}
        )
        try:
            self._interpreter = runtime().interpreter(num_threads=threads, **source)
        except (ValueError, RuntimeError) as error:
            raise ConfigError(f"LiteRT cannot load the model: {error}") from error
        self.lock = threading.Lock()

    def runner(self, signature: str | None) -> Any:
        """LiteRT's own runner of a signature (None: the only one). It borrows this file's memory.

        ConfigError if the file has no such signature.
        """
        try:
            with self.lock:
                return self._interpreter.get_signature_runner(signature)
        except (ValueError, RuntimeError) as error:
            raise ConfigError(f"LiteRT cannot load the model: {error}") from error


class LiteRtModel:
    """One signature of one TFLite file, with one input. Thread-safe.

    Calls from several threads take turns, also those of other signatures of the same file: an
    interpreter has one arena, and a small device gains nothing from two. The GIL is free while the
    interpreter runs.
    """

    def __init__(
        self,
        model: bytes | Path | LiteRtFile,
        *,
        signature: str | None = None,
        threads: int = 1,
    ) -> None:
        file = model if isinstance(model, LiteRtFile) else LiteRtFile(model, threads=threads)
        self._runner = file.runner(signature)
        self._inputs = self._runner.get_input_details()
        self._outputs = self._runner.get_output_details()
        if len(self._inputs) != 1:
            raise ConfigError(f"signature {signature!r} has {len(self._inputs)} inputs, not one")
        ((self._input, self._input_details),) = self._inputs.items()
        self._names = sorted(self._outputs)
        self._file = file
        self._lock = file.lock

    @property
    def input_shape(self) -> tuple[int, ...]:
        """As the file declares it; -1 where any size is taken."""
        return tuple(int(size) for size in self._input_details["shape_signature"])

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """What the model takes."""
        dtype: np.dtype[Any] = np.dtype(self._input_details["dtype"])
        return dtype

    @property
    def input_quantization(self) -> tuple[float, int]:
        """Scale and zero point of the input; (0.0, 0) if it is not quantized."""
        return _quantization(self._input_details)

    @property
    def quantization(self) -> tuple[float, int]:
        """Scale and zero point of the first output; (0.0, 0) if it is not quantized."""
        return _quantization(self._outputs[self._names[0]])

    def run(self, tensor: Array) -> Array:
        """The only output for one input, or the first by name; errors as `outputs`."""
        return self.outputs(tensor)[0]

    def outputs(self, tensor: Array) -> list[Array]:
        """All outputs by name for one input.

        TensorError if the input does not fit, ModelFault if the runtime fails.
        """
        if tensor.dtype != self._input_details["dtype"] or not self._fits(tensor.shape):
            raise TensorError(
                f"the model takes {self._input_details['dtype'].__name__} "
                f"{list(self.input_shape)}, not {tensor.dtype} {list(tensor.shape)}"
            )
        with self._lock:
            try:
                made = self._runner(**{self._input: tensor})
            except (ValueError, RuntimeError) as error:
                raise ModelFault(f"LiteRT: {error}") from error
        return [made[name] for name in self._names]

    def _fits(self, shape: tuple[int, ...]) -> bool:
        declared = self.input_shape
        return len(shape) == len(declared) and all(
            size == want or want == -1 for size, want in zip(shape, declared, strict=True)
        )


def _quantization(details: Mapping[str, Any]) -> tuple[float, int]:
    scale, zero_point = details["quantization"]
    return float(scale), int(zero_point)
