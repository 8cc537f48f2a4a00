"""An ideal link, and an estimate that learns it."""

from collections import deque
from dataclasses import dataclass, field

from hybridge.edge.link import Exchange, LinkEstimate

MIXED_BYTES = (400, 24_000, 3_000, 60_000)
HUGE = 5_000_000


@dataclass
class Link:
    """An ideal link, first in, first out, with a clock that goes on by a second per exchange."""

    rtt_ms: float = 50.0
    up_bps: float = 10e6
    now_s: float = 100.0
    estimate: LinkEstimate = field(default_factory=LinkEstimate)

    def takes_ms(self, up_bytes: int) -> float:
        return self.rtt_ms + up_bytes * 8e3 / self.up_bps

    def exchange(self, *sizes: int, stretched: float = 1.0) -> None:
        for up_bytes in sizes:
            exchange = self.estimate.begin(up_bytes, now_s=self.now_s)
            took_s = self.takes_ms(up_bytes) * stretched / 1e3
            self.estimate.finish(exchange, now_s=self.now_s + took_s)
            self.now_s += took_s + 1.0

    def stream(self, *sends: tuple[float, int]) -> None:
        """Each so many seconds after the last, whether that was answered or not; then all answers.

        What is sent waits until the link has passed what was sent before it.
        """
        under_way: deque[tuple[float, Exchange]] = deque()
        free_s = 0.0
        for pause_s, up_bytes in sends:
            self.now_s += pause_s
            while under_way and under_way[0][0] <= self.now_s:
                answered_s, exchange = under_way.popleft()
                self.estimate.finish(exchange, now_s=answered_s)
            free_s = max(free_s, self.now_s) + up_bytes * 8 / self.up_bps
            under_way.append((free_s + self.rtt_ms / 1e3, self.begin(up_bytes)))
        for self.now_s, exchange in under_way:
            self.estimate.finish(exchange, now_s=self.now_s)

    def begin(self, up_bytes: int) -> Exchange:
        return self.estimate.begin(up_bytes, now_s=self.now_s)

    def mean_ms(self, up_bytes: int, *, after_s: float = 0.0) -> float:
        transfer = self.estimate.transfer(now_s=self.now_s + after_s)
        return transfer.duration(up_bytes).mean_ms

    def median_ms(self, up_bytes: int) -> float:
        """With nobody else on the link, not even the exchanges it was learnt from."""
        alone = self.estimate.transfer(now_s=self.now_s + 60.0)
        return alone.duration(up_bytes).quantile(0.0)


def learnt(rounds: int = 8, *, rtt_ms: float = 50.0, up_bps: float = 10e6) -> Link:
    link = Link(rtt_ms, up_bps)
    link.exchange(*MIXED_BYTES * rounds)
    return link
