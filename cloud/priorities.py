"""Priorities as Triton has them: which of the waiting requests go first, whenever they are due."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..shared import oip
from ..shared.errors import RequestError

_LEVELS, _DEFAULT = 10, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Priorities:
    """The levels of a model: 1 goes first, `levels` last; `default` for requests that name none."""

    levels: int = _LEVELS
    default: int = _DEFAULT

    def __post_init__(self) -> None:
        if not 1 <= self.default <= self.levels:
            raise ValueError(f"the default level {self.default} is not from 1 to {self.levels}")

    def level(self, rank: int) -> int:
        """The level so far behind the default, or the nearest there is.

        >>> Priorities(levels=3, default=2).level(-1), Priorities(levels=3, default=2).level(4)
        (1, 3)
        """
        return min(max(1, self.default + rank), self.levels)

    def rank(self, parameters: Mapping[str, oip.Value]) -> int:
        """How many levels behind its model's default a request goes; RequestError if it errs.

        >>> Priorities().rank({"priority": 1}), Priorities().rank({"priority": 0})
        (-4, 0)
        """
        asked = oip.number(parameters, oip.PRIORITY)
        if not asked:
            return 0
        if not (asked.is_integer() and 1 <= asked <= self.levels):
            raise RequestError(
                f"parameter {oip.PRIORITY} is {parameters[oip.PRIORITY]}; it must be a whole "
                f"number from 1 (goes first) to {self.levels}, or 0 for the default, {self.default}"
            )
        return int(asked) - self.default
