import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from hybridge.devices import litert
from hybridge.devices.litert import LiteRtModel, runtime
from hybridge.shared.errors import ConfigError, TensorError
from hybridge.shared.manifest import Precision

from ..bundles import CLASSES, CUT, SIZE_PX, Small, picture

Codes = npt.NDArray[np.int8]


@pytest.fixture
def light(small: Small) -> LiteRtModel:
    return LiteRtModel(small.bundle.file(small.bundle.manifest.light.blob))


def inputs(count: int) -> list[Codes]:
    rng = np.random.default_rng(0)
    return list(rng.integers(-128, 128, (count, 1, SIZE_PX, SIZE_PX, 3), np.int8))


def test_the_runtime_is_found_once_and_says_what_it_is() -> None:
    found = runtime()
    assert found.package == "ai-edge-litert"
    assert found.version[0].isdigit()
    assert runtime() is found


def test_without_any_runtime_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litert, "_PACKAGES", (("no.such.module", "none"),))
    with pytest.raises(ConfigError, match="pip install ai-edge-litert"):
        runtime.__wrapped__()


def test_the_next_runtime_is_used_where_the_first_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packages = (("no.such.module", "none"), ("ai_edge_litert.interpreter", "not-a-distribution"))
    monkeypatch.setattr(litert, "_PACKAGES", packages)
    found = runtime.__wrapped__()
    assert (found.package, found.version) == ("not-a-distribution", "unknown")


def test_bytes_and_files_are_the_same_model(small: Small, light: LiteRtModel) -> None:
    blob = small.bundle.manifest.light.blob
    again = LiteRtModel(small.bundle.read(blob), threads=2)
    assert light.input_shape == again.input_shape == (1, SIZE_PX, SIZE_PX, 3)
    for tensor in inputs(3):
        output = light.run(tensor)
        assert (output.shape, output.dtype) == ((1, CLASSES), np.float32)
        np.testing.assert_array_equal(output, again.run(tensor))


def test_signatures_and_quantization(small: Small) -> None:
    manifest = small.bundle.manifest
    head = LiteRtModel(small.bundle.file(manifest.large.head_files[Precision.INT8]), signature=CUT)
    contract = manifest.cut(CUT).contract
    assert head.run(inputs(1)[0]).shape == (1, *contract.shape)
    assert head.quantization == (pytest.approx(contract.scale), contract.zero_point)
    assert (head.input_dtype, head.input_quantization) == (np.int8, (1 / 128, -1))
    float32 = LiteRtModel(
        small.bundle.file(manifest.large.head_files[Precision.FLOAT32]), signature=CUT
    )
    assert (float32.input_dtype, float32.input_quantization) == (np.float32, (0.0, 0))
    assert float32.quantization == (0.0, 0)


def test_memory_that_is_not_in_order(light: LiteRtModel) -> None:
    (tensor,) = inputs(1)
    turned = np.asfortranarray(tensor)
    np.testing.assert_array_equal(light.run(turned), light.run(tensor))
    mirrored = tensor[:, :, ::-1]
    np.testing.assert_array_equal(light.run(mirrored), light.run(mirrored.copy()))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, SIZE_PX, SIZE_PX, 3), np.uint8),
        ((1, SIZE_PX, SIZE_PX, 3), np.float32),
        ((1, SIZE_PX, SIZE_PX, 3), ">i2"),
        ((2, SIZE_PX, SIZE_PX, 3), np.int8),
        ((1, SIZE_PX, SIZE_PX + 1, 3), np.int8),
        ((SIZE_PX, SIZE_PX, 3), np.int8),
        ((), np.int8),
    ],
)
def test_inputs_that_do_not_fit(
    light: LiteRtModel, shape: tuple[int, ...], dtype: npt.DTypeLike
) -> None:
    with pytest.raises(TensorError, match=r"the model takes int8 \[1, 16, 16, 3\], not "):
        light.run(np.zeros(shape, dtype))
    light.run(inputs(1)[0])


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x1c\0\0\0TFL3" + b"\xff" * 200])
def test_what_is_no_model(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigError, match="LiteRT cannot load the model"):
        LiteRtModel(content)
    file = tmp_path / "model.tflite"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="LiteRT cannot load the model"):
        LiteRtModel(file)


def test_models_and_signatures_that_are_not_there(small: Small, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot load"):
        LiteRtModel(tmp_path / "nowhere.tflite")
    with pytest.raises(ConfigError, match="cannot load"):
        LiteRtModel(small.bundle.file(small.bundle.manifest.light.blob), signature="other")


def hammer(model: LiteRtModel, tensors: list[npt.NDArray[np.generic]]) -> None:
    """Many threads at once, each answer compared with the one given when nobody else asked."""
    expected = [model.run(tensor) for tensor in tensors]
    assert len({answer.tobytes() for answer in expected}) == len(tensors)
    start, wrong = threading.Barrier(8), []

    def work(first: int) -> None:
        start.wait()
        for turn in range(60):
            at = (first + turn) % len(tensors)
            if not np.array_equal(model.run(tensors[at]), expected[at]):
                wrong.append(at)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_threads_get_their_own_answers(light: LiteRtModel) -> None:
    hammer(light, [*inputs(7)])


def test_threads_with_pictures_of_different_sizes(small: Small) -> None:
    blob = small.bundle.manifest.light.preprocessing.blob
    resize = LiteRtModel(small.bundle.file(blob), signature="resize")
    assert resize.input_shape == (1, -1, -1, 3)
    hammer(resize, [picture(at, width=20 + 7 * at, height=60 - 5 * at)[None] for at in range(7)])
