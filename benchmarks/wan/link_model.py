"""One link, packet by packet: when what is put in at one end comes out at the other.

Pure: sizes and clock readings in, delivery times out. The emulator drives it with real packets, the
simulator with numbers. Each direction is one queue before one bottleneck, and then a line:

    put ─▶ drop-tail queue ─▶ bottleneck: a rate, or a trace ─▶ loss ─▶ delay, jitter ─▶ delivered

    >>> lte = DirectionSpec(bottleneck=Rate(bps=12e6), delay_ms=25.0)
    >>> direction = Direction(lte, seed=1)
    >>> round(direction.put(1500, now_s=0.0), 6)
    0.026

A trace is a list of delivery opportunities of 1500 bytes each, as Saturator records them, replayed
as Mahimahi does (Netravali et al., USENIX ATC 2015): packets may share an opportunity, a larger
packet takes several, what is not used when it comes is gone, and the trace repeats.
"""

import math
import random
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Protocol

OPPORTUNITY_BYTES = 1500
_SEGMENT_BYTES, _SEGMENT_HEADERS = 1448, 52
"""Of TCP over IP in 1500 bytes."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A bottleneck of constant rate."""

    bps: float

    def __post_init__(self) -> None:
        if not 0 < self.bps < math.inf:
            raise ValueError(f"a rate must be above 0 and finite, not {self.bps}")


class Trace:
    """Delivery opportunities, in seconds from the trace's beginning; with the last it ends."""

    def __init__(self, opportunities_s: Sequence[float]) -> None:
        times_s = [float(time_s) for time_s in opportunities_s]
        if not times_s or times_s[-1] <= 0 or times_s[0] < 0:
            raise ValueError("a trace needs opportunities, none before 0 and the last after it")
        if any(after < before for before, after in pairwise(times_s)):
            raise ValueError("the opportunities of a trace must be in order")
        self.times_s = times_s
        self.period_s = times_s[-1]

    @property
    def mean_bps(self) -> float:
        return len(self.times_s) * OPPORTUNITY_BYTES * 8 / self.period_s

    def time_s(self, number: int) -> float:
        """When an opportunity comes, counted on through all repetitions."""
        turn, position = divmod(number, len(self.times_s))
        return turn * self.period_s + self.times_s[position]

    def first_from(self, time_s: float) -> int:
        """The number of the first opportunity that does not come before a time."""
        turn = max(0, math.ceil(time_s / self.period_s) - 1)
        number = turn * len(self.times_s) + bisect_left(self.times_s, time_s - turn * self.period_s)
        while self.time_s(number) < time_s:  # a rounding of the division
            number += 1
        return number


class OutageKind(StrEnum):
    """What an outage does: `drop` loses what enters or leaves meanwhile, `hold` keeps it waiting.

    While it holds, the link's own time stands still, a trace's too.
    """

    DROP = "drop"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class Outages:
    """Intervals [from, to) in seconds, over again every `period_s`."""

    intervals_s: tuple[tuple[float, float], ...]
    period_s: float = math.inf
    kind: OutageKind = OutageKind.DROP

    def __post_init__(self) -> None:
        ends = [0.0, *(end for interval in self.intervals_s for end in interval)]
        if sorted(ends) != ends or ends[-1] > self.period_s:
            raise ValueError("outages must be in order, apart, and within their period")
        if self.total_s >= self.period_s:
            raise ValueError("a link that is never up is no link")

    @property
    def total_s(self) -> float:
        return sum(end - start for start, end in self.intervals_s)

    def down(self, time_s: float) -> bool:
        within_s = time_s % self.period_s
        return any(start <= within_s < end for start, end in self.intervals_s)

    def up_s(self, time_s: float) -> float:
        """How long the link has been up at a time."""
        turns = time_s // self.period_s
        within_s = time_s - turns * self.period_s if turns else time_s
        lost_s = sum(
            min(within_s, end) - start for start, end in self.intervals_s if start < within_s
        )
        return (turns * (self.period_s - self.total_s) if turns else 0.0) + within_s - lost_s

    def when_up_s(self, up_s: float) -> float:
        """The first time at which the link has been up so long: `up_s` turned around."""
        each_s = self.period_s - self.total_s
        turns = up_s // each_s
        time_s = up_s - turns * each_s if turns else up_s
        for start, end in self.intervals_s:
            if time_s <= start:
                break
            time_s += end - start
        return (turns * self.period_s if turns else 0.0) + time_s


