"""Torch models: made by a function of their owner, exported programs, and pickles if allowed."""

import hashlib
import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...shared.errors import BuildError
from .quiet import quiet


@dataclass(frozen=True)
class TorchModel:
    """A module, and the inputs to try it with where a picture alone is not enough."""

    module: nn.Module
    example: tuple[Tensor, ...] = ()

    def checked(self, name: str) -> "TorchModel":
        """Itself; BuildError if weights are no numbers."""
        for key, tensor in self.module.state_dict().items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise BuildError(
                    f"model {name!r}: weights {key!r} hold NaN or infinity, so the training "
                    "diverged; take those from before"
                )
        return self

    def digest(self) -> str:
        """Weights, structure and code: the same digest means the same function."""
        digest = hashlib.sha256(repr(self.module).encode())
        kinds = {type(part) for part in self.module.modules()}
        for kind in sorted(kinds, key=lambda kind: kind.__qualname__):
            if not kind.__module__.startswith("torch."):
                digest.update(inspect.getsource(kind).encode())
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        for tensor in self.example:
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        return digest.hexdigest()


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums in the same order on however many cores: what comes of them counts in a bundle's hash.

    ResNet-50's error in LiteRT was 1.2e-5 of torch's on one thread, 1.3e-5 on two.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def call_factory(text: str) -> TorchModel:
    """What MODULE:FUNCTION returns: a module, or a module and a tuple of example inputs."""
    module_name, _, function_name = text.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), function_name)
    except AttributeError as error:
        raise BuildError(
            f"model {text!r}: {error}; name a function of it that returns a torch module"
        ) from error
    except ImportError as error:
        raise BuildError(f"model {text!r}: {error}; is its folder in PYTHONPATH?") from error
    with quiet(f"making of {text}"):
        made = factory()
    module, example = made if isinstance(made, tuple) and len(made) == 2 else (made, ())
    if not isinstance(module, nn.Module):
        raise BuildError(
            f"model {text!r} returned {type(module).__name__}, not a torch module; return the "
            "module, or a pair of it and a tuple of example inputs"
        )
    if not all(isinstance(each, Tensor) for each in example):
        raise BuildError(f"model {text!r}: its example inputs must be a tuple of tensors")
    return TorchModel(module, tuple(example)).checked(text)


def unpickle(file: Path) -> TorchModel:
    """The module of a pickle, which may run any code: only for those who said they trust it."""
    with quiet(f"unpickling of {file.name}"):
        made = torch.load(file, map_location="cpu", weights_only=False)
    if isinstance(made, Mapping):
        raise BuildError(
            f"{file.name} holds weights without a model; name MODULE:FUNCTION that makes the model "
            "and loads them"
        )
    if not isinstance(made, nn.Module):
        raise BuildError(f"{file.name} holds {type(made).__name__}, not a torch module")
    return TorchModel(made).checked(file.name)


class PlainOutputs(nn.Module):
    """A module whose outputs are a tuple of tensors, whatever the inner one wraps them in."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.training = False

    def forward(self, *tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The tensors of what the inner module returns, in its order."""
        made = tuple(named_outputs(self.inner(*tensors)).values())
        return made[0] if len(made) == 1 else made


def plain(module: nn.Module, example: Sequence[Tensor]) -> tuple[nn.Module, tuple[str, ...]]:
    """The module with plain outputs, and their names; BuildError if it does not run."""
    with quiet("running of the torch module"), torch.inference_mode():
        made = module(*example)
    names = tuple(named_outputs(made))
    if not names:
        raise BuildError(f"the torch module returns {type(made).__name__}, which holds no tensor")
    if isinstance(made, Tensor) or type(made) is tuple:
        return module, names
    return PlainOutputs(module), names


def named_outputs(made: Any) -> dict[str, Tensor]:
    """Tensors by name: of a mapping or data class their own, of a tuple `output_0` and so on."""
    if isinstance(made, Tensor):
        return {"logits": made}
    if is_dataclass(made) and not isinstance(made, Mapping):
        made = {field.name: getattr(made, field.name) for field in fields(made)}
    if hasattr(made, "_asdict"):
        made = made._asdict()
    if isinstance(made, (tuple, list)):
        made = {f"output_{index}": each for index, each in enumerate(made)}
    if not isinstance(made, Mapping):
        return {}
    return {str(name): each for name, each in made.items() if isinstance(each, Tensor)}
