"""All that is known of a bottleneck, in one JSON file beside it."""

from typing import Any

import msgspec

from ..compiler.card import FORMAT
from .card import PictureFacts, TeacherFacts


class BottleneckCard(msgspec.Struct, frozen=True, kw_only=True):
    """What a build measures, in int8 and through real frames, stands in the bundle's table.

    `latents` is their shape, channels first; `bits` is what one takes and `sent_bytes` all of them
    by the net's own reckoning, headers apart; `work` is the encoder's share of the large model's
    multiply-adds. `held_out_agreement` is that of the float net, and chose the epoch.
    """

    bottleneck_sha256: str
    parameters: int
    replaces: str
    latents: tuple[int, ...]
    bits: float
    sent_bytes: float
    work: float
    teacher: TeacherFacts
    pictures: PictureFacts
    settings: dict[str, Any]
    epochs: int
    best_epoch: int
    held_out_agreement: float
    tools: dict[str, str]
    format: int = FORMAT

    def encoded(self) -> bytes:
        """Canonical JSON."""
        return msgspec.json.format(msgspec.json.encode(self, order="deterministic")) + b"\n"
