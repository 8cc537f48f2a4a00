"""The device's part of a bundle: preprocessing, light model and heads, loaded as they are used."""

import threading
from collections.abc import Callable, Collection
from functools import partial
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from ..shared.answer import Probabilities, to_probabilities
from ..shared.bundle import Bundle
from ..shared.codec import codec_by_name
from ..shared.codec.picture import format_of, formats_here
from ..shared.errors import TensorError
from ..shared.frame import encode_frame
from ..shared.manifest import Manifest, Precision, Preprocessing
from ..shared.plan import Plan, PlanKind
from ..shared.preprocess import PreprocessSpec
from ..shared.tensor import Array
from .litert import LiteRtFile, LiteRtModel
from .pixel_input import PixelInput
from .profile import StageTime, measure

Pixels = npt.NDArray[np.uint8]

RESIZE_LIGHT = "resize_light"
LIGHT = "light"
RESIZE_LARGE = "resize_large"

WARM_SHAPE = (1080, 1920, 3)
"""Full HD: about 10 MiB for each of the two resizers."""


def head_stage(cut: str, precision: str) -> str:
    """The profile's name for one head."""
    return f"head:{cut}/{precision}"


def encode_stage(plan: Plan) -> str:
    """The profile's name for encoding what a plan sends."""
    return f"encode:{plan}"


class _Resize:
    """Resizes any picture to a model's pixels."""

    def __init__(self, bundle: Bundle, part: Preprocessing, *, threads: int) -> None:
        self._model = LiteRtModel(bundle.file(part.blob), signature="resize", threads=threads)

    def __call__(self, picture: Array) -> Pixels:
        check_picture(picture)
        return cast(Pixels, self._model.run(picture[None])[0])


