"""The large model as a teacher: its answers to pictures, computed once and kept."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime

from ...shared.errors import BuildError
from ...shared.preprocess import PreprocessSpec
from ..compiler.litert import Runner, Tensor
from ..compiler.onnx_graph import input_of
from ..compiler.onnx_source import onnx_bytes, takes_channels_last
from ..compiler.pictures import Pixels
from ..compiler.progress import Progress, counted
from ..compiler.sources import ModelSource
from ..compiler.steps import Steps
from .answers import AnswerStore, Floats
from .views import PictureView

_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


@dataclass(frozen=True)
class Teacher:
    """A large model behind its own preprocessing, run by ONNX Runtime.

    `answer_name` is the output with a value per class where several could be it.
    """

    source: ModelSource
    spec: PreprocessSpec
    steps: Steps
    classes: int
    threads: int = 1
    answer_name: str = ""

    @property
    def sha256(self) -> str:
        """What the answers depend on beside the picture."""
        text = json.dumps(
            [
                self.source.sha256,
                asdict(self.spec),
                *([self.answer_name] if self.answer_name else []),
            ],
            sort_keys=True,
            default=str,
        )
        return hashlib.sha256(text.encode()).hexdigest()

    def store(self, folder: Path) -> AnswerStore:
        """Where its answers lie below a folder."""
        return AnswerStore(folder / f"answers-{self.sha256[:32]}", self.classes)

    def answer(
        self, views: Sequence[PictureView], store: AnswerStore, *, progress: Progress
    ) -> Floats:
        """Its outputs for all views, float32 [n, classes]; those in the store are not run again."""
        known = store.positions()
        missing = {view.key: view for view in views if view.key not in known}
        if missing:
            run = TeacherSession(self)
            told = partial(progress, "answers of the large model")
            for view in counted(missing.values(), told):
                store.append(view.key, run(view.pixels(), view.name))
        return store.read([view.key for view in views])


class TeacherSession:
    """The loaded model: uint8 RGB [h, w, 3] of any size to float32 [classes]."""

    def __init__(self, teacher: Teacher) -> None:
        model = teacher.steps.onnx(teacher.source, teacher.spec)
        preprocess = teacher.steps.preprocess(teacher.spec)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = teacher.threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        there = onnxruntime.get_available_providers()
        self._session = onnxruntime.InferenceSession(
            onnx_bytes(model), options, providers=[name for name in _PROVIDERS if name in there]
        )
        self._input, _ = input_of(model)
        self._channels_last = takes_channels_last(model)
        self._teacher = teacher
        self._outputs = [value.name for value in self._session.get_outputs()]
        if beside := [v.name for v in self._session.get_inputs() if v.name != self._input]:
            raise BuildError(
                f"the large model takes {', '.join(beside)} beside a picture; only models that "
                "take a picture alone can be distilled"
            )
        self._resize = Runner(preprocess, signature="resize")
        self._normalize = Runner(preprocess, signature="normalize")

    def __call__(self, picture: Pixels, name: str) -> Floats:
        output = self._answer(self.run(self.tensor(picture)))
        if not np.isfinite(output).all():
            raise BuildError(f"the large model gives NaN or infinity on {name}")
        values: Floats = output[0].astype(np.float32)
        return values

    def tensor(self, picture: Pixels) -> Tensor:
        """What the model takes of a picture, in its own layout."""
        tensor = self._normalize.run(self._resize.run(picture[None]))
        arranged = tensor if self._channels_last else tensor.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(arranged)

    def run(self, tensor: Tensor) -> list[Floats]:
        """All outputs for one such tensor."""
        outputs: list[Floats] = self._session.run(None, {self._input: tensor})
        return outputs

    def _answer(self, outputs: Sequence[Floats]) -> Floats:
        """The output that has a value per class, or the one that was named."""
        classes, name = self._teacher.classes, self._teacher.answer_name
        for output_name, output in zip(self._outputs, outputs, strict=True):
            if output.shape == (1, classes) and name in ("", output_name):
                return output
        given = ", ".join(
            f"{each} {list(output.shape[1:])}"
            for each, output in zip(self._outputs, outputs, strict=True)
        )
        raise BuildError(
            f"the large model gives {given}, there are {classes} labels; the labels need one line "
            "per class, and [large] answer the name of the output"
        )
