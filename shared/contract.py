"""What a head and its tail must agree on, and the hash by which they know each other."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property

DIGEST_BYTES = 32


@dataclass(frozen=True)
class Part:
    """One of several tensors that cross the link together; the fields as in a contract."""

    tensor: str
    shape: tuple[int, ...]
    scale: float
    zero_point: int
    codecs: Mapping[str, Mapping[str, float | str]] = field(default_factory=dict)

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Contract:
    """What crosses the link of one large model: one tensor, or several as one.

    `shape` is per item, channels last. For an int8 tensor, real = scale * (value - zero_point);
    `pixels`, the contract of whole pictures, is uint8 and has neither. `codecs` holds the
    parameters that encoder and decoder share, by codec name. `model` is the SHA-256 of the large
    model, so that a head never meets the tail of other weights.

    Several tensors cross as one flat one, [N], one after the other; each has its own shape, grid
    and codec parameters in `parts`, and the contract itself has none of the last two.
    """

    tensor: str
    shape: tuple[int, ...]
    dtype: str
    model: str
    scale: float | None = None
    zero_point: int | None = None
    codecs: Mapping[str, Mapping[str, float | str]] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        if not self.shape or any(size < 1 for size in self.shape):
            raise ValueError(f"contract shape {self.shape} must have sizes of at least 1")
        if (self.scale is None) != (self.zero_point is None):
            raise ValueError("scale and zero_point come together")
        if self.parts:
            self._check_parts()

    def _check_parts(self) -> None:
        if len(self.parts) < 2 or any(size < 1 for part in self.parts for size in part.shape):
            raise ValueError("parts are at least two, with sizes of at least 1")
        if self.shape != (sum(part.elements for part in self.parts),):
            raise ValueError(f"contract shape {self.shape} is not the parts' elements together")
        if self.scale is not None or self.codecs:
            raise ValueError("a contract with parts has its grid and its codecs in the parts")

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over the canonical JSON of all fields; `parts` only if there are any."""
        fields = asdict(self)
        if not self.parts:
            del fields["parts"]
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).digest()

    @cached_property
    def id(self) -> str:
        """The digest in hexadecimal."""
        return self.digest.hex()

    @property
    def elements(self) -> int:
        return math.prod(self.shape)
