"""Static int8 quantization of float TFLite models."""

from collections.abc import Sequence
from enum import StrEnum

from ...shared.errors import BuildError
from .litert import SIGNATURE, Floats, Runner
from .quiet import quiet


class Ranges(StrEnum):
    """How the ranges seen on the calibration tensors become one range."""

    MIN_MAX = "min_max"
    MOVING_AVERAGE = "moving_average"


def quantize(model: bytes, tensors: Sequence[Floats], *, ranges: Ranges = Ranges.MIN_MAX) -> bytes:
    """An int8 model: int8 weights per output channel, int8 activations per tensor, int32 biases.

    `tensors` are the calibration inputs, float32 [1, h, w, c]. The interface stays float32: the
    first operator is QUANTIZE, the last DEQUANTIZE; both together cost under 0.1 ms at 224 px.
    Min-max is the default because with two dozen pictures a moving average (0.95) still sits at
    its first one: EfficientNet-Lite0 agrees with its float self on 98.6 % against 96.9 %.
    """
    if not tensors:
        raise BuildError("quantization needs calibration tensors")
    with quiet("quantization"):
        from ai_edge_quantizer import calibrator, qtyping, recipe, recipe_manager
        from ai_edge_quantizer.quantizer import Quantizer
        from ai_edge_quantizer.utils import qsv_utils

        manager = recipe_manager.RecipeManager()
        manager.load_quantization_recipe(recipe.static_wi8_ai8())
        for interface in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
            manager.add_quantization_config(
                ".*", interface, algorithm_key=recipe.AlgorithmName.NO_QUANTIZE
            )
        update = {
            Ranges.MIN_MAX: qsv_utils.min_max_update,
            Ranges.MOVING_AVERAGE: qsv_utils.moving_average_update,
        }[ranges]
        # Quantizer.calibrate knows the moving average only; the class beneath it takes either.
        calibration = calibrator.Calibrator(model, num_threads=1, qsv_update_func=update)
        input_name = Runner(model).input_name
        calibration.calibrate({SIGNATURE: [{input_name: tensor} for tensor in tensors]}, manager)
        quantizer = Quantizer(model, manager.get_quantization_recipe())
        result = quantizer.quantize(calibration.get_model_qsvs(), enable_progress_report=False)
        return bytes(result.quantized_model)