@dataclass(frozen=True, slots=True)
class DirectionSpec:
    """One way of a link. Jitter is uniform, plus or minus; loss is a share of packets, 0 to 1."""

    bottleneck: Rate | Trace
    delay_ms: float
    jitter_ms: float = 0.0
    loss: float = 0.0
    queue_bytes: int = 150_000
    outages: Outages | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.jitter_ms <= self.delay_ms < math.inf:
            raise ValueError("jitter must be between 0 and the delay")
        if not 0 <= self.loss < 1:
            raise ValueError(f"loss is a share from 0 to below 1, not {self.loss}")
        if self.queue_bytes < 0:
            raise ValueError("a queue cannot hold less than nothing")


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """Both ways of a link: `up` leaves the device, `down` comes back."""

    name: str
    up: DirectionSpec
    down: DirectionSpec


@dataclass(slots=True)
class Counts:
    """What became of the packets put in. All but `put` and its bytes leave no delivery behind."""

    put: int = 0
    put_bytes: int = 0
    delivered: int = 0
    delivered_bytes: int = 0
    queue_full: int = 0
    lost: int = 0
    in_outage: int = 0


class _Bottleneck(Protocol):
    """Serves packets in order."""

    def leaves_s(self, size_bytes: int, now_s: float) -> float:
        """When a packet that came now has passed."""


class _RateServer:
    def __init__(self, rate: Rate) -> None:
        self._s_per_byte = 8 / rate.bps
        self._free_s = -math.inf

    def leaves_s(self, size_bytes: int, now_s: float) -> float:
        self._free_s = max(self._free_s, now_s) + size_bytes * self._s_per_byte
        return self._free_s


