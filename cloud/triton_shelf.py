"""Triton's model repositories: DIR/MODEL/config.pbtxt and DIR/MODEL/VERSION/model.onnx.

What config.pbtxt leaves out is taken from the model itself, as Triton does.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..protos import model_config_pb2 as pb
from ..shared.errors import BundleError, ConfigError, ModelFault
from ..shared.security import Security
from . import choices
from .choices import chosen
from .job import StageKey
from .named import NamedModel, Opening, Slot, Source, named_stage
from .onnx_file import OnnxFile
from .remote import Remote, RemoteUrl
from .shelf import Found, Shelf, mark_of
from .triton_config import (
    DATATYPES,
    DEFAULT_BATCH,
    ONNX,
    REMOTE,
    TYPES,
    backend_of,
    check_config,
    read_config,
    served_versions,
)

log = logging.getLogger(__name__)

_MODEL_FILE = "model.onnx"
_URL = "url"
_Declared = pb.ModelInput | pb.ModelOutput


@dataclass(frozen=True, kw_only=True)
class TritonShelf(Shelf):
    """Serves what each model's version policy wants, and a version that was chosen."""

    root: Path
    max_batch: int
    security: Security = field(default_factory=Security)

    def found(self, *, everything: bool = False) -> list[Found]:
        return list(self._found(everything))

    def open(self, found: Found, *, load: bool = True) -> NamedModel:
        folder = found.path.parent
        config = read_config(folder)
        check_config(config)
        opener = self._opener(config, found.path)
        source = opener()
        try:
            complete(config, source)
            labels = _labels(folder, config)
            stage = named_stage(
                StageKey(found.name, found.version, revision=found.revision),
                config,
                takes=_slots(config.input),
                gives=_slots(config.output),
                most_together=self.max_batch,
                own_bytes=_taken_bytes(config, found.path),
                opening=Opening(opener, source if load else None),
            )
            if load:
                stage.load()
                one_ms = stage.cost.predict_ms(1)
                log.info("%s by %s: %.1f ms for one", found, config.backend, one_ms)
        except (BundleError, ModelFault):
            source.close()
            raise
        if not load:
            source.close()
        return NamedModel(stage, config, labels)

    def _found(self, everything: bool) -> Iterator[Found]:
        for folder in sorted(path for path in self.root.iterdir() if path.is_dir()):
            numbers = [int(path.name) for path in folder.iterdir() if _is_version(path)]
            for number in sorted(numbers) if everything else _wanted(folder, numbers):
                path = folder / str(number)
                beside = (file for file in folder.iterdir() if _is_told(file))
                mark = mark_of((*beside, *path.rglob("*")))
                yield Found(folder.name, path.name, path, mark)

    def _opener(self, config: pb.ModelConfig, version: Path) -> Callable[[], Source]:
        if backend_of(config) == ONNX:
            config.backend, config.platform = ONNX, "onnxruntime_onnx"
            return partial(OnnxFile, _model_file(version, config.default_model_filename))
        if _URL not in config.parameters:
            raise BundleError(f'config.pbtxt: backend {REMOTE} needs the parameter "{_URL}"')
        try:
            url = RemoteUrl.parse(config.parameters[_URL].string_value)
        except ConfigError as error:
            raise BundleError(f"config.pbtxt: {error}") from error
        return partial(Remote, url, security=self.security)


def _taken_bytes(config: pb.ModelConfig, version: Path) -> int:
    """In memory as far as one knows before: the files, and their weights laid out anew."""
    if backend_of(config) == REMOTE:
        return 0
    return 2 * sum(file.stat().st_size for file in version.rglob("*") if file.is_file())


