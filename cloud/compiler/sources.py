"""Models as their owners have them: torch, ONNX, Keras, SavedModel and TFLite.

Files are data: nothing in them is executed, and what could only be loaded by executing it is
refused unless the recipe says `allow_pickle = true`. MODULE:FUNCTION is imported, as any Python
import is.
"""

import hashlib
import importlib.metadata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...shared.errors import BuildError
from .apart import apart
from .files import unreadable
from .untrusted import check_keras, check_saved_model, refuse_pickle, require

if TYPE_CHECKING:
    import torch

    from .torch_source import TorchModel

KERAS_SUFFIXES = (".keras", ".h5")
_PICKLES = (".pt", ".pth", ".pkl", ".ckpt", ".bin")
FILE_SUFFIXES = (".onnx", ".tflite", ".pt2", *KERAS_SUFFIXES, *_PICKLES)
_SAVED_MODEL = "saved_model.pb"
KINDS = "an .onnx, .pt2, .keras, .h5 or .tflite file, a SavedModel folder or MODULE:FUNCTION"


@dataclass
class ModelSource:
    """A torch module, or the path of a model, and a hash of what it computes.

    `text` is how a recipe names it. `example` are the inputs to try a module with that takes more
    than a picture. Of a model `from_torch` that is not opened in this process, `module` is None.
    """

    module: "torch.nn.Module | None"
    file: Path | None
    sha256: str
    example: "tuple[torch.Tensor, ...]" = ()
    allow_pickle: bool = False
    text: str = ""
    from_torch: bool = False

    def __post_init__(self) -> None:
        self.from_torch = self.from_torch or self.module is not None

    @property
    def suffix(self) -> str:
        return self.file.suffix if self.file else ""

    @property
    def from_tensorflow(self) -> bool:
        """Whether it is a Keras model or a SavedModel."""
        return self.file is not None and (self.suffix in KERAS_SUFFIXES or self.file.is_dir())

    def release(self) -> None:
        """Lets go of the module, once it is converted: it may be most of a build's memory."""
        self.module, self.example = None, ()

    def opened(self) -> "ModelSource":
        """Itself, with its module in this process; BuildError if it is another one by now."""
        if not self.from_torch or self.module is not None:
            return self
        again = open_source(self.text, allow_pickle=self.allow_pickle)
        if again.sha256 != self.sha256:
            raise BuildError(
                f"model {self.text!r} is not the same each time it is made; load its weights from "
                "a file or fix its seed"
            )
        return again

    def more_tools(self) -> dict[str, str]:
        """The versions of tools that only such a source needs; BuildError if one is missing."""
        if not self.from_tensorflow:
            return {}
        require("tf2onnx")
        return {name: importlib.metadata.version(name) for name in ("keras", "tf2onnx")}


def is_path(text: str) -> bool:
    """Whether a recipe means a file or a folder, not MODULE:FUNCTION."""
    return Path(text).suffix in FILE_SUFFIXES or ":" not in text


def look_at_source(text: str, *, allow_pickle: bool = False) -> ModelSource:
    """As `open_source`, but torch, and the module with it, stays in a process of its own."""
    if not is_path(text) or Path(text).suffix in (".pt2", *_PICKLES):
        return apart("torch", _described, text, allow_pickle=allow_pickle)
    return open_source(text, allow_pickle=allow_pickle)


def _described(text: str, *, allow_pickle: bool) -> ModelSource:
    source = open_source(text, allow_pickle=allow_pickle)
    source.release()
    return source


def open_source(text: str, *, allow_pickle: bool = False) -> ModelSource:
    """The model that MODULE:FUNCTION returns, or that lies at a path; BuildError if there is none.

    FUNCTION returns a torch module, or a module and a tuple of example inputs.
    """
    if not is_path(text):
        from .torch_source import call_factory  # torch: only who needs it pays for it

        made = call_factory(text)
        return _of_torch(made, text, sha256=made.digest())
    file = Path(text)
    if file.is_dir():
        if not (file / _SAVED_MODEL).is_file():
            raise BuildError(f"model {text!r} is a folder without {_SAVED_MODEL}; name {KINDS}")
        check_saved_model(file / _SAVED_MODEL)
        inside = sorted(path for path in file.rglob("*") if path.is_file())
        return ModelSource(None, file, _digest(inside, folder=file))
    if file.suffix not in FILE_SUFFIXES:
        if not file.exists():
            raise BuildError(
                f"there is no file or folder {text!r}; check its path, which is relative to the "
                f"recipe, and name {KINDS}"
            )
        raise BuildError(f"model {text!r} is neither {KINDS}")
    return _open_file(file, allow_pickle=allow_pickle)


def _open_file(file: Path, *, allow_pickle: bool) -> ModelSource:
    sha256 = _digest([file])
    if file.suffix in _PICKLES:
        refuse_pickle(file, allowed=allow_pickle)
        from .torch_source import unpickle

        return _of_torch(unpickle(file), str(file), sha256=sha256, allow_pickle=allow_pickle)
    if file.suffix == ".pt2":
        from .exported import read_program
        from .torch_source import TorchModel

        made = TorchModel(*read_program(file)).checked(file.name)
        return _of_torch(made, str(file), sha256=sha256)
    if file.suffix == ".onnx":
        from .onnx_source import external_files

        if beside := external_files(file):
            sha256 = _digest([file, *beside])
    if file.suffix in KERAS_SUFFIXES:
        check_keras(file, allow_pickle=allow_pickle)
    return ModelSource(None, file, sha256, allow_pickle=allow_pickle)


def _of_torch(
    made: "TorchModel", text: str, *, sha256: str, allow_pickle: bool = False
) -> ModelSource:
    return ModelSource(
        module=made.module,
        file=None,
        sha256=sha256,
        example=made.example,
        allow_pickle=allow_pickle,
        text=text,
    )


def _digest(files: Iterable[Path], *, folder: Path | None = None) -> str:
    """Of one file its own; of several, of their hashes and their places in the folder."""
    digests: list[tuple[str, str]] = []
    for file in files:
        try:
            with file.open("rb") as stream:
                name = str(file.relative_to(folder)) if folder else file.name
                digests.append((name, hashlib.file_digest(stream, "sha256").hexdigest()))
        except OSError as error:
            raise unreadable(file, error) from error
    if len(digests) == 1 and folder is None:
        return digests[0][1]
    return hashlib.sha256(repr(digests).encode()).hexdigest()