class _TraceServer:
    """`_number` is the opportunity in use, `_at_s` its time, `_left` its bytes not yet used."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._number, self._at_s, self._left = 0, trace.time_s(0), OPPORTUNITY_BYTES

    def leaves_s(self, size_bytes: int, now_s: float) -> float:
        if self._at_s < now_s:
            self._move(self._trace.first_from(now_s), OPPORTUNITY_BYTES)
        missing = size_bytes - self._left
        if missing > 0:
            more = -(-missing // OPPORTUNITY_BYTES)
            self._move(self._number + more, more * OPPORTUNITY_BYTES - missing)
        else:
            self._left -= size_bytes
        leaves_s = self._at_s
        if self._left == 0:
            self._move(self._number + 1, OPPORTUNITY_BYTES)
        return leaves_s

    def _move(self, number: int, left: int) -> None:
        self._number, self._at_s, self._left = number, self._trace.time_s(number), left


@dataclass(slots=True)
class _Waiting:
    """Bytes in the queue and in the bottleneck, with the times at which they will have left."""

    size_bytes: int = 0
    leaving: deque[tuple[float, int]] = field(default_factory=deque)

    def forget_until(self, now_s: float) -> None:
        leaving = self.leaving
        while leaving and leaving[0][0] <= now_s:
            self.size_bytes -= leaving.popleft()[1]

    def add(self, leaves_s: float, size_bytes: int) -> None:
        self.leaving.append((leaves_s, size_bytes))
        self.size_bytes += size_bytes


class Direction:
    """One way of a link in use. The link's time 0 is `start_s` on the clock that `put` is told.

    `offset_s` is how far into its trace and its outages the link is at that moment, so that the
    same stretch of a recorded link can be had again.
    """

    def __init__(
        self, spec: DirectionSpec, *, seed: int | str, start_s: float = 0.0, offset_s: float = 0.0
    ) -> None:
        if offset_s < 0:
            raise ValueError("a link cannot start before its trace")
        self.spec = spec
        self.counts = Counts()
        self._random = random.Random(seed).random
        self._origin_s = start_s - offset_s
        self._delay_s, self._jitter_s = spec.delay_ms / 1e3, spec.jitter_ms / 1e3
        self._outages = spec.outages
        self._holds = spec.outages is not None and spec.outages.kind is OutageKind.HOLD
        bottleneck = spec.bottleneck
        self._server: _Bottleneck = (
            _RateServer(bottleneck) if isinstance(bottleneck, Rate) else _TraceServer(bottleneck)
        )
        self._waiting = _Waiting()
        self.last_put_s, self._last_delivery_s = self._origin_s, -math.inf

    def waiting_bytes(self, now_s: float) -> int:
        """What has been put in and has not passed the bottleneck yet."""
        self._waiting.forget_until(now_s - self._origin_s)
        return self._waiting.size_bytes

    def put(self, size_bytes: int, now_s: float) -> float | None:
        """When a packet that is sent now arrives, on the same clock; None if it never does.

        Packets must be put in order of time, none before the link's time 0 (ValueError), and they
        arrive in that order. One finds room in an empty queue whatever its size. Of one that is
        lost on the line, the bottleneck's time is used all the same.
        """
        if now_s < self.last_put_s or size_bytes <= 0:
            raise ValueError("packets have a size and are put in order of time")
        self.last_put_s = now_s
        counts, waiting, link_s = self.counts, self._waiting, now_s - self._origin_s
        counts.put += 1
        counts.put_bytes += size_bytes
        if waiting.leaving:
            waiting.forget_until(link_s)
        if self._outages is not None and not self._holds and self._outages.down(link_s):
            counts.in_outage += 1
            return None
        if waiting.size_bytes and waiting.size_bytes + size_bytes > self.spec.queue_bytes:
            counts.queue_full += 1
            return None
        leaves_s = self._serve(size_bytes, link_s)
        waiting.add(leaves_s, size_bytes)
        if self._outages is not None and not self._holds and self._outages.down(leaves_s):
            counts.in_outage += 1
            return None
        if self.spec.loss and self._random() < self.spec.loss:
            counts.lost += 1
            return None
        counts.delivered += 1
        counts.delivered_bytes += size_bytes
        return self._arrival_s(leaves_s) + self._origin_s

    def send(self, size_bytes: int, now_s: float, *, again_s: float) -> float:
        """When the last byte of a message arrives, as TCP's segments: in order, none lost.

        What the link drops is put again so much later, and all that follows behind it.
        """
        put_s, arrives_s = max(now_s, self.last_put_s), now_s
        for start in range(0, size_bytes, _SEGMENT_BYTES):
            segment = min(_SEGMENT_BYTES, size_bytes - start) + _SEGMENT_HEADERS
            while (at_s := self.put(segment, put_s)) is None:
                put_s += again_s
            arrives_s = at_s
        return arrives_s

    def _serve(self, size_bytes: int, link_s: float) -> float:
        if self._outages is None or not self._holds:
            return self._server.leaves_s(size_bytes, link_s)
        leaves_s = self._server.leaves_s(size_bytes, self._outages.up_s(link_s))
        return max(link_s, self._outages.when_up_s(leaves_s))

    def _arrival_s(self, leaves_s: float) -> float:
        arrival_s = leaves_s + self._delay_s
        if self._jitter_s:
            arrival_s += (2 * self._random() - 1) * self._jitter_s
        self._last_delivery_s = max(arrival_s, self._last_delivery_s)
        return self._last_delivery_s


class Link:
    """Both ways of a link in use, each with random numbers of its own."""

    def __init__(
        self, spec: LinkSpec, *, seed: int, start_s: float = 0.0, offset_s: float = 0.0
    ) -> None:
        self.spec = spec
        self.up, self.down = (
            Direction(way, seed=f"{seed}/{name}", start_s=start_s, offset_s=offset_s)
            for name, way in (("up", spec.up), ("down", spec.down))
        )
