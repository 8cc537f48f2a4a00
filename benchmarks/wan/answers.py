"""What every plan answers to every picture, and what it sends: computed once, kept in a file.

Simulations answer from it, and the laboratory's answers are compared with its first column, the
uncompressed large model's.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from _common import progress

from hybridge.cloud.compiler.cloud_side import CloudSide
from hybridge.cloud.compiler.table import received
from hybridge.devices.models import DeviceModels
from hybridge.shared.bundle import Bundle
from hybridge.shared.codec import codec_by_name
from hybridge.shared.frame import MAX_LAYERS
from hybridge.shared.picture import decode_picture
from hybridge.shared.plan import Plan, PlanKind


@dataclass(frozen=True)
class Answers:
    """What was answered to n pictures, and what was sent.

    By picture the large model's class [n], the light model's class and confidence [n]; by plan the
    class [n, plans] and the bytes of its frame [n, plans]. By layer of a frame the class that its
    first ones give and where it ends [n, plans, most layers], 0 where there is no such layer.
    """

    pictures: tuple[str, ...]
    plans: tuple[str, ...]
    large: npt.NDArray[np.int64]
    light: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    layer_classes: npt.NDArray[np.int64]
    layer_ends: npt.NDArray[np.int64]

    def agreement(self, plan: str) -> float:
        """Of a plan, or `local`, on these pictures."""
        given = self.light if plan == PlanKind.LOCAL else self.classes[:, self.plans.index(plan)]
        return float((given == self.large).mean())


def answers_of(bundle: Bundle, pictures: Sequence[Path], *, cache: Path) -> Answers:
    """From the cache, or computed into it."""
    file = answers_file(bundle, pictures, cache=cache)
    if not file.exists():
        computed = _compute(bundle, pictures)
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(
            file,
            plans=np.array(computed.plans),
            large=computed.large,
            light=computed.light,
            confidence=computed.confidence,
            classes=computed.classes,
            sizes=computed.sizes,
            layer_classes=computed.layer_classes,
            layer_ends=computed.layer_ends,
        )
    with np.load(file) as kept:
        return Answers(
            pictures=tuple(picture.name for picture in pictures),
            plans=tuple(map(str, kept["plans"])),
            large=kept["large"],
            light=kept["light"],
            confidence=kept["confidence"],
            classes=kept["classes"],
            sizes=kept["sizes"],
            layer_classes=kept["layer_classes"],
            layer_ends=kept["layer_ends"],
        )


def answers_file(bundle: Bundle, pictures: Sequence[Path], *, cache: Path) -> Path:
    """Where they are kept once computed; other models or pictures have another file."""
    names = "".join(f"{file.name}:{file.stat().st_size}\n" for file in pictures)
    key = hashlib.sha256(f"{bundle.sha256}\n{names}".encode()).hexdigest()[:16]
    return cache / f"answers-2-{bundle.manifest.name}-{key}.npz"


def _compute(bundle: Bundle, pictures: Sequence[Path]) -> Answers:
    models, cloud, manifest = DeviceModels(bundle), CloudSide.open(bundle), bundle.manifest
    plans = [p for row in manifest.table if (p := row.parsed()).kind is not PlanKind.LOCAL]
    shape = len(pictures), len(plans)
    classes, sizes = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    large, light = np.zeros(len(pictures), np.int64), np.zeros(len(pictures), np.int64)
    confidence = np.zeros(len(pictures))
    layer_classes, layer_ends = (np.zeros((*shape, MAX_LAYERS), np.int64) for _ in range(2))
    with progress("answers of every plan", len(pictures)) as step:
        for at, file in enumerate(pictures):
            picture = decode_picture(file.read_bytes())
            probabilities = models.light(models.resize_light(picture))
            light[at], confidence[at] = int(probabilities.argmax()), float(probabilities.max())
            pixels = models.resize_large(picture)
            large[at] = int(np.argmax(cloud.run("", pixels)))
            tensors: dict[tuple[str, str], npt.NDArray[np.generic]] = {}
            for to, plan in enumerate(plans):
                came = list(_through(plan, models, cloud, pixels, tensors))
                classes[at, to], sizes[at, to] = came[-1]
                if len(came) > 1:
                    layer_classes[at, to, : len(came)], layer_ends[at, to, : len(came)] = zip(
                        *came, strict=True
                    )
            step()
    return Answers(
        pictures=tuple(file.name for file in pictures),
        plans=tuple(map(str, plans)),
        large=large,
        light=light,
        confidence=confidence,
        classes=classes,
        sizes=sizes,
        layer_classes=layer_classes,
        layer_ends=layer_ends,
    )


def _through(
    plan: Plan,
    models: DeviceModels,
    cloud: CloudSide,
    pixels: npt.NDArray[np.uint8],
    tensors: dict[tuple[str, str], npt.NDArray[np.generic]],
) -> Iterator[tuple[int, int]]:
    """The class that comes back, and the bytes that went up: after each layer of a frame."""
    where = plan.cut, plan.head
    if where not in tensors:
        tensors[where] = models.tensor(plan, pixels)
    contract = models.bundle.manifest.contract(plan)
    codec = codec_by_name(plan.codec, contract)
    for size, sent in received(tensors[where], contract=contract, codec=codec):
        yield int(np.argmax(cloud.run(plan.cut, sent))), size
