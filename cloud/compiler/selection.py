"""Which cuts of a model are measured, and what is said of those that are not.

No cut is measured that cannot win. A split is judged by device work, bytes and agreement, and both
work and the bytes of an int8 tensor are known without running anything: a cut that comes later and
is not smaller than one before it goes, and so does one not smaller than the picture's own pixels.
What is left is a falling staircase of a few cuts, the narrowest of which are measured (table.py).
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from ...shared.manifest import CutRecord
from .paired_cut import PairedCut, Pairing

KEPT = "kept"
_LOSES = "measured; another plan is as good in device work, bytes and agreement"


@dataclass(frozen=True)
class Selection:
    """The cuts to measure, from the input on, and the reasons against the others by name."""

    cuts: tuple[PairedCut, ...]
    dropped: dict[str, str]


def select(pairs: Sequence[PairedCut], *, pixels: int, most: int) -> Selection:
    """Cuts with an int8 head, smaller than the pixels and than every useful cut before.

    Where there are too many, the widest go: they are the ones a picture codec beats.
    """
    useful: list[PairedCut] = []
    dropped: dict[str, str] = {}
    for pair in sorted(pairs, key=lambda pair: pair.work):
        before = useful[-1] if useful else None
        if pair.int8 is None:
            dropped[pair.name] = _without_int8(pair)
        elif pair.elements >= pixels:
            dropped[pair.name] = f"{pair.elements} elements, the picture has {pixels} itself"
        elif before is not None and pair.elements >= before.elements:
            dropped[pair.name] = f"no smaller than {before.name}, which comes before it"
        else:
            useful.append(pair)
    first = max(0, len(useful) - most)
    for pair in useful[:first]:
        dropped[pair.name] = f"not among the {most} narrowest, and no more are measured"
    return Selection(cuts=tuple(useful[first:]), dropped=dropped)


def records(pairing: Pairing, selection: Selection, *, kept: Collection[str]) -> list[CutRecord]:
    """Every cut that was found, by its place in the model, with what became of it."""
    known = {pair.name for pair in pairing.pairs}
    learned = (pair for pair in selection.cuts if pair.name not in known)
    found = [*pairing.refused, *_fates((*learned, *pairing.pairs), selection, kept)]
    return sorted(found, key=lambda record: (record.work, record.name))


def _fates(
    pairs: Iterable[PairedCut], selection: Selection, kept: Collection[str]
) -> Iterable[CutRecord]:
    for pair in pairs:
        if pair.name in kept:
            yield pair.record(KEPT)
        else:
            yield pair.record(selection.dropped.get(pair.name, _LOSES))


def _without_int8(pair: PairedCut) -> str:
    if pair.int8_snr_db is None:
        return "the int8 model has no such tensor"
    return f"int8 is too noisy here ({pair.int8_snr_db:.1f} dB)"
