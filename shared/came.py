"""How much of a frame in layers an answer was made of, as responses tell it."""

from collections.abc import Mapping
from dataclasses import dataclass

from . import oip


@dataclass(frozen=True, slots=True)
class Came:
    """The layers that an answer was made of, and the bytes that had come by then, of how many."""

    layers: int
    layers_in_all: int
    came_bytes: int
    frame_bytes: int

    @property
    def whole(self) -> bool:
        return self.layers == self.layers_in_all

    def parameters(self) -> dict[str, oip.Value]:
        return {
            oip.LAYERS: self.layers,
            oip.LAYERS_IN_ALL: self.layers_in_all,
            oip.CAME_BYTES: self.came_bytes,
            oip.FRAME_BYTES: self.frame_bytes,
        }

    @classmethod
    def of(cls, parameters: Mapping[str, oip.Value]) -> "Came | None":
        """What `parameters` wrote; None if they tell of no layers, or of what cannot be."""
        names = (oip.LAYERS, oip.LAYERS_IN_ALL, oip.CAME_BYTES, oip.FRAME_BYTES)
        if oip.LAYERS not in parameters:
            return None
        layers, in_all, came, frame = (int(oip.number(parameters, name) or 0) for name in names)
        if not (1 <= layers <= in_all and 0 <= came <= frame):
            return None
        return cls(layers, in_all, came, frame)

    def __str__(self) -> str:
        """For people.

        >>> str(Came(3, 5, 4_090, 7_930))
        'answered from 3 of 5 layers, 4.1 of 7.9 kB'
        """
        return (
            f"answered from {self.layers} of {self.layers_in_all} layers, "
            f"{self.came_bytes / 1e3:.1f} of {self.frame_bytes / 1e3:.1f} kB"
        )
