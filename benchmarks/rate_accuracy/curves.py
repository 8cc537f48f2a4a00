"""Curves of bytes against agreement, and what they say at a given agreement."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

PICTURE = "picture"


@dataclass(frozen=True)
class Point:
    """A codec at one rate: the median of its frames' bytes, whole, and the answers that agree.

    `accuracy` is the share of right ones, where pictures have labels.
    """

    codec: str
    bytes_p50: int
    agreed: int
    pictures: int
    encode_ms: float
    decode_ms: float
    accuracy: float | None = None

    @property
    def agreement(self) -> float:
        return self.agreed / self.pictures


@dataclass(frozen=True)
class Curve:
    """One family of codecs on one cut and head, by bytes."""

    where: str
    family: str
    points: tuple[Point, ...]
    work: float = 0.0
    spatial: bool = False

    def reaching(self, agreement: float) -> Point | None:
        """The first point from which on all agree as much, so that one lucky point counts for none.

        None if the largest does not.
        """
        found = None
        for point in reversed(self.points):
            if point.agreement < agreement:
                break
            found = point
        return found

    def isotonic(self) -> tuple[float, ...]:
        """The agreement at each point if more bytes never agree less: the least squares fit.

        Neighbouring rates then speak for each other (pool adjacent violators; Barlow et al. 1972).
        """
        pools: list[tuple[float, int]] = []
        for point in self.points:
            pools.append((point.agreement, 1))
            while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
                (low, some), (high, more) = pools.pop(), pools.pop()
                pools.append(((low * some + high * more) / (some + more), some + more))
        return tuple(value for value, count in pools for _ in range(count))

    def reaching_by_fit(self, agreement: float) -> Point | None:
        """The first point whose fitted agreement is so much; None if that of none is."""
        for point, fitted in zip(self.points, self.isotonic(), strict=True):
            if fitted >= agreement:
                return point
        return None


def family_of(codec: str) -> str:
    """`jpeg` of `jpeg-90`, `affine` of `affine4`; what loses nothing is a family each."""
    return codec.partition("-")[0].rstrip("0123456789") or codec


def curves_of(
    points: Iterable[tuple[str, Point]], *, work: dict[str, float], spatial: dict[str, bool]
) -> list[Curve]:
    """Points of (where, point) as curves, where a cut's name stands before the head's."""
    grouped: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for where, point in points:
        grouped[where, family_of(point.codec)].append(point)
    return [
        Curve(
            where=where,
            family=family,
            points=tuple(sorted(found, key=lambda point: point.bytes_p50)),
            work=work.get(where.partition("/")[0], 0.0),
            spatial=spatial.get(where.partition("/")[0], False),
        )
        for (where, family), found in grouped.items()
    ]


def cheapest(
    curves: Iterable[Curve], agreement: float, *, by_fit: bool = False
) -> tuple[Curve, Point] | None:
    """Of many curves the point of fewest bytes that reaches an agreement."""
    reached = (
        (curve, curve.reaching_by_fit(agreement) if by_fit else curve.reaching(agreement))
        for curve in curves
    )
    found = [(curve, point) for curve, point in reached if point is not None]
    return min(found, key=lambda pair: pair[1].bytes_p50, default=None)
