"""What a head and its tail must agree on, and the hash by which they know each other."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property

DIGEST_BYTES = 32


@dataclass(frozen=True)
class Contract:
    """One tensor of one large model as it crosses the link.

    `shape` is per item, channels last. For an int8 tensor, real = scale * (value - zero_point);
    `pixels`, the contract of whole pictures, is uint8 and has neither. `codecs` holds the
    parameters that encoder and decoder share, by codec name. `model` is the SHA-256 of the large
    model, so that a head never meets the tail of other weights.
    """

    tensor: str
    shape: tuple[int, ...]
    dtype: str
    model: str
    scale: float | None = None
    zero_point: int | None = None
    codecs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.shape or any(size < 1 for size in self.shape):
            raise ValueError(f"contract shape {self.shape} must have sizes of at least 1")
        if (self.scale is None) != (self.zero_point is None):
            raise ValueError("scale and zero_point come together")

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over the canonical JSON of all fields."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).digest()

    @property
    def id(self) -> str:
        """The digest in hexadecimal."""
        return self.digest.hex()

    @property
    def elements(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count
