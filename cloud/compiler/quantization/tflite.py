"""Int8 TFLite models of float ones, by ai-edge-quantizer."""

import re
from collections.abc import Collection, Sequence

from ....shared.errors import BuildError
from ..litert import Floats
from ..quiet import quiet
from .ranges import Activations, Ranges, Statistics, observe


def quantize(model: bytes, tensors: Sequence[Floats], *, ranges: Ranges = Ranges.MIN_MAX) -> bytes:
    """A static int8 model calibrated on inputs, float32 [1, h, w, c]; see `static_int8`."""
    return static_int8(model, observe(model, tensors), ranges=ranges)


def static_int8(
    model: bytes, seen: Activations, *, ranges: Ranges, keep_float: Collection[str] = ()
) -> bytes:
    """Int8 weights per output channel, int8 activations per tensor, int32 biases.

    The interface stays float32: the first operator is QUANTIZE, the last DEQUANTIZE; both together
    cost under 0.1 ms at 224 px. `keep_float` names the operators that stay in float, each by its
    first output tensor.
    """
    with quiet("quantization"):
        from ai_edge_quantizer import recipe

        return _quantized(
            model, recipe.static_wi8_ai8(), keep_float, statistics=seen.statistics(ranges)
        )


def dynamic_int8(model: bytes, *, keep_float: Collection[str] = ()) -> bytes:
    """Int8 weights; activations stay float32 and are quantized by the kernels, row by row.

    Nothing is calibrated, and every cut is a float tensor.
    """
    with quiet("quantization"):
        from ai_edge_quantizer import recipe

        return _quantized(model, recipe.dynamic_wi8_afp32(), keep_float, statistics=None)


def _quantized(
    model: bytes,
    scheme: list[dict[str, object]],
    keep_float: Collection[str],
    *,
    statistics: Statistics | None,
) -> bytes:
    from ai_edge_quantizer import qtyping, recipe, recipe_manager
    from ai_edge_quantizer.quantizer import Quantizer

    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(scheme)
    untouched = recipe.AlgorithmName.NO_QUANTIZE
    for interface in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        manager.add_quantization_config(".*", interface, algorithm_key=untouched)
    for name in sorted(keep_float):
        # The scope of an operator is its outputs' names, each with a semicolon after it.
        manager.add_quantization_config(
            f"^{re.escape(name)};", qtyping.TFLOperationName.ALL_SUPPORTED, algorithm_key=untouched
        )
    quantizer = Quantizer(model, manager.get_quantization_recipe())
    result = quantizer.quantize(statistics, enable_progress_report=False)
    if result.quantized_model is None:
        raise BuildError("ai-edge-quantizer gave no model")
    return bytes(result.quantized_model)
