"""How likely the large model agrees, by the light model's confidence. Pure.

Isotonic regression by pooling adjacent violators (Ayer et al. 1955; Zadrozny and Elkan, KDD 2002,
for calibration): the monotone steps that fit the evaluation pictures best. Each step is then
shrunk by half a picture that agrees and half a one that differs (the prior of Jeffreys), so that
few pictures never make it 1.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from .calibration import Calibration

_PRIOR = 0.5


@dataclass(frozen=True, slots=True)
class AgreementCurve:
    """Steps upwards: from `confidences[i]` on the large model agrees with `rates[i]`."""

    confidences: tuple[float, ...]
    rates: tuple[float, ...]

    @classmethod
    def of(cls, calibration: Calibration) -> "AgreementCurve":
        """The curve of at least one picture.

        >>> AgreementCurve.of(Calibration(agreed=(0.6, 0.9), differed=(0.5,))).rates
        (0.25, 0.8333333333333334)
        """
        if not len(calibration):
            raise ValueError("a curve of no pictures")
        groups = (
            _Block(confidence, pictures - differed, pictures)
            for confidence, pictures, differed in reversed(calibration.groups)
        )
        shrunk = (
            _Block(each.confidence, each.agreed + _PRIOR, each.pictures + 2 * _PRIOR)
            for each in _pooled(groups)
        )
        blocks = _pooled(shrunk)  # a short step is shrunk more than a long one below it
        return cls(tuple(each.confidence for each in blocks), tuple(each.rate for each in blocks))

    def at(self, confidence: float) -> float:
        """The rate there; below all that were measured that of the lowest step."""
        return self.rates[max(0, bisect_right(self.confidences, confidence) - 1)]


@dataclass(frozen=True, slots=True)
class _Block:
    confidence: float
    agreed: float
    pictures: float

    @property
    def rate(self) -> float:
        return self.agreed / self.pictures


def _pooled(groups: Iterable[_Block]) -> list[_Block]:
    """Neighbours joined until the rates ascend; the groups come by ascending confidence."""
    blocks: list[_Block] = []
    for block in groups:
        while blocks and blocks[-1].rate >= block.rate:
            before = blocks.pop()
            block = _Block(
                before.confidence, before.agreed + block.agreed, before.pictures + block.pictures
            )
        blocks.append(block)
    return blocks
