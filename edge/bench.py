"""The device's own share of a request: decoding, the light model, heads and codecs, on threads.

Decoding and the light model have lanes of their own, which the processor prefers: nothing can
stand before the net.
"""

from collections.abc import Awaitable, Callable
from itertools import accumulate
from typing import NamedTuple, Protocol, TypeVar

from ..devices.models import (
    LIGHT,
    RESIZE_LARGE,
    RESIZE_LIGHT,
    DeviceModels,
    encode_stage,
    head_stage,
)
from ..shared.answer import Probabilities
from ..shared.codec import codec_by_name
from ..shared.deadline import Clock, Deadline
from ..shared.frame import encode_frame, encode_layers
from ..shared.picture import MAX_PIXELS, decode_picture
from ..shared.plan import Plan, PlanKind
from ..shared.tensor import Array
from .duration import Duration
from .lane import Lane
from .outlook import Waits

T = TypeVar("T")

_LOW_PRIORITY = 10


class Lit(NamedTuple):
    """The light model's answer, how sure it is, and what its stages took."""

    probabilities: Probabilities
    confidence: float
    stages_ms: dict[str, float]


class Framed(NamedTuple):
    """What a remote plan sends, and what its stages took; where layers end, if it is in layers."""

    frame: bytes
    stages_ms: dict[str, float]
    ends: tuple[int, ...] = ()


class Bench(Protocol):
    """What the agent needs of a device; simulations have one of their own."""

    def decode(self, encoded: bytes, deadline: Deadline) -> Awaitable[Array]:
        """The pixels of an encoded picture."""
        ...

    def light(self, picture: Array, deadline: Deadline, expected: Duration) -> Awaitable[Lit]:
        """The light model's answer."""
        ...

    def frame(
        self, picture: Array, plan: Plan, deadline: Deadline, expected: Duration
    ) -> Awaitable[Framed]:
        """The frame of a remote plan."""
        ...

    def waits(self, deadline: Deadline) -> Waits:
        """How long a request of this deadline would wait for its turn now."""
        ...

    def close(self) -> None:
        """Takes nothing new."""
        ...


class _Stopwatch:
    """Times the stages of one job."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.stages_ms: dict[str, float] = {}

    def time(self, stage: str, work: Callable[[], T]) -> T:
        start_s = self._clock()
        result = work()
        self.stages_ms[stage] = (self._clock() - start_s) * 1e3
        return result


class DeviceBench:
    """The real one: LiteRT and codecs in two lanes."""

    def __init__(
        self, models: DeviceModels, *, clock: Clock, workers: int, max_pixels: int = MAX_PIXELS
    ) -> None:
        self._models = models
        self._manifest = models.bundle.manifest
        self._clock = clock
        self._max_pixels = max_pixels
        self._light = Lane("light", threads=1, clock=clock)
        self._remote = Lane("remote", threads=workers, clock=clock, nice=_LOW_PRIORITY)

    def decode(self, encoded: bytes, deadline: Deadline) -> Awaitable[Array]:
        """RGB uint8 [h, w, 3]; PictureError for what is no picture."""
        return self._light.run(
            lambda: decode_picture(encoded, max_pixels=self._max_pixels), deadline=deadline
        )

    def light(self, picture: Array, deadline: Deadline, expected: Duration) -> Awaitable[Lit]:
        return self._light.run(
            lambda: self._run_light(picture), deadline=deadline, expected=expected
        )

    def frame(
        self, picture: Array, plan: Plan, deadline: Deadline, expected: Duration
    ) -> Awaitable[Framed]:
        return self._remote.run(
            lambda: self._make_frame(picture, plan), deadline=deadline, expected=expected
        )

    def waits(self, deadline: Deadline) -> Waits:
        return Waits(light=self._light.wait(deadline), remote=self._remote.wait(deadline))

    def close(self) -> None:
        self._light.close()
        self._remote.close()

    def _run_light(self, picture: Array) -> Lit:
        watch = _Stopwatch(self._clock)
        pixels = watch.time(RESIZE_LIGHT, lambda: self._models.resize_light(picture))
        probabilities = watch.time(LIGHT, lambda: self._models.light(pixels))
        return Lit(probabilities, float(probabilities.max()), watch.stages_ms)

    def _make_frame(self, picture: Array, plan: Plan) -> Framed:
        watch = _Stopwatch(self._clock)
        pixels = watch.time(RESIZE_LARGE, lambda: self._models.resize_large(picture))
        tensor: Array = pixels
        if plan.kind is PlanKind.SPLIT:
            head = head_stage(plan.cut, plan.head)
            tensor = watch.time(head, lambda: self._models.tensor(plan, pixels))
        contract = self._manifest.contract(plan)
        codec = codec_by_name(plan.codec, contract)
        if codec.layer_count == 1:
            frame = watch.time(
                encode_stage(plan), lambda: encode_frame(tensor, contract=contract, codec=codec)
            )
            return Framed(frame, watch.stages_ms)
        layers = watch.time(
            encode_stage(plan), lambda: encode_layers(tensor, contract=contract, codec=codec)
        )
        ends = tuple(accumulate(map(len, layers)))
        return Framed(b"".join(layers), watch.stages_ms, ends)
