"""Torch modules as float LiteRT (TFLite) models with channels-last input, checked by value."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ...shared.errors import BuildError
from .quiet import quiet

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.float32]
Tensor = npt.NDArray[np.generic]

SIGNATURE = "serving_default"


def convert_module(
    module: "torch.nn.Module", *, shape: tuple[int, int, int], channels_last: bool = False
) -> bytes:
    """A float32 TFLite model of a torch module.

    `module` takes float32 [1, c, h, w], or [1, h, w, c] if its channels are last, and returns one
    tensor; `shape` is (h, w, c), and the model's input is float32 [1, h, w, c]. BuildError if the
    module is in training mode or cannot be converted.
    """
    refuse_training_mode(module)
    with quiet("conversion to LiteRT"):
        import litert_torch
        import torch

        if not channels_last:
            module = litert_torch.to_channel_last_io(module, args=[0]).eval()
        edge_model = litert_torch.convert(module, (torch.zeros(1, *shape),))
        return bytes(edge_model.model_content())


def refuse_training_mode(module: "torch.nn.Module") -> None:
    """BuildError if any part of a module would still drop activations or learn statistics."""
    training = [name or "the module" for name, part in module.named_modules() if part.training]
    if training:
        raise BuildError(f"{training[0]} is in training mode; call eval() before building")


def relative_error(values: Tensor, reference: Tensor) -> float:
    """Largest absolute difference over the largest absolute reference value.

    >>> relative_error(np.array([1.0, 2.5]), np.array([1.0, 2.0]))
    0.25
    """
    wanted = np.asarray(reference, np.float64)
    scale = float(np.max(np.abs(wanted)))
    difference = float(np.max(np.abs(np.asarray(values, np.float64) - wanted)))
    return difference / scale if scale > 0 else difference


def compare_with_module(
    model: bytes,
    module: "torch.nn.Module",
    tensors: Iterable[Floats],
    *,
    channels_last: bool = False,
) -> float:
    """The worst `relative_error` of a TFLite model against its module, per input.

    `tensors` are float32 [1, h, w, c], real inputs: noise does not reach every branch of a model.
    """
    import torch

    refuse_training_mode(module)
    runner = Runner(model)
    worst = 0.0
    for tensor in tensors:
        arranged = tensor if channels_last else tensor.transpose(0, 3, 1, 2)
        with torch.inference_mode():
            wanted = module(torch.from_numpy(arranged.copy())).numpy()
        worst = max(worst, relative_error(runner.run(tensor), wanted))
    return worst


class Runner:
    """One signature, with one input and one output, of a TFLite model: to build with, not serve."""

    def __init__(self, model: bytes, *, signature: str | None = None, threads: int = 1) -> None:
        with quiet("loading of a TFLite model"):
            from ai_edge_litert.interpreter import Interpreter

            self._interpreter = Interpreter(model_content=model, num_threads=threads)
            signatures: Mapping[str, Mapping[str, list[str]]]
            signatures = self._interpreter.get_signature_list()
            self._signature = signature or next(iter(signatures))
            self._runner = self._interpreter.get_signature_runner(self._signature)
        (self.input_name,) = signatures[self._signature]["inputs"]
        (self.output_name,) = signatures[self._signature]["outputs"]

    def run(self, tensor: Tensor) -> Tensor:
        """The output for one input, both as the model has them."""
        outputs: dict[str, Tensor] = self._runner(**{self.input_name: tensor})
        return outputs[self.output_name]
