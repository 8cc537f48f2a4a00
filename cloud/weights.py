"""The weights that all graphs of one model share, and sessions that read them from memory."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from ..shared.errors import BundleError
from ..shared.tensor import Array

LOCATION = "weights"
OWN = "hybridge/"
"""Names of nodes and constants that the compiler puts before a model's own begin so."""
ALIGNMENT_BYTES = 64
TABLE_VERSION = 1

_EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"

Provider = str | tuple[str, Mapping[str, str]]


@dataclass(frozen=True)
class SessionSettings:
    """How ONNX Runtime runs one graph.

    Spinning threads of several sessions fight for the same cores (39 ms became 91), so they are
    off. `shared_memory` keeps one copy of the weights of matrix products for all sessions, by
    giving up the packed copies that make them faster. Convolutions are laid out anew per session
    either way: seven graphs of EfficientNet-Lite2 (24 MB) take 259 MB with it and 278 without.
    """

    threads: int = 1
    spinning: bool = False
    shared_memory: bool = False
    providers: Sequence[Provider] = ("CPUExecutionProvider",)

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, not {self.threads}")
        if not self.providers:
            raise ValueError("a session needs at least one provider")


@dataclass(frozen=True)
class Weights:
    """A weights blob in memory or mapped from a file, and the arrays in it by name."""

    blob: npt.NDArray[np.uint8]
    arrays: Mapping[str, Array] = field(repr=False)

    @cached_property
    def tensors(self) -> dict[str, onnxruntime.OrtValue]:
        """As ONNX Runtime takes them; they borrow the blob."""
        return {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(array)
            for name, array in self.arrays.items()
        }

    @classmethod
    def from_bytes(cls, blob: bytes, *, table: bytes) -> "Weights":
        return cls._view(np.frombuffer(blob, np.uint8), table)

    @classmethod
    def from_file(cls, path: Path, *, table: bytes) -> "Weights":
        """Weights mapped from a file: read from disk when used, and shared between processes."""
        if path.stat().st_size == 0:
            return cls.from_bytes(b"", table=table)
        return cls._view(np.memmap(path, np.uint8, mode="r"), table)

    @classmethod
    def _view(cls, blob: npt.NDArray[np.uint8], table: bytes) -> "Weights":
        try:
            head = json.loads(table)
            if head["version"] != TABLE_VERSION:
                raise BundleError(f"weights table of unknown version {head['version']}")
            if head["bytes"] != blob.size:
                raise BundleError(f"weights are {blob.size} bytes, the table says {head['bytes']}")
            arrays = {
                name: _array(
                    blob, offset=entry["offset"], shape=entry["shape"], dtype=entry["dtype"]
                )
                for name, entry in head["tensors"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleError(f"damaged weights table ({error})") from error
        return cls(blob=blob, arrays=arrays)


class SharedSession(onnxruntime.InferenceSession):  # type: ignore[misc]
    """A session that keeps alive the weights ONNX Runtime only borrows."""

    def __init__(self, graph: bytes, *, weights: Weights, settings: SessionSettings) -> None:
        super().__init__(graph, _options(weights, settings), providers=list(settings.providers))
        self.weights = weights


def open_session(
    graph: bytes, *, weights: Weights, settings: SessionSettings | None = None
) -> SharedSession:
    """A session of one graph over shared weights; no path is ever resolved.

    Raises BundleError if graph and weights do not belong together.
    """
    try:
        return SharedSession(graph, weights=weights, settings=settings or SessionSettings())
    except (
        onnxruntime.capi.onnxruntime_pybind11_state.Fail,
        onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument,
        onnxruntime.capi.onnxruntime_pybind11_state.InvalidGraph,
        onnxruntime.capi.onnxruntime_pybind11_state.InvalidProtobuf,
    ) as error:
        raise BundleError(f"ONNX Runtime refuses the graph: {error}") from error


def _options(weights: Weights, settings: SessionSettings) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(settings.spinning)))
    # Whatever file a graph names, there is none: by itself the runtime reads the working directory.
    options.add_session_config_entry(_EXTERNAL_FOLDER, os.devnull)
    if weights.blob.size:
        # Both are needed: the buffer stands for the file, which is looked for otherwise, and the
        # values let ONNX Runtime borrow memory instead of copying it.
        options.add_external_initializers_from_files_in_memory(
            [LOCATION], [weights.blob], [weights.blob.size]
        )
        for name, value in weights.tensors.items():
            options.add_initializer(name, value)
    if settings.shared_memory:
        options.add_session_config_entry("session.disable_prepacking", "1")
    return options


def _array(blob: npt.NDArray[np.uint8], *, offset: int, shape: list[int], dtype: str) -> Array:
    kind = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    if offset < 0 or offset % ALIGNMENT_BYTES or offset + size > blob.size:
        raise BundleError(f"weights at {offset} (+{size}) lie outside the {blob.size} bytes")
    view: Array = blob[offset : offset + size].view(kind).reshape(shape)
    return view
