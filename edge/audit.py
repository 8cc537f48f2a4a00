"""Whether the cascade's promise still holds on live traffic, from a small random share of it. Pure.

Of the answers that were let stand, a share also goes to the cloud afterwards. Each audited one
either agrees with the large model or differs. A gambler who starts with 1 bets against "at most a
share alpha differs": for a rate q above alpha a bet multiplies by q/alpha where an answer differs
and by (1-q)/(1-alpha) where it agrees. While the promise holds no way of betting is expected to
gain, so that the fortune ever reaches 1/delta with probability at most delta (Ville 1939; Waudby-
Smith and Ramdas, JRSS B 86(1), 2024): one may look after every answer, for ever.

The fortune is spread over several q, and over the moments at which betting starts, 1/(n(n+1)) for
the n-th answer: for a change that comes late, a long good time before costs but its logarithm.
Values in, values out: draws and answers come from the caller.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from ..shared.cascade import Level
from ..shared.errors import ConfigError

_ODDS = (1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)
"""By how much the odds of differing grew, in each of the worlds that are betted on."""
_BISECTIONS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """At most a share of the answers is audited; a false alarm has at most probability `delta`."""

    share: float = 0.02
    delta: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"audit share {self.share:g}: it has to lie above 0, up to 1")
        if not 0 < self.delta < 1:
            raise ConfigError(f"audit delta {self.delta:g}: it has to lie between 0 and 1")


@dataclass(frozen=True, slots=True)
class Estimate:
    """How many of the audited answers differed, and between which rates that lies.

    The interval holds at every moment at once with probability 1 - delta, for a rate that stays.
    """

    audited: int
    differed: int
    low: float
    high: float

    @property
    def rate(self) -> float:
        return self.differed / self.audited if self.audited else 0.0


@dataclass(frozen=True, slots=True)
class Alarm:
    """Why the promise is no longer believed; `evidence` is the fortune, at least 1/delta."""

    level: Level
    estimate: Estimate
    evidence: float

    def __str__(self) -> str:
        return (
            f"{self.estimate.differed} of {self.estimate.audited} audited answers differ from the "
            f"large model's, where at most {self.level.alpha:.4g} may (evidence "
            f"{self.evidence:.3g} to 1): pictures are no longer like those the bundle was measured "
            "on; send answers to the cloud, and build again with pictures from here"
        )


@dataclass(slots=True)
class Audit:
    """Chooses what is audited, and watches what comes of it. One thread at a time.

    Ask `wants` once for each answer that was let stand, and `observe` what the cloud said of those
    that were wanted, in any order; one that the cloud never answered is left out.
    """

    level: Level
    settings: AuditSettings = field(default_factory=AuditSettings)
    alarm: Alarm | None = field(default=None, init=False)
    _stood: int = field(default=0, init=False)
    _wanted: int = field(default=0, init=False)
    _audited: int = field(default=0, init=False)
    _differed: int = field(default=0, init=False)
    _fortunes: list[float] = field(init=False)
    _bets: tuple[tuple[float, float], ...] = field(init=False)

    def __post_init__(self) -> None:
        self._bets = tuple(_bet(self.level.alpha, odds) for odds in _ODDS)
        self._fortunes = [0.0] * len(self._bets)

    @property
    def stood(self) -> int:
        """Answers that were let stand and asked about, since the start."""
        return self._stood

    @property
    def wanted(self) -> int:
        """Those of them that were to be audited."""
        return self._wanted

    def wants(self, draw: float) -> bool:
        """Whether to audit one more answer that was let stand; `draw` is uniform in [0, 1).

        Never more than the share of all those asked about, whatever is drawn.
        """
        self._stood += 1
        wanted = (
            draw < self.settings.share and self._wanted + 1 <= self.settings.share * self._stood
        )
        self._wanted += wanted
        return wanted

    def observe(self, agreed: bool) -> None:
        """What the cloud said of an audited answer. An alarm stays until `reset`."""
        self._audited += 1
        self._differed += not agreed
        if self.alarm is not None:
            return
        fresh = 1 / (self._audited * (self._audited + 1) * len(self._bets))
        self._fortunes = [
            (fortune + fresh) * bet[agreed]
            for fortune, bet in zip(self._fortunes, self._bets, strict=True)
        ]
        if self.evidence >= 1 / self.settings.delta:
            self.alarm = Alarm(self.level, self.estimate(), self.evidence)

    @property
    def evidence(self) -> float:
        """The gambler's fortune, what is not yet betted included: 1 at the start."""
        return sum(self._fortunes) + 1 / (self._audited + 1)

    def estimate(self) -> Estimate:
        """Since the start, or the last `reset`."""
        low, high = _interval(self._differed, self._audited, self.settings.delta)
        return Estimate(self._audited, self._differed, low, high)

    def reset(self) -> None:
        """Takes note of an alarm, or of a new threshold: the test starts anew, the share does not.

        Each start has its own chance of a false alarm.
        """
        self.alarm = None
        self._audited = self._differed = 0
        self._fortunes = [0.0] * len(self._bets)


def _bet(alpha: float, odds: float) -> tuple[float, float]:
    """What a bet on odds so many times alpha's is multiplied by if an answer differs, or agrees."""
    agrees = 1 / (1 - alpha + alpha * odds)
    return odds * agrees, agrees


def _interval(differed: int, audited: int, delta: float) -> tuple[float, float]:
    """The rates that a mixture of all bets does not refute (Robbins 1970): Beta(1/2, 1/2)."""
    if audited == 0:
        return 0.0, 1.0
    agreed = audited - differed
    mixture = _log_beta(differed + 0.5, agreed + 0.5) - _log_beta(0.5, 0.5)

    def refuted(rate: float) -> bool:
        if (rate == 0 and differed) or (rate == 1 and agreed):
            return True
        likelihood = (differed and differed * math.log(rate)) + (
            agreed and agreed * math.log1p(-rate)
        )
        return mixture - likelihood >= -math.log(delta)

    rate = differed / audited
    return _edge(0.0, rate, refuted), _edge(1.0, rate, refuted)


def _edge(outside: float, inside: float, refuted: Callable[[float], bool]) -> float:
    """Where rates begin to be refuted on the way from one that is not."""
    if not refuted(outside):
        return outside
    for _ in range(_BISECTIONS):
        middle = (outside + inside) / 2
        if refuted(middle):
            outside = middle
        else:
            inside = middle
    return outside


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
