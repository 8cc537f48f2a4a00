"""Golden inputs and outputs: what every stage gave where the bundle was built."""

import io
import zipfile
from collections.abc import Mapping

import numpy as np

from ...devices.models import LIGHT, RESIZE_LARGE, RESIZE_LIGHT, DeviceModels, head_stage
from ...shared.bundle import Bundle
from ...shared.golden import PICTURE, answer_name, side_name
from ...shared.manifest import Precision, Runtime
from ...shared.plan import PlanKind
from ...shared.side import Tensors
from ...shared.tensor import Array
from ..model import ServedModel

_EPOCH = (1980, 1, 1, 0, 0, 0)

# Relative to the largest value. Resizing rounds to whole levels; int8 kernels of different
# processors round differently, and the differences add up along a network.
_PIXELS_TOLERANCE = 0.01
_LIGHT_TOLERANCE = 0.1
_HEAD_TOLERANCE = 0.15
_ANSWER_TOLERANCE = 0.01


def golden_arrays(
    models: DeviceModels, picture: Array, beside: Tensors | None = None
) -> dict[str, Array]:
    """A picture and what each device stage of the table makes of it, by stage name.

    What comes beside the picture is there too, by `side_name`.
    """
    for_light, for_large = models.resize_light(picture), models.resize_large(picture)
    arrays: dict[str, Array] = {
        PICTURE: picture,
        RESIZE_LIGHT: for_light,
        RESIZE_LARGE: for_large,
        LIGHT: models.light(for_light),
    }
    for row in models.bundle.manifest.table:
        plan = row.parsed()
        if plan.kind is PlanKind.SPLIT:
            arrays.setdefault(head_stage(plan.cut, plan.head), models.tensor(plan, for_large))
    return arrays | {side_name(name): array for name, array in (beside or {}).items()}


def golden_answers(bundle: Bundle, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """What the large model answers to the golden picture, in each precision of ONNX Runtime.

    Torch's differ by the processor's own arithmetic, and are left to its tests.
    """
    answers: dict[str, Array] = {}
    for precision in bundle.manifest.large.precisions:
        if bundle.manifest.large.variant(precision).runtime is not Runtime.ONNXRUNTIME:
            continue
        whole = ServedModel.of(bundle, max_batch=1, precision=precision).whole
        whole.load()
        sides = {spec.name: arrays[side_name(spec.name)] for spec in whole.inputs}
        answer = whole.run(arrays[RESIZE_LARGE][None], sides).probabilities
        assert answer is not None
        answers[answer_name(precision)] = answer[0]
    return answers


def tolerances(arrays: Mapping[str, Array]) -> dict[str, float]:
    """How far each output may stray on another machine."""
    fixed = {
        answer_name(Precision.FLOAT32): _ANSWER_TOLERANCE,
        RESIZE_LIGHT: _PIXELS_TOLERANCE,
        RESIZE_LARGE: _PIXELS_TOLERANCE,
        LIGHT: _LIGHT_TOLERANCE,
    }
    given = (PICTURE, *(name for name in arrays if name.startswith(side_name(""))))
    return {name: fixed.get(name, _HEAD_TOLERANCE) for name in sorted(arrays) if name not in given}


def pack_arrays(arrays: Mapping[str, Array]) -> bytes:
    """An .npz; unlike numpy's own, the same arrays give the same bytes (no time of day)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in sorted(arrays.items()):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=_EPOCH)
            archive.writestr(entry, member.getvalue(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
