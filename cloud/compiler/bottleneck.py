"""Learned bottlenecks: a small encoder and a decoder that take the place of early layers.

`hybridge compress` writes them (cloud/training/compress.py) as one ONNX file:

    pictures ─▶ encoder ─▶ latents ─▶ decoder ─▶ features

In front of the large model, whose own way to those features falls away, it is a model like any
other, and its latents are a cut of it: the encoder is the head, decoder and rest are the tail.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec
from google.protobuf.message import DecodeError
from onnx import ModelProto, helper
from onnx import load as load_onnx

from ...shared.codec.channels import MAX_TENTHS, MIN_TENTHS, name_of
from ...shared.errors import BuildError
from .files import write_whole
from .onnx_flow import OnnxFlow, picture_input
from .onnx_fold import prefix, pruned
from .onnx_graph import find_cuts
from .onnx_source import copy_of, normalized, onnx_bytes, takes_channels_last
from .quiet import quiet
from .steps import sha256

OWN_PREFIX = "bottleneck/"
PICTURES, LATENTS, FEATURES = (f"{OWN_PREFIX}{n}" for n in ("pictures", "latents", "features"))
_KEY = "hybridge.bottleneck"
_VERSION = 1
_NHWC_TO_NCHW = (0, 3, 1, 2)
_RATES = (0.5, 0.65, 0.8, 1.0, 1.25, 1.6)
"""Of the rate at which it was trained: coarser and finer steps of the same latents."""


class Facts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a bottleneck's file says of it.

    `replaces` is the large model's tensor that the features stand for, `large_sha256` the hash of
    the model they were learned from, `bits` what a latent takes in the mean.
    """

    replaces: str
    large_sha256: str
    bits: float
    version: int = _VERSION


@dataclass(frozen=True)
class Bottleneck:
    """A trained one."""

    name: str
    model: ModelProto
    facts: Facts

    @property
    def sha256(self) -> str:
        return sha256(onnx_bytes(self.model) + msgspec.json.encode(self.facts))

    @property
    def codecs(self) -> tuple[str, ...]:
        """The rates at which its latents are offered."""
        tenths = {round(10 * share * self.facts.bits) for share in _RATES}
        return tuple(name_of(each) for each in sorted(tenths) if MIN_TENTHS <= each <= MAX_TENTHS)

    def before(self, large: ModelProto) -> ModelProto:
        """The large model behind it; BuildError if the two do not fit."""
        wanted = self.facts.replaces
        made = OnnxFlow.of(self.model).shapes[FEATURES]
        if not any(cut.tensor == wanted and cut.shape == made for cut in find_cuts(large)):
            raise BuildError(
                f"{self.name} makes {'x'.join(map(str, made))} for {wanted!r}, which is no such "
                "tensor of the large model; train it again (hybridge compress)"
            )
        result = copy_of(large)
        picture = picture_input(large).name
        kept = [node for node in large.graph.node if wanted not in node.output]
        arranged = (
            helper.make_node("Transpose", [picture], [PICTURES], perm=_NHWC_TO_NCHW)
            if takes_channels_last(large)
            else helper.make_node("Identity", [picture], [PICTURES])
        )
        end = helper.make_node("Identity", [FEATURES], [wanted])
        del result.graph.node[:]
        result.graph.node.extend([arranged, *self.model.graph.node, end, *kept])
        result.graph.initializer.extend(self.model.graph.initializer)
        return pruned(result)

    def encoder(self) -> ModelProto:
        """Normalized pictures [n, 3, s, s] to latents."""
        shape = OnnxFlow.of(self.model).shapes[LATENTS]
        return prefix(self.model, {LATENTS: (1, *shape)})


def write_bottleneck(model: ModelProto, facts: Facts, file: Path) -> None:
    """An .onnx file that ONNX Runtime runs as it is."""
    made = copy_of(model)
    helper.set_model_props(made, {_KEY: msgspec.json.encode(facts).decode()})
    write_whole(file, onnx_bytes(made))


def bottleneck_of(file: Path, *, large_sha256: str) -> Bottleneck:
    """That of a file; BuildError if it is none, or another large model's."""
    found = read_bottleneck(file)
    if found.facts.large_sha256 != large_sha256:
        raise BuildError(
            f"{file.name} was trained for another large model; train it again (hybridge compress)"
        )
    return found


def read_bottleneck(file: Path) -> Bottleneck:
    """BuildError if the file is no bottleneck."""
    if not file.is_file():
        raise BuildError(f"no bottleneck at {file}; train one: hybridge compress")
    with quiet(f"reading of {file.name}"):
        try:
            model = load_onnx(file, load_external_data=False)
            told = {entry.key: entry.value for entry in model.metadata_props}
            facts = msgspec.json.decode(told[_KEY], type=Facts)
        except (KeyError, msgspec.DecodeError, DecodeError) as error:
            raise BuildError(
                f"{file.name} is no bottleneck; `hybridge compress` writes them"
            ) from error
        if facts.version != _VERSION:
            raise BuildError(
                f"{file.name} has version {facts.version}; this one reads {_VERSION}: train it "
                "again (hybridge compress)"
            )
        found = Bottleneck(file.name, normalized(model), facts)
    if not found.codecs:
        raise BuildError(
            f"{file.name}: latents of {facts.bits:g} bits are beyond what a codec can send, "
            f"{MIN_TENTHS / 10:g} to {MAX_TENTHS / 10:g}; train it with other --bytes or --channels"
        )
    return found
