"""Watches the promise of the cascade on live traffic, and says so when it no longer holds."""

import logging
import random

from ..shared.cascade import Level
from ..shared.deadline import Clock, monotonic
from .audit import Alarm, Audit, AuditSettings

log = logging.getLogger(__name__)


class Auditor:
    """Audits the answers that stand at one agreement, the agent's own."""

    def __init__(
        self,
        min_agreement: float,
        *,
        delta: float,
        settings: AuditSettings,
        seed: int | None = None,
        clock: Clock = monotonic,
    ) -> None:
        self.min_agreement = min_agreement
        self.alarm_at_s: float | None = None
        self.failed = 0
        self.last_failure = ""
        self._clock = clock
        self._audit = Audit(Level(1.0 - min_agreement, delta), settings)
        self._random = random.Random(seed)  # noqa: S311  a sample, not a secret

    @property
    def alarm(self) -> Alarm | None:
        """Why the promise is no longer believed; None as long as it is."""
        return self._audit.alarm

    @property
    def audit(self) -> Audit:
        """What came of it so far; to be read only."""
        return self._audit

    def wants(self, min_agreement: float | None) -> bool:
        """Whether an answer that was sure enough for this agreement is to be checked."""
        if min_agreement != self.min_agreement or self.alarm is not None:
            return False
        return self._audit.wants(self._random.random())

    def observe(self, agreed: bool) -> None:
        """What the cloud said of an answer that was wanted."""
        before = self.alarm
        self._audit.observe(agreed)
        if before is None and self.alarm is not None:
            self.alarm_at_s = self._clock()
            log.warning("answers of the light model no longer stand: %s", self.alarm)

    def fail(self, reason: str) -> None:
        """The cloud said nothing of an answer that was wanted."""
        self.failed += 1
        self.last_failure = reason
        log.debug("an audit came to nothing: %s", reason)

    def trusts(self, min_agreement: float | None) -> bool:
        """Whether answers may stand; after an alarm none do at the audited agreement or above."""
        if self.alarm is None or min_agreement is None:
            return True
        return min_agreement < self.min_agreement
