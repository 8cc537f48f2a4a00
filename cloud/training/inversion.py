"""From a bundle and public pictures to how well an eavesdropper rebuilds what frames are made of.

pictures ─▶ heads ─▶ frames of every codec ─▶ decoded ─┬─▶ a net per cut learns to rebuild them
                                                       └─▶ pictures no net has seen: rebuilt
rebuilt, JPEG and the like, a mere guess ─▶ SSIM and distance to the originals

The eavesdropper of He, Zhang and Lee, "Model inversion attacks against collaborative inference"
(ACSAC 2019), who knows the head and has pictures of the same kind. Mahendran and Vedaldi,
"Understanding deep image representations by inverting them" (CVPR 2015), search instead.

Everything that takes time is on disk as soon as it is there: the same call carries on.
"""

import hashlib
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch

from ...devices.models import DeviceModels
from ...shared.bundle import Bundle
from ...shared.errors import BuildError
from ...shared.plan import Plan, PlanKind
from ...shared.privacy import Attack, Exposed, Learned, Likeness
from ..compiler.locks import held
from ..compiler.pictures import PictureSet, read_picture
from ..compiler.progress import Progress
from .intercepts import Tapped, crossed, key_of, shrunk
from .inversion_course import InversionCourse, pictures_of, values_of
from .inverter import Inverter
from .lessons import Indices, split
from .perception import FeatureDistance, Layer, early_layers
from .settings import InversionSettings
from .similarity import ssim
from .trainer import Standing, Trainer
from .views import all_views

METHOD = "inversion net"
FEWEST_VICTIMS = 10
_BATCH = 32
_COMPARED = 8
"""Pictures at once: a large model's early features of them are many times their size."""
_EXAMPLES = 512
"""Rows from which a net learns how far the values of each channel spread."""

Pixels = npt.NDArray[np.uint8]
Watch = Callable[[str, Standing], None]
"""Told how the training of a cut's net goes."""


def keep_apart(pictures: PictureSet, *, share: float) -> tuple[PictureSet, PictureSet]:
    """Those to learn from, and a share to rebuild; a picture's content decides.

    BuildError if there are too few of those.
    """
    # Not by the keys themselves, which decide what is held out of what is learned from.
    keys = [hashlib.sha256(view.key).digest() for view in all_views(pictures.files, 1)]
    drawn = np.array([int.from_bytes(key[:4], "little") / 2**32 for key in keys])
    victims, public = np.flatnonzero(drawn < share), np.flatnonzero(drawn >= share)
    if len(victims) < FEWEST_VICTIMS:
        raise BuildError(
            f"{len(keys)} pictures leave {len(victims)} to rebuild, and {FEWEST_VICTIMS} are "
            "needed; give more pictures, or others to rebuild by --victims"
        )
    return _part(pictures, keys, public), _part(pictures, keys, victims)


def _part(pictures: PictureSet, keys: Sequence[bytes], rows: Indices) -> PictureSet:
    digest = hashlib.sha256(b"".join(keys[row] for row in rows)).hexdigest()
    files = tuple(pictures.files[row] for row in rows)
    return PictureSet(files, tuple(pictures.labels[row] for row in rows), digest)


@dataclass(frozen=True, kw_only=True)
class Task:
    """All that an attack depends on; `folder` is where it keeps what it has done.

    `public` is what the attacker has; `victims` are the pictures to rebuild.
    """

    bundle: Bundle
    public: PictureSet
    victims: PictureSet
    settings: InversionSettings
    folder: Path
    threads: int = 1

    @property
    def size_px(self) -> int:
        """Where pictures are compared: as asked for, at most what the model takes."""
        return min(self.settings.size_px, self.bundle.manifest.large.preprocessing.spec.size_px)

    @cached_property
    def plans(self) -> tuple[Plan, ...]:
        """The table's, those of one cut together."""
        return tuple(row.parsed() for row in self.bundle.manifest.table)

    def at(self, cut: str) -> list[Plan]:
        return [plan for plan in self.plans if plan.kind is PlanKind.SPLIT and plan.cut == cut]

    @property
    def cuts(self) -> list[str]:
        """From the earliest on."""
        return [cut.name for cut in self.bundle.manifest.large.cuts if self.at(cut.name)]


