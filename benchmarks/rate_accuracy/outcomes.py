"""What every codec gives on each picture, kept picture by picture.

A run that was ended goes on where it was; with more pictures or codecs only those are measured.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from rate_accuracy.curves import PICTURE, Point

from hybridge.cloud.compiler.cloud_side import CloudSide
from hybridge.cloud.compiler.pictures import PictureSet
from hybridge.cloud.compiler.table import measure_table
from hybridge.devices.models import DeviceModels
from hybridge.shared.plan import Plan, PlanKind


class Key(NamedTuple):
    """What crosses (a cut and its head, or a picture), and by which codec."""

    where: str
    codec: str

    @classmethod
    def of(cls, plan: Plan) -> "Key":
        split = plan.kind is PlanKind.SPLIT
        return cls(f"{plan.cut}/{plan.head}" if split else PICTURE, plan.codec)


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """One codec on one picture; `right` where the picture has a label."""

    where: str
    codec: str
    frame_bytes: int
    agreed: bool
    right: bool | None

    @property
    def key(self) -> Key:
        return Key(self.where, self.codec)


class Kept:
    """Outcomes by picture, in a file to which new ones are added at once, a line a picture."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._of: dict[str, dict[Key, Outcome]] = {}
        content = file.read_bytes() if file.is_file() else b""
        lines = content.splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):  # was being written when the run was ended
            file.write_bytes(b"".join(lines[:-1]))
            del lines[-1]
        for line in lines:
            self._take(*msgspec.json.decode(line, type=tuple[str, list[Outcome]]))

    def of(self, picture: str) -> Mapping[Key, Outcome]:
        return self._of.get(picture, {})

    def add(self, picture: str, found: Sequence[Outcome]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("ab") as out:
            out.write(msgspec.json.encode((picture, found)) + b"\n")
        self._take(picture, found)

    def _take(self, picture: str, found: Sequence[Outcome]) -> None:
        self._of.setdefault(picture, {}).update((each.key, each) for each in found)


def measure_picture(
    models: DeviceModels,
    cloud: CloudSide,
    file: Path,
    label: int | None,
    *,
    plans: Sequence[Plan],
    known: Mapping[Key, Outcome],
) -> list[Outcome]:
    """The outcomes of one picture that are not known."""
    missing = [plan for plan in plans if plan.kind is PlanKind.LOCAL or Key.of(plan) not in known]
    made = []
    if any(plan.kind is not PlanKind.LOCAL for plan in missing):
        one = PictureSet(files=(file,), labels=(label,), sha256="")
        for row in measure_table(models, cloud, missing, one).rows:
            if row.parsed().kind is not PlanKind.LOCAL:
                right = None if row.accuracy is None else row.accuracy.value == 1
                key = Key.of(row.parsed())
                made.append(Outcome(*key, row.bytes_p50, row.agreement.value == 1, right))
    return made


def points(
    outcomes: Iterable[Outcome], times_ms: Mapping[Key, tuple[float, float]]
) -> Iterator[tuple[str, Point]]:
    """One for each codec, from its outcomes on all pictures and its times to encode and decode."""
    found: dict[Key, list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(outcome.key, []).append(outcome)
    for key, own in found.items():
        right = [each.right for each in own if each.right is not None]
        encode_ms, decode_ms = times_ms[key]
        yield (
            key.where,
            Point(
                codec=key.codec,
                bytes_p50=int(np.median([each.frame_bytes for each in own])),
                agreed=sum(each.agreed for each in own),
                pictures=len(own),
                encode_ms=encode_ms,
                decode_ms=decode_ms,
                accuracy=sum(right) / len(right) if right else None,
            ),
        )
