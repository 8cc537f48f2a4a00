"""How much of the processor this process uses, of what it may use. Pure: clocks are arguments."""

_SPAN_S = 0.25
"""How long one reading lasts."""
_WEIGHT = 0.3


class ProcessorLoad:
    """The share of the usable processor time that was used lately, 0 to 1.

    `wall_per_cpu` is how much longer than its processor time a stage takes when it runs alone: 1 on
    a core of one's own, 4 where a quota leaves a quarter of it. `cores` may run at a time.
    """

    def __init__(self, *, wall_per_cpu: float = 1.0, cores: int = 1) -> None:
        self._scale = max(wall_per_cpu, 1.0) / cores
        self._before: tuple[float, float] | None = None
        self.share = 0.0

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
            used = (cpu_s - self._before[1]) * self._scale / elapsed_s
            self.share += _WEIGHT * (min(used, 1.0) - self.share)
            self._before = now_s, cpu_s
        return self.share