def complete(config: pb.ModelConfig, source: Source) -> None:
    """Fills in what is missing from what the model says itself, and checks the rest against it.

    A model all of whose tensors begin with an axis of varying size can batch; where neither side
    says so, that axis is one of items, as Triton takes it.
    """
    takes, gives = source.takes, source.gives
    if not (config.input and config.output):
        if not config.max_batch_size and source.max_batch is not None:
            config.max_batch_size = source.max_batch
        elif not config.max_batch_size and _can_batch((*takes.values(), *gives.values())):
            config.max_batch_size = DEFAULT_BATCH
        if config.max_batch_size > 1 and not config.WhichOneof("scheduling_choice"):
            config.dynamic_batching.SetInParent()
    batches = config.max_batch_size > 0
    for declared, there, kind in (
        (config.input, takes, "input"),
        (config.output, gives, "output"),
    ):
        if not declared:
            for slot in there.values():
                dims = slot.dims[1:] if batches else slot.dims
                declared.add(name=slot.name, data_type=TYPES[slot.datatype], dims=dims)
        for tensor in declared:
            _check_there(tensor, there, kind=kind, batches=batches)
    if missing := set(takes) - {tensor.name for tensor in config.input}:
        raise BundleError(f"config.pbtxt leaves out the input {min(missing)!r} of the model")


def _check_there(tensor: _Declared, there: Mapping[str, Slot], *, kind: str, batches: bool) -> None:
    slot = there.get(tensor.name)
    if slot is None:
        known = ", ".join(there)
        raise BundleError(f"config.pbtxt: the model has no {kind} {tensor.name!r} (there: {known})")
    dims = (-1, *tensor.dims) if batches else tuple(tensor.dims)
    agree = len(dims) == len(slot.dims) and all(
        -1 in pair or pair[0] == pair[1] for pair in zip(dims, slot.dims, strict=True)
    )
    batched = not batches or (slot.dims and slot.dims[0] == -1)
    if not agree or not batched or DATATYPES[tensor.data_type] != slot.datatype:
        behind = " behind an axis of items" if batches else ""
        raise BundleError(
            f"config.pbtxt: {kind} {tensor.name} is {DATATYPES[tensor.data_type]} "
            f"{list(tensor.dims)}{behind}, the model's is {slot.datatype} {list(slot.dims)}"
        )


def _can_batch(slots: tuple[Slot, ...]) -> bool:
    return all(slot.dims and slot.dims[0] == -1 for slot in slots)


def _slots(declared: Iterable[_Declared]) -> tuple[Slot, ...]:
    return tuple(
        Slot(tensor.name, DATATYPES[tensor.data_type], tuple(tensor.dims)) for tensor in declared
    )


def _labels(folder: Path, config: pb.ModelConfig) -> tuple[str, ...]:
    """Of the first output that has any."""
    for name in (tensor.label_filename for tensor in config.output if tensor.label_filename):
        try:
            return tuple(_inside(folder, name).read_text().splitlines())
        except (OSError, UnicodeDecodeError) as error:
            raise BundleError(f"the labels {name!r} cannot be read: {error}") from error
    return ()


def _model_file(version: Path, name: str) -> Path:
    """The file, also where it lies in a folder of that name beside its weights."""
    file = _inside(version, name or _MODEL_FILE)
    if file.is_dir():
        file = file / _MODEL_FILE
    if not file.is_file():
        raise BundleError(f"there is no {file}")
    return file


def _inside(folder: Path, name: str) -> Path:
    if Path(name).name != name:
        raise BundleError(f"config.pbtxt: {name!r} is no name of a file")
    return folder / name


def _wanted(folder: Path, numbers: list[int]) -> list[int]:
    try:
        wanted = served_versions(read_config(folder), numbers)
    except BundleError:  # whoever opens it is told
        wanted = sorted(numbers)[-1:]
    choice = chosen(folder)
    return sorted({*wanted, *(number for number in numbers if str(number) == choice)})


def _is_told(file: Path) -> bool:
    """Whether a file beside the versions is the model's, and not our note of what is served."""
    return file.name[0] != "." and file.name != choices.FILE_NAME


def _is_version(path: Path) -> bool:
    return path.name.isdecimal() and path.name[0] != "0" and path.is_dir()
