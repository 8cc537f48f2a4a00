"""What a second of requests takes of the processor, by what they do. Pure: clocks are arguments."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from .outlook import Waits
from .processor import WANTED
from .rate import Rate

_WEIGHT = 0.1
_WAY_S = 10.0
"""How soon a long stage is forgotten, by e, where no plan is begun any more."""
_WAIT_WEIGHT, _WAIT_PRIOR_MS = 0.05, 5.0
"""What a plan's waits weigh among those of others, and how long a one the model is believed for."""


class Crowds(NamedTuple):
    """What a plan meets if all requests run the light model first, or if none does.

    With it there are `room_ms` left a request, and the plan is for as many as that is enough for;
    without it, it is for all, or not to be had.
    """

    first: Waits
    without: Waits
    room_ms: float


class Board:
    """Counts what requests begin, and what they take beside that.

    `light_ms` is what a run of the light model takes. Times are what they were alone on the device,
    shares of its processor's time 0 to 1.
    """

    def __init__(self, *, light_ms: float) -> None:
        self.light_ms = light_ms
        self._came, self._lit, self._sent, self._worked = Rate(), Rate(), Rate(), Rate()
        self._used = self._beside = 0.0
        self._modelled_ms = self._waited_ms = 0.0
        self._longest_ms = self._longest_at_s = 0.0

    def comes(self, *, now_s: float) -> None:
        """A request has come."""
        self._came.count(now_s=now_s)

    def lights(self, *, now_s: float) -> None:
        """The light model is to run for one."""
        self._lit.count(now_s=now_s)

    def sends(self, stages_ms: Sequence[float], *, now_s: float) -> None:
        """A remote plan is begun, whose stages take so long each."""
        self._sent.count(now_s=now_s)
        self._worked.count(now_s=now_s, weight=sum(stages_ms) / 1e3)
        before_ms = (1.0 - _WEIGHT) * self.in_the_way_ms(now_s=now_s)
        self._longest_ms = max([before_ms, *stages_ms])
        self._longest_at_s = now_s

    def in_the_way_ms(self, *, now_s: float) -> float:
        """How long a stage may be that has just begun: as the longest lately.

        It fades with every plan that is begun, and with time.
        """
        return self._longest_ms * math.exp(min(self._longest_at_s - now_s, 0.0) / _WAY_S)

    def used(self, share: float, *, decode_ms: float, now_s: float) -> None:
        """The share that was used lately; what no stage accounts for goes beside them."""
        if share == self._used:  # nothing was read since
            return
        self._used = share
        stages = self._worked.hz(now_s=now_s)
        stages += self._came.hz(now_s=now_s) * decode_ms / 1e3
        stages += self._lit.hz(now_s=now_s) * self.light_ms / 1e3
        self._beside += _WEIGHT * (max(share - stages, 0.0) - self._beside)

    def among(self, waits: Waits, *, decode_ms: float, now_s: float) -> Waits:
        """With the requests as they are; `waits` holds what stands before one of them."""
        busy_ms = self._came.hz(now_s=now_s) * (decode_ms + waits.overhead_ms)
        busy_ms += self._lit.hz(now_s=now_s) * self.light_ms
        sent_hz = self._sent.hz(now_s=now_s)
        return waits._replace(busy=busy_ms / 1e3, remote_hz=sent_hz, waited=self._waited)

    def took(self, ms: float, *, alone_ms: float, waits: Waits) -> None:
        """A remote plan's stages took so long, one after the other, among requests as they are."""
        modelled_ms = waits._replace(waited=1.0).among_others_ms(alone_ms) - alone_ms
        waited_ms = max(ms - alone_ms, 0.0)
        self._modelled_ms += _WAIT_WEIGHT * (modelled_ms - self._modelled_ms)
        self._waited_ms += _WAIT_WEIGHT * (waited_ms - self._waited_ms)

    @property
    def _waited(self) -> float:
        """How much of the time that others should cost by the model they really cost, 0 to 1."""
        ratio = (_WAIT_PRIOR_MS + self._waited_ms) / (_WAIT_PRIOR_MS + self._modelled_ms)
        return min(ratio, 1.0)

    def crowds(
        self, waits: Waits, *, decode_ms: float, work_ms: float, now_s: float
    ) -> Crowds | None:
        """With the requests as they might be; None if all have room, with plans of `work_ms`."""
        came_hz = self._came.hz(now_s=now_s)
        busy = self._beside + came_hz * decode_ms / 1e3
        lit = busy + came_hz * self.light_ms / 1e3
        if came_hz <= 0.0 or lit + came_hz * work_ms / 1e3 <= WANTED:
            return None
        waits = waits._replace(overhead_ms=0.0, remote_hz=came_hz, waited=self._waited)
        return Crowds(
            first=waits._replace(busy=lit, room=WANTED),
            without=waits._replace(busy=busy, room=WANTED, for_all=True),
            room_ms=max(WANTED - lit, 0.0) * 1e3 / came_hz,
        )
