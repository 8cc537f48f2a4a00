"""How much of the instances each model may book, while more is asked of them than they can do.

Pure: what happened and clock readings go in, refusals come out. `cloud/scheduler.py` asks it.

Shares are no part of the order, but of admission. While much is asked in vain, who has used more
than its share of the last seconds is held to it: of the time until each of its deadlines it may
book its share and no more, so that the others' newcomers find the rest free. If one that has not
used its share is in want all the same, who has used more may book nothing. Its share is a model's
weight among those that were asked for lately; one alone has all.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..shared.errors import ConfigError, ShareUsedUp

_FADE_S = 2.0
"""What was used or asked in vain counts a third after so long: "the last seconds"."""
_LATELY_S = 30.0
_WANTED_S = 1.0
"""So long after its last refusal a model is not in want: it may want nothing any more."""
_DUE = 0.95
_IN_VAIN = 0.1
"""Of an instance's time, or of a share: less is refused where deadlines are tight, not time."""


@dataclass(slots=True)
class Fading:
    """A sum whose terms fade.

    >>> ran = Fading()
    >>> ran.add(8.0, now_s=0.0)
    >>> round(ran.at(2.0), 1)
    2.9
    """

    _sum: float = 0.0
    _at_s: float = 0.0

    def at(self, now_s: float) -> float:
        return self._sum * math.exp(min(0.0, self._at_s - now_s) / _FADE_S)

    def add(self, value: float, *, now_s: float) -> None:
        self._sum, self._at_s = self.at(now_s) + value, now_s


@dataclass(slots=True)
class _Account:
    weight: float
    asked_s: float
    used_ms: Fading = field(default_factory=Fading)
    vain_ms: Fading = field(default_factory=Fading)
    refused_s: float = -math.inf

    def wanted_ms(self, now_s: float) -> float:
        """What it was asked for in vain, and may still be."""
        return self.vain_ms.at(now_s) if now_s <= self.refused_s + _WANTED_S else 0.0


class Shares:
    """What each model has had of the instances, and what it may have."""

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        """ConfigError for a weight that is none; models without one have 1."""
        self._weights = dict(weights or {})
        for model, weight in self._weights.items():
            if not 0 < weight < math.inf:
                raise ConfigError(f"the share of {model} must be above 0, not {weight:g}")
        self._accounts: dict[str, _Account] = {}

    def asked(self, model: str, *, now_s: float) -> None:
        """A request for a model has come."""
        if (account := self._accounts.get(model)) is None:
            self._accounts[model] = _Account(self._weights.get(model, 1.0), now_s)
        else:
            account.asked_s = now_s

    def used(self, model: str, took_ms: float, *, now_s: float) -> None:
        """An instance has computed for a model."""
        if account := self._accounts.get(model):
            account.used_ms.add(took_ms, now_s=now_s)

    def refused(self, model: str, needs_ms: float, *, now_s: float) -> None:
        """A request that an idle instance could have answered was not accepted."""
        account = self._accounts[model]
        account.vain_ms.add(needs_ms, now_s=now_s)
        account.refused_s = now_s

    def check(
        self,
        model: str,
        *,
        needs_ms: float,
        deadline_s: float,
        booked: Iterable[tuple[float, float]],
        instances: int,
        now_s: float,
    ) -> None:
        """ShareUsedUp if a newcomer of a model that was asked for may not be booked as well.

        `booked` already are so many milliseconds each, until a deadline each.
        """
        lately = [each for each in self._accounts.values() if each.asked_s >= now_s - _LATELY_S]
        all_ms = instances * _FADE_S * 1e3
        if len(lately) <= 1 or not self._in_vain(lately, all_ms, now_s):
            return
        own = self._accounts[model]
        weights = sum(each.weight for each in lately)
        share = own.weight / weights
        wanted = sorted((*booked, (deadline_s, needs_ms)))
        if own.used_ms.at(now_s) + sum(ms for _, ms in wanted) <= share * all_ms:
            return
        told = f"{model} has used up its share, {share:.0%} of what can be computed"
        for each in lately:
            due_ms = each.weight / weights * all_ms
            in_want = self._in_vain((each,), due_ms, now_s)
            if in_want and each is not own and each.used_ms.at(now_s) < _DUE * due_ms:
                raise ShareUsedUp(f"{told}, and others wait for theirs")
        sum_ms = 0.0
        for until_s, ms in wanted:
            sum_ms += ms
            room_ms = share * instances * (until_s - now_s) * 1e3
            if until_s >= deadline_s and sum_ms > room_ms:
                raise ShareUsedUp(f"{told}: of {sum_ms:.1f} ms it may have {room_ms:.1f}")

    @staticmethod
    def _in_vain(accounts: Iterable[_Account], of_ms: float, now_s: float) -> bool:
        return sum(each.wanted_ms(now_s) for each in accounts) > _IN_VAIN * of_ms