@dataclass(frozen=True)
class Rebuilt:
    """What was made of the victims: uint8 [n, s, s, 3], by the plan whose frames there were.

    `originals` are the pictures themselves; `ssim` is each one's likeness, [n].
    """

    originals: Pixels
    by_plan: Mapping[Plan, Pixels] = field(repr=False)
    ssim: Mapping[Plan, npt.NDArray[np.float64]] = field(repr=False)


def invert(
    task: Task, *, device: torch.device, progress: Progress, watch: Watch
) -> tuple[Attack, Rebuilt]:
    """Trains a net per cut and rebuilds the victims; BuildError says what failed."""
    if not task.cuts:
        raise BuildError("the bundle has no split plan: nothing but pictures leaves its device")
    _refuse_seen(task)
    models = DeviceModels(task.bundle, threads=task.threads)
    public = Tapped(models, all_views(task.public.files, task.settings.views), task.folder)
    victims = Tapped(models, all_views(task.victims.files, 1), task.folder)
    keys = [view.key for view in public.views[: len(task.public)]]
    learned, held_out = split(keys, held_out=task.settings.held_out)
    targets = public.pixels(size_px=task.size_px, progress=progress)
    originals = victims.pixels(size_px=task.size_px, progress=progress)
    by_plan: dict[Plan, Pixels] = {}
    for cut in task.cuts:
        plans = task.at(cut)
        tensors = public.tensors(plans, progress=progress)
        course = InversionCourse(tensors, targets, learned=learned, held_out=held_out)
        net = _trained(task, cut, course, device, progress, watch)
        theirs = victims.tensors(plans, progress=progress)
        progress(f"rebuilding from {cut}", 0, 0)
        for position, plan in enumerate(plans):
            by_plan[plan] = _rebuilt(net, theirs[:, position], device)
    by_plan |= _sent_whole(task, models, progress)
    guess = np.broadcast_to(_mean(targets, learned), originals.shape)
    layers = early_layers(task.bundle)
    guessed, *found = _compared(task, originals, [guess, *by_plan.values()], layers, progress)
    compared = dict(zip(by_plan, found, strict=True))
    attack = Attack(
        method=METHOD,
        size_px=task.size_px,
        learned=Learned(
            sha256=task.public.sha256,
            learned=len(learned),
            held_out=len(held_out),
            views=task.settings.views,
        ),
        victims=task.victims.sha256,
        settings={name: float(value) for name, value in asdict(task.settings).items()},
        layers=tuple(layer.tensor for layer in layers),
        guess=guessed.likeness,
        pictures={str(plan): compared[plan].likeness for plan in by_plan if not plan.cut},
        splits=tuple(
            Exposed(
                plan=str(plan),
                contract=task.bundle.manifest.contract(plan).id,
                likeness=compared[plan].likeness,
            )
            for plan in by_plan
            if plan.cut
        ),
        tools={"torch": importlib.metadata.version("torch")},
    )
    return attack, Rebuilt(originals, by_plan, {plan: compared[plan].ssim for plan in by_plan})


def _refuse_seen(task: Task) -> None:
    """BuildError if a picture is both learned from and rebuilt, by its content."""
    seen = {view.key: view.file for view in all_views(task.public.files, 1)}
    twins = [view for view in all_views(task.victims.files, 1) if view.key in seen]
    if twins:
        raise BuildError(
            f"{len(twins)} pictures are both learned from and to be rebuilt, such as "
            f"{twins[0].file} ({seen[twins[0].key]}); leave each in one folder only"
        )


