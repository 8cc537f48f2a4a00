"""Models as their owners have them: torch modules made by a function, ONNX and TFLite files."""

import hashlib
import importlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...shared.errors import BuildError
from .quiet import quiet

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ModelSource:
    """A torch module, or the path of an .onnx or .tflite file, and a hash of what it computes."""

    module: "torch.nn.Module | None"
    file: Path | None
    sha256: str

    @property
    def suffix(self) -> str:
        return self.file.suffix if self.file else ""


def open_source(text: str) -> ModelSource:
    """The model that MODULE:FUNCTION returns, or that lies at a path; BuildError if there is none.

    Files are data and nothing in them is executed; MODULE is imported, as any Python import is.
    """
    if Path(text).suffix in (".onnx", ".tflite"):
        return _open_file(Path(text))
    module_name, colon, function_name = text.partition(":")
    if not colon:
        raise BuildError(f"model {text!r} is neither an .onnx or .tflite file nor MODULE:FUNCTION")
    try:
        factory = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise BuildError(f"model {text!r}: {error}") from error
    with quiet(f"making of {text}"):
        import torch

        module = factory()
    if not isinstance(module, torch.nn.Module):
        raise BuildError(f"model {text!r} returned {type(module).__name__}, not a torch module")
    _refuse_not_finite(module, text)
    return ModelSource(module=module, file=None, sha256=_digest(module))


def _open_file(file: Path) -> ModelSource:
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise BuildError(f"cannot read model {file}: {error.strerror}") from error
    return ModelSource(module=None, file=file, sha256=digest)


def _refuse_not_finite(module: "torch.nn.Module", text: str) -> None:
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise BuildError(f"model {text!r}: weights {name!r} hold NaN or infinity")


def _digest(module: "torch.nn.Module") -> str:
    """Weights, structure and code: the same digest means the same function."""
    digest = hashlib.sha256(repr(module).encode())
    for kind in sorted({type(part) for part in module.modules()}, key=lambda k: k.__qualname__):
        if not kind.__module__.startswith("torch."):
            digest.update(inspect.getsource(kind).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
