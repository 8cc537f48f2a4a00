"""How an agent is doing: what its answers of the last minute have in common. Pure.

Fed with every answer and a clock reading. Keeps the last minute, and at most five hundred answers
of it, so that a summary takes under a millisecond: on a busy agent the window is shorter, and says
so.
"""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np

from .answer import Answer

WINDOW_S = 60.0
MOST_ANSWERS = 512
_TENTHS = 10
_MOST_REASONS = 8
_NO_ARRAY = np.zeros(0, np.float32)
_STEPS = (
    "decode",
    "resize_light",
    "light",
    "resize_large",
    "head",
    "encode",
    "network",
    "cloud_queue",
    "cloud_compute",
)


@dataclass(slots=True)
class Counts:
    """Answers by what became of them."""

    answers: int = 0
    within_budget: int = 0
    provisional: int = 0
    fallback: int = 0
    finals: int = 0
    finals_missing: int = 0
    sent_bytes: int = 0

    def add(self, answer: Answer) -> None:
        """Counts an answer; a final one is a second answer to one request, and counted apart."""
        if answer.final:
            self.finals += 1
            self.finals_missing += bool(answer.fallback)
            return
        self.answers += 1
        self.within_budget += answer.within_budget
        self.provisional += answer.provisional
        self.fallback += bool(answer.fallback)
        self.sent_bytes += answer.sent_bytes


@dataclass(frozen=True, slots=True)
class StepTime:
    """Quantiles of one step's times, in ms."""

    p50_ms: float
    p95_ms: float
    runs: int


@dataclass(frozen=True, slots=True)
class Summary:
    """The agent at one instant.

    `budget_tenths` counts answers by how much of their budget they took, those that took more than
    all of it last; `per_second` counts them by whole seconds, the oldest first.
    """

    uptime_s: float
    total: Counts
    window_s: float
    recent: Counts
    plans: dict[str, int]
    fallbacks: dict[str, int]
    budget_tenths: list[int]
    per_second: list[int]
    steps: dict[str, StepTime]


@dataclass(frozen=True, slots=True)
class _Seen:
    answer: Answer
    plan: str
    at_s: float


@dataclass(slots=True)
class Monitor:
    """Records answers, and sums up the last of them."""

    started_s: float
    total: Counts = field(default_factory=Counts)
    _seen: "deque[_Seen]" = field(default_factory=lambda: deque(maxlen=MOST_ANSWERS))
    _seconds: "deque[tuple[int, int]]" = field(default_factory=deque)
    """Whole seconds since the start, and the answers given in each."""

    def record(self, answer: Answer, *, now_s: float) -> None:
        """One answer has just been given, or has followed a provisional one."""
        self.total.add(answer)
        light = msgspec.structs.replace(answer, probabilities=_NO_ARRAY, outputs={})
        self._seen.append(_Seen(light, str(answer.plan), now_s))
        if answer.final:
            return
        second = int(now_s - self.started_s)
        if self._seconds and self._seconds[-1][0] == second:
            self._seconds[-1] = (second, self._seconds[-1][1] + 1)
        else:
            self._seconds.append((second, 1))
            while self._seconds[0][0] < second - WINDOW_S:
                self._seconds.popleft()

    def summary(self, *, now_s: float) -> Summary:
        """The state now, over at most the last minute."""
        full = len(self._seen) == MOST_ANSWERS
        since_s = max(now_s - WINDOW_S, self._seen[0].at_s if full else self.started_s)
        while self._seen and self._seen[0].at_s < since_s:
            self._seen.popleft()
        recent, plans, fallbacks = Counts(), Counter[str](), Counter[str]()
        tenths = [0] * (_TENTHS + 1)
        steps: dict[str, list[float]] = {}
        for seen in self._seen:
            answer = seen.answer
            recent.add(answer)
            if answer.final:
                continue
            plans[seen.plan] += 1
            if answer.fallback:
                fallbacks[answer.fallback] += 1
            tenths[_tenth(answer)] += 1
            for name, ms in answer.steps_ms.items():
                steps.setdefault(name, []).append(ms)
        return Summary(
            uptime_s=now_s - self.started_s,
            total=replace(self.total),
            window_s=now_s - since_s,
            recent=recent,
            plans=dict(plans.most_common()),
            fallbacks=_most_common(fallbacks),
            budget_tenths=tenths,
            per_second=list(self._per_second(now_s)),
            steps={name: _quantiles(steps[name]) for name in sorted(steps, key=_order)},
        )

    def _per_second(self, now_s: float) -> Iterator[int]:
        """The seconds that are over; the one that runs says nothing yet."""
        running = int(now_s - self.started_s)
        counted = dict(self._seconds)
        for second in range(max(0, running - int(WINDOW_S)), running):
            yield counted.get(second, 0)


def _most_common(reasons: Counter[str]) -> dict[str, int]:
    """The frequent ones by their words; reasons may differ in every word, so the rest is summed."""
    named = dict(reasons.most_common(_MOST_REASONS))
    others = reasons.total() - sum(named.values())
    return named | ({"others": others} if others else {})


def _tenth(answer: Answer) -> int:
    """Which tenth of its budget an answer ended in; the last is beyond all of it."""
    if not answer.within_budget:
        return _TENTHS
    return min(int(_TENTHS * answer.total_ms / answer.budget_ms), _TENTHS - 1)


def _order(step: str) -> tuple[int, str]:
    return _STEPS.index(step) if step in _STEPS else len(_STEPS), step


def _quantiles(times_ms: list[float]) -> StepTime:
    ordered = sorted(times_ms)
    middle, upper = (ordered[int(share * (len(ordered) - 1))] for share in (0.5, 0.95))
    return StepTime(middle, upper, len(ordered))
