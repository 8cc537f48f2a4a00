"""Plans: the ways to answer one request."""

from dataclasses import dataclass
from enum import StrEnum


class PlanKind(StrEnum):
    """Where an answer is computed."""

    LOCAL = "local"
    SPLIT = "split"
    CLOUD = "cloud"


@dataclass(frozen=True, slots=True, order=True)
class Plan:
    """`local`, `split` at a cut with a head precision and a codec, or `cloud` with a picture codec.

    >>> str(Plan.split("block8", head="int8", codec="affine4"))
    'split:block8/int8/affine4'
    >>> Plan.parse("cloud:jpeg-90") == Plan.cloud("jpeg-90")
    True
    """

    kind: PlanKind
    cut: str = ""
    head: str = ""
    codec: str = ""

    @classmethod
    def local(cls) -> "Plan":
        return cls(PlanKind.LOCAL)

    @classmethod
    def split(cls, cut: str, *, head: str, codec: str) -> "Plan":
        return cls(PlanKind.SPLIT, cut, head, codec)

    @classmethod
    def cloud(cls, codec: str) -> "Plan":
        return cls(PlanKind.CLOUD, codec=codec)

    @classmethod
    def parse(cls, text: str) -> "Plan":
        """The plan of a name as `str` writes it; ValueError if it is none."""
        kind, _, rest = text.partition(":")
        if text == PlanKind.LOCAL:
            return cls.local()
        if kind == PlanKind.CLOUD and rest:
            return cls.cloud(rest)
        parts = rest.split("/")
        if kind == PlanKind.SPLIT and len(parts) == 3 and all(parts):
            return cls.split(parts[0], head=parts[1], codec=parts[2])
        raise ValueError(
            f"{text!r} is no plan; plans are local, cloud:CODEC and split:CUT/HEAD/CODEC"
        )

    def __str__(self) -> str:
        if self.kind is PlanKind.SPLIT:
            return f"{self.kind}:{self.cut}/{self.head}/{self.codec}"
        return f"{self.kind}:{self.codec}" if self.codec else str(self.kind)
