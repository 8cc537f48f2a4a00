"""Torch modules as float LiteRT (TFLite) models with channels-last input, checked by value."""

from collections.abc import Callable, Iterable, Mapping, Sequence
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

    `module` takes float32 [1, c, h, w], or [1, h, w, c] if its channels are last, and returns a
    tensor or a tuple of them; `shape` is (h, w, c), and the model's input is float32 [1, h, w, c].
    BuildError if the module is in training mode or cannot be converted.
    """
    refuse_training_mode(module)
    with quiet("conversion to LiteRT"):
        import litert_torch
        import torch

        from .torch_source import plain

        height, width, channels = shape
        sizes = shape if channels_last else (channels, height, width)
        module, _ = plain(module, (torch.zeros(1, *sizes),))
        if not channels_last:
            module = litert_torch.to_channel_last_io(module, args=[0])
            module.training = False  # not eval(), which exported programs refuse
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


def worst_error(
    model: bytes, original: Callable[[Floats], Sequence[Tensor]], tensors: Iterable[Floats]
) -> float:
    """The worst `relative_error` of a TFLite model against its original, over inputs and outputs.

    `tensors` are float32 [1, h, w, c], real inputs: noise does not reach every branch of a model.
    """
    runner = Runner(model)
    worst = 0.0
    for tensor in tensors:
        made, wanted = runner.outputs(tensor), original(tensor)
        if [each.shape for each in made] != [each.shape for each in wanted]:
            raise BuildError(
                f"the model in LiteRT answers {[each.shape for each in made]}, "
                f"the original {[each.shape for each in wanted]}"
            )
        worst = max(worst, *(relative_error(*pair) for pair in zip(made, wanted, strict=True)))
    return worst


def compare_with_module(
    model: bytes,
    module: "torch.nn.Module",
    tensors: Iterable[Floats],
    *,
    channels_last: bool = False,
) -> float:
    """`worst_error` of a TFLite model against its module."""
    return worst_error(model, run_module(module, channels_last=channels_last), tensors)


def run_module(
    module: "torch.nn.Module", *, channels_last: bool = False
) -> Callable[[Floats], list[Tensor]]:
    """A module as a function from float32 [1, h, w, c] to its outputs."""
    refuse_training_mode(module)

    def run(tensor: Floats) -> list[Tensor]:
        import torch

        from .torch_source import named_outputs, one_thread

        arranged = tensor if channels_last else tensor.transpose(0, 3, 1, 2)
        with torch.inference_mode(), one_thread(), quiet("running of the torch module"):
            made = named_outputs(module(torch.from_numpy(arranged.copy())))
        return [each.numpy() for each in made.values()]

    return run


def refuse_foreign_operators(model: bytes) -> None:
    """BuildError if a TFLite model has operators that LiteRT itself does not bring.

    Custom and flex operators need a library beside the runtime that no device has; StableHLO ones
    are for compilers, and LiteRT runs hardly any.
    """
    from ai_edge_litert import schema_py_generated as schema

    if model[4:8] != b"TFL3":
        raise BuildError("not a TFLite model (its identifier is missing)")
    names = {code: name for name, code in vars(schema.BuiltinOperator).items()}
    codes = schema.ModelT.InitFromPackedBuf(model, 0).operatorCodes
    foreign = set()
    for code in codes:
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        name = names.get(number, f"number {number}")
        if number == schema.BuiltinOperator.CUSTOM:
            foreign.add((code.customCode or b"custom").decode(errors="replace"))
        elif name.startswith(("number", "STABLEHLO_", "DELEGATE")):
            foreign.add(name)
    if foreign:
        raise BuildError(
            f"operators {', '.join(sorted(foreign))} are not built into LiteRT and run on no device"
        )


class Runner:
    """A signature of one input of a TFLite model: to build with, not to serve.

    A model that takes codes on a grid is given those nearest to real values.
    """

    def __init__(self, model: bytes, *, signature: str | None = None, threads: int = 1) -> None:
        with quiet("loading of a TFLite model"):
            from ai_edge_litert.interpreter import Interpreter

            self._interpreter = Interpreter(model_content=model, num_threads=threads)
            signatures: Mapping[str, Mapping[str, list[str]]]
            signatures = self._interpreter.get_signature_list()
            self._signature = signature or next(iter(signatures))
            self._runner = self._interpreter.get_signature_runner(self._signature)
        (self.input_name,) = signatures[self._signature]["inputs"]
        self._input = self._runner.get_input_details()[self.input_name]
        # The converters number them: output_2 comes before output_10.
        self.output_names = sorted(
            signatures[self._signature]["outputs"], key=lambda name: (len(name), name)
        )

    @property
    def output_name(self) -> str:
        """The name of the only output."""
        (name,) = self.output_names
        return name

    def run(self, tensor: Tensor) -> Tensor:
        """The only output for one input, both as the model has them."""
        return self.outputs(tensor)[0]

    def values(self, tensor: Tensor) -> Floats:
        """The only output in real values, also where the model gives codes."""
        made = self.run(tensor)
        scale, zero_point = self._runner.get_output_details()[self.output_name]["quantization"]
        real = np.asarray(made, np.float32)
        return (real - np.float32(zero_point)) * np.float32(scale) if scale else real

    def outputs(self, tensor: Tensor) -> list[Tensor]:
        """All outputs for one input, in their order."""
        scale, zero_point = self._input["quantization"]
        if scale and tensor.dtype == np.float32:
            limits = np.iinfo(self._input["dtype"])
            codes = np.rint(np.asarray(tensor, np.float32) / np.float32(scale)) + zero_point
            tensor = np.clip(codes, limits.min, limits.max).astype(self._input["dtype"])
        made: dict[str, Tensor] = self._runner(**{self.input_name: tensor})
        return [made[name] for name in self.output_names]