class _OnPixels:
    """A model and what it takes of pixels."""

    def __init__(self, model: LiteRtModel, spec: PreprocessSpec) -> None:
        scale, zero_point = model.input_quantization
        self._takes = PixelInput(spec, model.input_dtype, scale=scale, zero_point=zero_point)
        self._model = model

    def outputs(self, pixels: Pixels) -> list[Array]:
        """As they leave the model."""
        return self._model.outputs(self._takes(pixels))

    def values(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """The first output in real values."""
        made = self.outputs(pixels)[0]
        if made.dtype == np.float32:
            return cast(npt.NDArray[np.float32], made)
        scale, zero_point = self._model.quantization
        return (made.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


class DeviceModels:
    """Everything of a bundle that runs on the device. Thread-safe.

    Heads are loaded on first use, those of one precision from one file in memory.
    """

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        manifest = bundle.manifest
        self.bundle = bundle
        self.threads = threads
        light = manifest.light
        self._resize_light = _Resize(bundle, light.preprocessing, threads=threads)
        self._resize_large = _Resize(bundle, manifest.large.preprocessing, threads=threads)
        self._light = _OnPixels(
            LiteRtModel(bundle.file(light.blob), threads=threads), light.preprocessing.spec
        )
        self._head_files: dict[Precision, LiteRtFile] = {}
        self._heads: dict[tuple[str, str], _OnPixels] = {}
        self._lock = threading.Lock()

    def warm_up(self, picture: Array) -> None:
        """Loads and runs everything the table uses once, so that no request pays for it.

        That includes the memory for resizing, up to `WARM_SHAPE`: who brings the largest picture so
        far waits for it page by page, which takes several times as long as the resizing.
        """
        self.light(self.resize_light(picture))
        pixels = self.resize_large(picture)
        blank = np.zeros(WARM_SHAPE, np.uint8)
        self.resize_light(blank)
        self.resize_large(blank)
        for row in self.bundle.manifest.table:
            plan = row.parsed()
            if plan.kind is PlanKind.SPLIT:
                self.tensor(plan, pixels)

    def resize_light(self, picture: Array) -> Pixels:
        """A picture, uint8 RGB [h, w, 3] of any size, as the light model's pixels [S, S, 3]."""
        return self._resize_light(picture)

    def resize_large(self, picture: Array) -> Pixels:
        """A picture, uint8 RGB [h, w, 3] of any size, as the large model's pixels [S, S, 3]."""
        return self._resize_large(picture)

    def light(self, pixels: Pixels) -> Probabilities:
        """The light model's probabilities [classes] for its pixels."""
        light, output = self.bundle.manifest.light, self._light.values(pixels)
        return cast(
            Probabilities,
            to_probabilities(output, light.output, temperature=light.temperature)[0],
        )

    def head(self, cut: str, precision: Precision, pixels: Pixels) -> Array:
        """What a cut sends, int8 as its contract says, for the large model's pixels.

        Several tensors come as one flat one.
        """
        contract = self.bundle.manifest.cut(cut).contract
        outputs = self.head_outputs(cut, precision, pixels)
        if not contract.parts:
            return on_grid(outputs[0][0], contract)
        parts = zip(outputs, contract.parts, strict=True)
        return np.concatenate([on_grid(output[0], part).ravel() for output, part in parts])

    def head_outputs(self, cut: str, precision: Precision, pixels: Pixels) -> list[Array]:
        """The tensors of a cut as its head makes them, for the large model's pixels."""
        return self._head(cut, precision).outputs(pixels)

    def tensor(self, plan: Plan, pixels: Pixels) -> Array:
        """What a remote plan sends, not yet encoded: the pixels themselves, or a head's tensor."""
        if plan.kind is PlanKind.CLOUD:
            return cast(Array, pixels)
        return self.head(plan.cut, Precision(plan.head), pixels)

    def _head(self, cut: str, precision: Precision) -> _OnPixels:
        key, manifest = (cut, precision), self.bundle.manifest
        with self._lock:
            if key not in self._heads:
                head = LiteRtModel(
                    self._head_file(precision), signature=manifest.cut(cut).heads[precision]
                )
                self._heads[key] = _OnPixels(head, manifest.large.preprocessing.spec)
            return self._heads[key]

    def _head_file(self, precision: Precision) -> LiteRtFile:
        if precision not in self._head_files:
            blob = self.bundle.manifest.large.head_files[precision]
            self._head_files[precision] = LiteRtFile(self.bundle.file(blob), threads=self.threads)
        return self._head_files[precision]


def check_picture(picture: Array) -> None:
    """TensorError unless it is uint8 RGB [h, w, 3] with at least one pixel."""
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3:
        raise TensorError(
            f"a picture is UINT8 [height, width, 3], not {picture.dtype} {list(picture.shape)}"
        )
    if 0 in picture.shape:
        raise TensorError(f"a picture of {list(picture.shape)} has no pixels")


class Grid(Protocol):
    """What has an int8 grid: real = scale * (value - zero_point)."""

    @property
    def scale(self) -> float | None: ...

    @property
    def zero_point(self) -> int | None: ...


def on_grid(output: Array, grid: Grid) -> npt.NDArray[np.int8]:
    """A head's output as int8, whatever the head's own arithmetic."""
    if output.dtype == np.int8:
        return cast(npt.NDArray[np.int8], output)
    return quantize(cast(npt.NDArray[np.float32], output), grid)


def quantize(tensor: npt.NDArray[np.float32], grid: Grid) -> npt.NDArray[np.int8]:
    """A float32 tensor on an int8 grid: round to nearest even, then saturate.

    Infinities saturate too; TensorError for NaN, which stands for no value at all.
    """
    if grid.scale is None or grid.zero_point is None:
        raise ValueError(f"no quantization in {grid}")
    scaled = np.rint(tensor / np.float32(grid.scale)) + grid.zero_point
    if np.isnan(scaled).any():
        raise TensorError("a head gave NaN, which no int8 stands for")
    return cast(npt.NDArray[np.int8], np.clip(scaled, -128, 127).astype(np.int8))


def stage_names(manifest: Manifest) -> tuple[str, ...]:
    """Every stage that the plans of a bundle's table run on this device.

    Encoding as a picture format whose package is not installed here is none.
    """
    plans = [row.parsed() for row in manifest.table]
    heads = sorted({(p.cut, p.head) for p in plans if p.kind is PlanKind.SPLIT})
    return (
        *(RESIZE_LIGHT, LIGHT, RESIZE_LARGE),
        *(head_stage(cut, head) for cut, head in heads),
        *(encode_stage(plan) for plan in plans if plan.kind is not PlanKind.LOCAL and _can(plan)),
    )


def stage_work(
    models: DeviceModels, picture: Array, names: Collection[str] | None = None
) -> dict[str, Callable[[], object]]:
    """Stages of a bundle by name (all of them, or those named), each ready to run on one picture.

    Encoding takes this picture's own tensors.
    """
    for_light, for_large = models.resize_light(picture), models.resize_large(picture)
    work: dict[str, Callable[[], object]] = {
        RESIZE_LIGHT: partial(models.resize_light, picture),
        LIGHT: partial(models.light, for_light),
        RESIZE_LARGE: partial(models.resize_large, picture),
    }
    for plan in (row.parsed() for row in models.bundle.manifest.table):
        if plan.kind is PlanKind.SPLIT:
            head = head_stage(plan.cut, plan.head)
            work[head] = partial(models.head, plan.cut, Precision(plan.head), for_large)
        named = names is None or encode_stage(plan) in names
        if plan.kind is not PlanKind.LOCAL and named and _can(plan):
            work[encode_stage(plan)] = _encoding(models, plan, for_large)
    wanted = stage_names(models.bundle.manifest)
    return {name: work[name] for name in wanted if names is None or name in names}


def measure_stages(
    models: DeviceModels,
    picture: Array,
    *,
    runs: int = 50,
    on_stage: Callable[[str, int, int], None] | None = None,
) -> dict[str, StageTime]:
    """Times every stage on this machine, one after the other.

    `on_stage(name, done, total)` is told before each.
    """
    work = stage_work(models, picture)
    stages: dict[str, StageTime] = {}
    for name, run in work.items():
        if on_stage is not None:
            on_stage(name, len(stages), len(work))
        stages[name] = measure(run, runs=runs, threads=models.threads)
    return stages


def _can(plan: Plan) -> bool:
    """Whether what a plan sends can be encoded here."""
    picture_format = format_of(plan.codec)
    return picture_format is None or picture_format in formats_here()


def _encoding(models: DeviceModels, plan: Plan, pixels: Pixels) -> Callable[[], object]:
    contract = models.bundle.manifest.contract(plan)
    codec = codec_by_name(plan.codec, contract)
    tensor = models.tensor(plan, pixels)
    return partial(encode_frame, tensor, contract=contract, codec=codec)
