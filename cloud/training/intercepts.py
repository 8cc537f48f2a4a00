"""What an eavesdropper has of a cut: the tensors that every plan's frames hold, picture by picture.

Frames are really made and really decoded, so that whatever a codec throws away is gone here too.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from ...devices.models import DeviceModels
from ...shared.codec import codec_by_name
from ...shared.frame import decode_payload, encode_frame, read_header
from ...shared.manifest import Precision
from ...shared.plan import Plan
from ...shared.tensor import Array
from ..compiler.pictures import Pixels
from ..compiler.progress import Progress
from .rows import RowFile
from .views import PictureView


@dataclass(frozen=True)
class Tapped:
    """A bundle's device side and views of pictures; what crosses is kept in a folder."""

    models: DeviceModels
    views: Sequence[PictureView]
    folder: Path

    def pixels(self, *, size_px: int, progress: Progress) -> npt.NDArray[Any]:
        """The pictures as the large model takes them, made smaller: uint8 [n, s, s, 3]."""

        def make(start: int, stop: int) -> npt.NDArray[Any]:
            return np.stack([shrunk(self._pixels(v), size_px) for v in self.views[start:stop]])

        file = self.folder / f"targets-{self._key(size_px)}"
        rows = RowFile(file, (size_px, size_px, 3), np.uint8, len(self.views))
        return rows.filled(make, on_rows=lambda d, n: progress("pictures to rebuild", d, n))

    def tensors(self, plans: Sequence[Plan], *, progress: Progress) -> npt.NDArray[Any]:
        """What the frames of plans of one cut hold: [n, plans, *shape], a row for each view."""
        contract = self.models.bundle.manifest.contract(plans[0])

        def make(start: int, stop: int) -> npt.NDArray[Any]:
            return np.stack([self._crossed(plans, view) for view in self.views[start:stop]])

        file = self.folder / f"crossed-{self._key([contract.id, *map(str, plans)])}"
        dtype = np.dtype(np.int8).type
        rows = RowFile(file, (len(plans), *contract.shape), dtype, len(self.views))
        step = f"frames of {plans[0].cut}"
        return rows.filled(make, on_rows=lambda done, total: progress(step, done, total))

    def _crossed(self, plans: Sequence[Plan], view: PictureView) -> Array:
        pixels, made = self._pixels(view), dict[str, Array]()
        for plan in plans:
            if plan.head not in made:
                made[plan.head] = self.models.head(plan.cut, Precision(plan.head), pixels)
        return np.stack([crossed(self.models, plan, made[plan.head]) for plan in plans])

    def _pixels(self, view: PictureView) -> Pixels:
        return self.models.resize_large(view.pixels())

    def _key(self, what: object) -> str:
        return key_of([self._content, what])

    @cached_property
    def _content(self) -> str:
        """Of the heads, the preprocessing and the pictures."""
        large = self.models.bundle.manifest.large
        heads = {str(precision): blob.sha256 for precision, blob in large.head_files.items()}
        pictures = hashlib.sha256(b"".join(view.key for view in self.views)).hexdigest()
        return key_of([heads, large.preprocessing.blob.sha256, pictures])


def crossed(models: DeviceModels, plan: Plan, tensor: Array) -> Array:
    """What is left of a tensor, or of pixels, on the other side of the link."""
    contract = models.bundle.manifest.contract(plan)
    frame = encode_frame(tensor, contract=contract, codec=codec_by_name(plan.codec, contract))
    return decode_payload(frame, read_header(frame), contract=contract)


def shrunk(pixels: Pixels, size_px: int) -> Pixels:
    """Each pixel the mean of those that lie in it; uint8 [s, s, 3] to [size, size, 3]."""
    if pixels.shape[0] == size_px:
        return pixels
    planes = torch.from_numpy(np.array(pixels, np.float32)).permute(2, 0, 1)[None]
    small = functional.interpolate(planes, (size_px, size_px), mode="area")[0].permute(1, 2, 0)
    return small.round().to(torch.uint8).numpy()


def key_of(value: object) -> str:
    """A short hash of what a result depends on."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
