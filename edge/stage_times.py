"""How long each stage takes on this device now: a profile first, then what is seen. Pure."""

from collections import deque

from ..devices.profile import StageTime

_WINDOW = 64
_ENOUGH = 8
"""So many runs seen outweigh the profile."""


class StageTimes:
    """Upper quantiles per stage. A stage nobody measured takes forever, so nobody plans with it."""

    def __init__(self, profile: dict[str, StageTime]) -> None:
        self._profile = profile
        self._seen: dict[str, deque[float]] = {}

    def observe(self, stage: str, ms: float) -> None:
        """One run of a stage took so long."""
        self._seen.setdefault(stage, deque(maxlen=_WINDOW)).append(ms)

    def p95_ms(self, stage: str) -> float:
        seen = self._seen.get(stage)
        if seen is not None and len(seen) >= _ENOUGH:
            return _quantile(seen, 0.95)
        known = self._profile.get(stage)
        return known.p95_ms if known else float("inf")

    def p999_ms(self, stage: str) -> float:
        """No window shows a p99.9: the profile's, or a fifth above the slowest seen."""
        known = self._profile.get(stage)
        profile_ms = known.p999_ms if known else float("inf")
        slowest = max(self._seen.get(stage, ()), default=0.0)
        return max(profile_ms, 1.2 * slowest)


def _quantile(values: "deque[float]", share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]
