"""Quantized models beside each other: what each one's answers are worth, and which one stays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import numpy as np

from ....devices.profile import StageTime
from ....shared.manifest import Precision, Quantized, Rate
from ..litert import Floats
from .ranges import Ranges

HELD_OUT_EVERY = 4
GOOD_DB = 15.0
"""From here on agreement alone says which answers are better."""
_NEARLY_DB = 6.0
_MARGIN = 1.3
_MOST_DB = 200.0
_NOTHING_MS = 0.1

Item = TypeVar("Item")


class Scheme(StrEnum):
    """What is int8 beside the weights: the activations (static), or nothing (dynamic)."""

    STATIC = "static"
    DYNAMIC = "dynamic"


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Answers of a quantized model against the float one's, on inputs that calibrated nothing."""

    agreement: Rate
    snr_db: float

    @classmethod
    def of(cls, answers: Floats, wanted: Floats) -> "Quality":
        """Answers [n, classes]; what is the same for all classes is neither signal nor noise."""
        noise, signal = _centred(answers) - _centred(wanted), _centred(wanted)
        power, noise_power = float(np.sum(signal**2)), float(np.sum(noise**2))
        snr_db = 10 * np.log10(power / noise_power) if power > 0 < noise_power else _MOST_DB
        hits = int(np.sum(answers.argmax(axis=-1) == wanted.argmax(axis=-1)))
        return cls(agreement=Rate.of(hits, len(wanted)), snr_db=min(float(snr_db), _MOST_DB))

    def is_nearly(self, best: "Quality") -> bool:
        """Not told from a better one by so few inputs, and not much noisier."""
        gap = best.agreement.value - self.agreement.value
        return gap <= best.agreement.standard_error and self.snr_db >= min(
            best.snr_db - _NEARLY_DB, GOOD_DB
        )


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One quantized model, how it was made and what it gives."""

    scheme: Scheme
    ranges: Ranges | None = None
    kept_float: tuple[str, ...] = ()
    model: bytes
    quality: Quality

    @property
    def method(self) -> str:
        return f"{self.scheme}/{self.ranges}" if self.ranges else str(self.scheme)

    def record(self, *, part: str, chosen: bool) -> Quantized:
        """What a manifest keeps of it."""
        return Quantized(
            part=part,
            precision=Precision.INT8,
            method=self.method,
            bytes=len(self.model),
            agreement=self.quality.agreement,
            snr_db=round(self.quality.snr_db, 1),
            kept_float=self.kept_float,
            chosen=chosen,
        )


def held_out(items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """Those that calibrate, and every fourth, which does not and is compared on.

    Fewer than four do both.
    """
    held = list(items[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY])
    if not held:
        return list(items), list(items)
    return [item for at, item in enumerate(items) if (at + 1) % HELD_OUT_EVERY], held


def best_of(candidates: Sequence[Candidate]) -> Candidate:
    """The least noisy of those whose agreement cannot be told from the highest."""
    top = max(candidates, key=lambda each: each.quality.agreement.value).quality.agreement
    ties = [c for c in candidates if c.quality.agreement.value >= top.value - top.standard_error]
    return max(ties, key=lambda each: each.quality.snr_db)


def static_or_dynamic(
    static: Candidate, dynamic: Candidate, times: Mapping[str, StageTime]
) -> Candidate:
    """The one whose answers are good if the other's are not, then the faster, then the cleaner.

    `times` is by scheme. Where neither shows, static: its heads give int8 tensors, and
    accelerators that know integers alone run them.
    """
    if not static.quality.is_nearly(dynamic.quality):
        return dynamic
    if not dynamic.quality.is_nearly(static.quality):
        return static
    static_ms, dynamic_ms = times[Scheme.STATIC].cpu_ms, times[Scheme.DYNAMIC].cpu_ms
    # What takes next to nothing is not told apart by its time.
    ratio = (dynamic_ms + _NOTHING_MS) / (static_ms + _NOTHING_MS)
    if not 1 / _MARGIN < ratio < _MARGIN:
        return static if ratio > 1 else dynamic
    cleaner_by_db = dynamic.quality.snr_db - static.quality.snr_db
    return dynamic if cleaner_by_db > _NEARLY_DB else static


def settled(static: Candidate, times: Mapping[str, StageTime], *, wasted_ms: float) -> bool:
    """Whether static int8 wins, whatever is left in float of dynamic int8.

    That spares at most `wasted_ms`, and makes its answers no better than those in float.
    """
    samples = static.quality.agreement.samples
    exact = Quality(agreement=Rate.of(samples, samples), snr_db=_MOST_DB)
    least_ms = times[Scheme.DYNAMIC].cpu_ms - wasted_ms
    sooner = least_ms + _NOTHING_MS > _MARGIN * (times[Scheme.STATIC].cpu_ms + _NOTHING_MS)
    return sooner and static.quality.is_nearly(exact)


def is_better(other: Quality, other_ms: float, *, than: Quality, than_ms: float) -> bool:
    """Whether a second runtime is worth asking for.

    Its answers are good where the first's are not, or as good and there 1.3 times sooner; times are
    processor times.
    """
    if not other.is_nearly(than):
        return False
    if not than.is_nearly(other):
        return True
    return than_ms + _NOTHING_MS > _MARGIN * (other_ms + _NOTHING_MS)


def _centred(answers: Floats) -> Floats:
    centred: Floats = answers - answers.mean(axis=-1, keepdims=True)
    return centred
