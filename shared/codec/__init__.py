"""Codecs: how the tensor or picture of a contract becomes bytes and comes back.

Names are stable and appear in plans, manifests and contracts; `wire_id`s are stable and appear in
frames. Neither is ever given a second meaning.
"""

from .base import Codec
from .registry import codec_by_name, codec_by_wire_id, is_tensor_codec

__all__ = ["Codec", "codec_by_name", "codec_by_wire_id", "is_tensor_codec"]
