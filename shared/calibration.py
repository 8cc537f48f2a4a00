"""How sure the light model was of pictures kept out of its making, and whether the large agreed.

Measured once, by the compiler, on the evaluation pictures: neither training, temperature nor
quantization has seen them. A bundle holds it as a small JSON file of its own.
"""

import math
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from typing import Annotated

import msgspec

from .errors import BundleError

FORMAT = 1
_STEPS = 10**6

_Confidence = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """Confidences, each list ascending: where the large model agreed, and where it differed."""

    agreed: tuple[_Confidence, ...]
    differed: tuple[_Confidence, ...]
    format: int = FORMAT

    def __post_init__(self) -> None:
        if any(list(each) != sorted(each) for each in (self.agreed, self.differed)):
            raise ValueError("confidences do not ascend")

    @classmethod
    def of(cls, pairs: Iterable[tuple[float, bool]]) -> "Calibration":
        """From (confidence, whether the large model agreed), a pair per picture.

        >>> Calibration.of([(0.9999999, True), (0.5, False)]).agreed
        (0.999999,)
        """
        found: dict[bool, list[float]] = {True: [], False: []}
        for confidence, agreed in pairs:
            found[bool(agreed)].append(rounded_down(confidence))
        return cls(agreed=tuple(sorted(found[True])), differed=tuple(sorted(found[False])))

    def __len__(self) -> int:
        return len(self.agreed) + len(self.differed)

    @cached_property
    def groups(self) -> tuple[tuple[float, int, int], ...]:
        """(confidence, pictures, differed) from the most confident down; equal ones are one."""
        differed = Counter(self.differed)
        counts = Counter(self.agreed) + differed
        return tuple((each, counts[each], differed[each]) for each in sorted(counts, reverse=True))


def rounded_down(confidence: float) -> float:
    """To six digits: at least as large as a threshold of six digits exactly when `confidence` is.

    >>> rounded_down(0.1234567), rounded_down(0.3), rounded_down(1.0)
    (0.123456, 0.3, 1.0)
    """
    step = math.floor(confidence * _STEPS)
    if (step + 1) / _STEPS <= confidence:  # the product was rounded, the quotient decides
        step += 1
    if step / _STEPS > confidence:
        step -= 1
    return step / _STEPS


def encode_calibration(calibration: Calibration) -> bytes:
    """Canonical JSON."""
    return msgspec.json.encode(calibration, order="deterministic") + b"\n"


def decode_calibration(encoded: bytes) -> Calibration:
    """BundleError if it is none that this version reads."""
    try:
        found = msgspec.json.decode(encoded, type=Calibration)
    except (msgspec.DecodeError, ValueError) as error:
        raise BundleError(f"the light model's calibration: {error}") from error
    if found.format != FORMAT:
        raise BundleError(
            f"the light model's calibration has format {found.format}; this version reads {FORMAT}"
        )
    return found
