"""What the tensors of a model hold on real inputs: all of them from one run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...shared.side import Tensors
from .litert import Floats, Runner, Tensor, relative_error
from .onnx_graph import input_of
from .onnx_session import BareModel
from .quiet import quiet
from .tflite_graph import TfliteCut, pack_heads

_HEAD = "head"


class OnnxValues:
    """Tensors of an ONNX model by name, its own outputs among them."""

    def __init__(self, bare: BareModel, names: Sequence[str]) -> None:
        self._session = bare.session(bare.model, outputs=names)
        self._names = [value.name for value in self._session.get_outputs()]
        self._input, self._sizes = input_of(bare.model)

    def run(self, tensor: Floats, sides: Tensors) -> dict[str, Tensor]:
        """All values for one picture, float32 [1, h, w, c], and what comes beside it."""
        arranged = tensor if self._sizes[1:] == tensor.shape[1:] else tensor.transpose(0, 3, 1, 2)
        feed = {self._input: np.ascontiguousarray(arranged), **sides}
        return dict(zip(self._names, self._session.run(None, feed), strict=True))


class TfliteValues:
    """Every activation of a TFLite model; slower kernels, none of which overwrites another's."""

    def __init__(self, model: bytes) -> None:
        with quiet("loading of a TFLite model"):
            from ai_edge_litert.interpreter import Interpreter

            self._interpreter = Interpreter(
                model_content=model, num_threads=1, experimental_preserve_all_tensors=True
            )
            self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]

    def run(self, tensor: Floats) -> None:
        """Computes them all for one picture, float32 [1, h, w, c]."""
        self._interpreter.set_tensor(self._input, tensor)
        self._interpreter.invoke()

    def __getitem__(self, index: int) -> Floats:
        value: Floats = self._interpreter.get_tensor(index)
        return value


class HeadValues:
    """What the heads of several cuts make, as they run on a device, from one run."""

    def __init__(self, model: bytes, cuts: Sequence[TfliteCut]) -> None:
        parts = {part.tensor: part for cut in cuts for part in cut.tensors}
        ordered = [parts[tensor] for tensor in sorted(parts)]
        self._runner = Runner(pack_heads(model, {_HEAD: TfliteCut.joined(ordered)}))
        self._tensors = [part.tensor for part in ordered]

    def run(self, tensor: Floats) -> dict[int, Tensor]:
        """Values by the tensor's index."""
        return dict(zip(self._tensors, self._runner.outputs(tensor), strict=True))


@dataclass(frozen=True)
class Fingerprint:
    """What stays the same when a tensor is transposed or reshaped: cheap to compare."""

    largest: float
    mean: float
    norm: float
    size: int

    @classmethod
    def of(cls, values: Tensor) -> "Fingerprint":
        flat = np.asarray(values, np.float64).ravel()
        return cls(
            largest=float(np.max(np.abs(flat))),
            mean=float(np.mean(flat)),
            norm=float(np.linalg.norm(flat)),
            size=flat.size,
        )

    def may_be(self, other: "Fingerprint", *, error: float) -> bool:
        """False only if the largest difference of the values certainly exceeds `error`.

        It is relative to the other's largest; means differ by no more than values do, norms by no
        more than the root of their number times that.
        """
        allowed = 1.01 * error * other.largest
        return (
            self.size == other.size
            and abs(self.largest - other.largest) <= allowed
            and abs(self.mean - other.mean) <= allowed
            and abs(self.norm - other.norm) <= allowed * self.size**0.5
        )


@dataclass(frozen=True, slots=True)
class Match:
    """A TFLite tensor that holds an ONNX tensor's values, turned or not, and how far it is off."""

    tensor: int
    onnx: str
    channels_first: bool
    reshaped: bool
    error: float


def match_values(
    made: Mapping[int, Tensor], wanted: Mapping[str, Tensor], *, error: float
) -> list[Match]:
    """Every pair of equal tensors; a tensor of zeros is equal to nothing."""
    by_size: dict[int, list[tuple[str, Fingerprint]]] = {}
    for name, values in wanted.items():
        if np.any(values):
            by_size.setdefault(values.size, []).append((name, Fingerprint.of(values)))
    found: list[Match] = []
    for tensor, values in made.items():
        rivals = by_size.get(values.size)
        own = Fingerprint.of(values) if rivals else None
        for name, fingerprint in rivals or ():
            if own is None or not own.may_be(fingerprint, error=error):
                continue
            for channels_first, arranged in arrangements(values, wanted[name].shape):
                off = relative_error(arranged, wanted[name])
                if off <= error:
                    reshaped = wanted[name].ndim != values.ndim
                    found.append(Match(tensor, name, channels_first, reshaped, off))
                    break
    return found


def arrangements(made: Tensor, shape: tuple[int, ...]) -> Iterator[tuple[bool, Tensor]]:
    """A TFLite tensor as ONNX may have it: channels first, or in the same order."""
    if made.ndim == 4:
        turned = made.transpose(0, 3, 1, 2)
        if turned.shape == shape:
            yield True, turned
    yield False, made.reshape(shape)
