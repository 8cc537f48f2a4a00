"""What a student, a bottleneck or a net that rebuilds pictures is, and how it is trained."""

from dataclasses import dataclass

from ...shared.errors import BuildError
from .similarity import WINDOW_PX
from .views import MOST_VIEWS


@dataclass(frozen=True, kw_only=True)
class StudentSettings:
    """Our own net at some width and depth (1.0: EfficientNet-Lite0), or a backbone with a new head.

    `backbone` is MODULE:FUNCTION that returns a torch module; `tuned` is the share of its layers,
    counted from its end, that learns once the head has.
    """

    width: float = 0.5
    depth: float = 0.6
    backbone: str = ""
    tuned: float = 0.5

    def __post_init__(self) -> None:
        _check("width", self.width, least=0.1, most=4.0)
        _check("depth", self.depth, least=0.1, most=4.0)
        _check("tuned", self.tuned, least=0.0, most=1.0)


@dataclass(frozen=True, kw_only=True)
class BottleneckSettings:
    """An encoder of some width with so many channels to send, and where its decoder comes in.

    `sent_bytes` is what a picture may take in the mean, headers apart. `cut` is the ONNX name of
    the tensor that the decoder makes; one is chosen where it is empty.
    """

    sent_bytes: float = 1000.0
    cut: str = ""
    width: int = 24
    channels: int = 24
    decoder_width: int = 256
    decoder_blocks: int = 1

    def __post_init__(self) -> None:
        _check("bytes", self.sent_bytes, least=16, most=1e6)
        _check("width", self.width, least=4, most=256)
        _check("channels", self.channels, least=1, most=1024)
        _check("decoder width", self.decoder_width, least=8, most=4096)
        _check("decoder blocks", self.decoder_blocks, least=0, most=64)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a student learns; a `learning_rate` of None is chosen by what it starts from.

    `temperature` softens both answers (Hinton et al. 2015); `hard` is the share of the loss that
    counts only the teacher's first choice. A share `held_out` of the pictures is never learned
    from: it ends the training after `patience` epochs without progress, and calibrates.
    """

    epochs: int = 30
    batch: int = 32
    learning_rate: float | None = None
    temperature: float = 2.0
    hard: float = 0.1
    views: int = 1
    held_out: float = 0.1
    patience: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        _check("epochs", self.epochs, least=0, most=100_000)
        _check("batch", self.batch, least=2, most=65_536)
        _check("temperature", self.temperature, least=0.1, most=100.0)
        _check("hard", self.hard, least=0.0, most=1.0)
        _check("views", self.views, least=1, most=MOST_VIEWS)
        _check("held-out", self.held_out, least=0.01, most=0.5)
        _check("patience", self.patience, least=1, most=100_000)
        _check("seed", self.seed, least=0, most=2**31 - 1)
        if self.learning_rate is not None:
            _check("learning rate", self.learning_rate, least=1e-7, most=1.0)


@dataclass(frozen=True, kw_only=True)
class InversionSettings:
    """How a net learns to rebuild pictures of `size_px` a side, which is where they are compared.

    `width` is its channels at that size. A share `held_out` of the pictures is never learned from:
    it ends the training after `patience` epochs without progress.
    """

    size_px: int = 64
    width: int = 32
    epochs: int = 20
    batch: int = 16
    learning_rate: float = 2e-3
    views: int = 2
    held_out: float = 0.1
    patience: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        _check("size", self.size_px, least=WINDOW_PX, most=1024)
        _check("width", self.width, least=1, most=1024)
        _check("epochs", self.epochs, least=1, most=100_000)
        _check("batch", self.batch, least=2, most=65_536)
        _check("learning rate", self.learning_rate, least=1e-7, most=1.0)
        _check("views", self.views, least=1, most=MOST_VIEWS)
        _check("held-out", self.held_out, least=0.01, most=0.5)
        _check("patience", self.patience, least=1, most=100_000)
        _check("seed", self.seed, least=0, most=2**31 - 1)


def _check(name: str, value: float, *, least: float, most: float) -> None:
    if not least <= value <= most:
        raise BuildError(f"{name} {value:g}: {least:g} to {most:g} are possible")