def _trained(
    task: Task,
    cut: str,
    course: InversionCourse,
    device: torch.device,
    progress: Progress,
    watch: Watch,
) -> Inverter:
    settings, contract = task.settings, task.bundle.manifest.cut(cut).contract
    torch.manual_seed(settings.seed)
    shapes = [part.shape for part in contract.parts] or [contract.shape]
    net = Inverter(shapes, size_px=task.size_px, width=settings.width)
    net.observe(course.examples(_EXAMPLES))
    name = key_of(
        [
            contract.id,
            [str(plan) for plan in task.at(cut)],
            {str(head): b.sha256 for head, b in task.bundle.manifest.large.head_files.items()},
            task.public.sha256,
            task.size_px,
            asdict(settings),
            torch.__version__,
        ]
    )
    folder = task.folder / f"run-{name}"
    trainer = Trainer(
        net,
        course,
        settings,
        learning_rate=settings.learning_rate,
        statistics=True,
        device=device,
        checkpoint=folder / "checkpoint.pt",
        watch=lambda standing: watch(cut, standing),
    )
    with held(task.folder / f"run-{name}.lock", on_wait=lambda: progress("another run", 0, 0)):
        trainer.run()
    return net


def _rebuilt(net: Inverter, tensors: npt.NDArray[Any], device: torch.device) -> Pixels:
    made = []
    with torch.inference_mode():
        for start in range(0, len(tensors), _BATCH):
            pictures = net(values_of(tensors[start : start + _BATCH]).to(device))
            made.append((255 * pictures).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(made)


def _sent_whole(task: Task, models: DeviceModels, progress: Progress) -> dict[Plan, Pixels]:
    """What each picture codec leaves of the victims, made as small as what is rebuilt."""
    plans = [plan for plan in task.plans if plan.kind is PlanKind.CLOUD]
    made: dict[Plan, list[Pixels]] = {plan: [] for plan in plans}
    for done, file in enumerate(task.victims.files):
        progress("pictures sent whole", done, len(task.victims))
        pixels = models.resize_large(read_picture(file))
        for plan in plans:
            received = cast(Pixels, crossed(models, plan, pixels))
            made[plan].append(shrunk(received, task.size_px))
    return {plan: np.stack(pictures) for plan, pictures in made.items()}


def _mean(targets: npt.NDArray[Any], learned: Indices) -> Pixels:
    """The public pictures' mean: the best answer of who has received nothing."""
    total = np.zeros(targets.shape[1:], np.float64)
    for row in learned:
        total += targets[row]
    return (total / len(learned)).round().astype(np.uint8)


class _Compared(NamedTuple):
    """How alike what was made of each picture is to it: SSIM and distance, if there is any, [n]."""

    ssim: npt.NDArray[np.float64]
    distances: npt.NDArray[np.float64]

    @property
    def likeness(self) -> Likeness:
        """Over all."""
        count = len(self.ssim)
        error = self.ssim.std(ddof=1) / count**0.5 if count > 1 else 0.0
        return Likeness(
            pictures=count,
            ssim=round(float(self.ssim.mean()), 4),
            ssim_error=round(float(error), 4),
            ssim_p95=round(float(np.quantile(self.ssim, 0.95)), 4),
            distance=round(float(self.distances.mean()), 4) if len(self.distances) else None,
        )


def _compared(
    task: Task,
    originals: Pixels,
    made: Sequence[Pixels],
    layers: tuple[Layer, ...],
    progress: Progress,
) -> list[_Compared]:
    """Each of several attempts at the victims."""
    distance = FeatureDistance(task.bundle, layers, threads=task.threads) if layers else None
    values: list[list[float]] = [[] for _ in made]
    distances: list[list[float]] = [[] for _ in made]
    for start in range(0, len(originals), _COMPARED):
        progress("comparing with the originals", start, len(originals))
        wanted = pictures_of(originals[start : start + _COMPARED])
        features = distance.features(wanted) if distance else []
        for at, pixels in enumerate(made):
            pictures = pictures_of(pixels[start : start + _COMPARED])
            values[at] += ssim(pictures, wanted).tolist()
            if distance is not None:
                found = distance.between(distance.features(pictures), features)
                distances[at] += found.tolist()
    return [_Compared(np.array(s), np.array(d)) for s, d in zip(values, distances, strict=True)]
