"""How much of the processor this process uses, of what it may use. Pure: clocks are arguments."""

_SPAN_S = 0.25
"""How long one reading lasts."""
_WEIGHT = 0.3
WANTED = 0.88
"""The share that is to be used; more of it is time spent waiting for one another."""
_STEP = 0.03
"""How fast the price follows, in agreement per ms, for each share too much and second."""
_MOST_PER_MS = 0.1
"""Nobody pays that: a plan of 10 ms would have to mend every answer."""


class ProcessorLoad:
    """The share of the usable processor time that was used lately, 0 to 1.

    `wall_per_cpu` is how much longer than its processor time a stage takes when it runs alone: 1 on
    a core of one's own, 4 where a quota leaves a quarter of it. `cores` may run at a time. Whoever
    is seen to use more than that may use more: it was measured beside others.

    `price_per_ms` is what a ms of the processor's time, were it alone, is worth in agreement: zero
    while there is time to spare, and else as much as brings the use back to what is wanted. Who
    takes whatever gains more than it costs then shares a full processor in the best way (the dual
    of maximising all agreement within what the processor can do, by subgradients; Low and Lapsley,
    Optimization Flow Control, 1999).
    """

    def __init__(self, *, wall_per_cpu: float = 1.0, cores: int = 1) -> None:
        self._scale = max(wall_per_cpu, 1.0) / cores
        self._before: tuple[float, float] | None = None
        self.share = self.price_per_ms = 0.0

    def read(self, cpu_s: float, *, now_s: float) -> float:
        """The share, after a look at the process's own clock of processor time.

        >>> load, looks = ProcessorLoad(wall_per_cpu=4.0), ((0, 0), (1, 0.2), (2, 0.4))
        >>> [round(load.read(cpu_s, now_s=now_s), 2) for now_s, cpu_s in looks]
        [0.0, 0.24, 0.41]
        """
        if self._before is None:
            self._before = now_s, cpu_s
        elapsed_s = now_s - self._before[0]
        if elapsed_s >= _SPAN_S:
            rate = (cpu_s - self._before[1]) / elapsed_s
            self._scale = min(self._scale, 1.0 / rate) if rate > 0.0 else self._scale
            used = rate * self._scale
            self.share += _WEIGHT * (used - self.share)
            step = _STEP * (used - WANTED) * min(elapsed_s, 1.0)
            self.price_per_ms = min(max(self.price_per_ms + step, 0.0), _MOST_PER_MS)
            self._before = now_s, cpu_s
        return self.share
