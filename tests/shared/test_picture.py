"""Pictures from outside: whatever comes, it is RGB pixels or a PictureError."""

import io
import random
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFile

from hybridge.shared.errors import PictureError
from hybridge.shared.picture import decode_picture, picture_size

Pixels = npt.NDArray[np.uint8]

ORIENTATION = 0x112


def smooth(height: int = 24, width: int = 36) -> Pixels:
    blots = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)
    image = Image.fromarray(blots).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rgb(kind: str, **options: Any) -> bytes:
    return encode(Image.fromarray(smooth()), kind, **options)


def png_chunk(name: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)


def png(width: int, height: int, rows: bytes, *, bits: int = 8, colours: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_lossless_pictures_come_back(kind: str) -> None:
    pixels = decode_picture(rgb(kind))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, smooth())
    assert picture_size(rgb(kind)) == (36, 24)


@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {})]
)
def test_lossy_pictures_look_alike(kind: str, options: dict[str, Any]) -> None:
    difference = decode_picture(rgb(kind, quality=95, **options)).astype(int) - smooth()
    assert np.abs(difference).mean() < 4


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_modes_are_shown_as_they_look(mode: str) -> None:
    image = Image.fromarray(smooth()).convert(mode)
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode_picture(encode(image, "PNG")), expected)


@pytest.mark.parametrize(("mode", "kind"), [("RGBA", "PNG"), ("LA", "PNG"), ("RGBA", "WEBP")])
def test_alpha_is_left_out(mode: str, kind: str) -> None:
    image = Image.fromarray(smooth()).convert(mode)
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode_picture(encode(image, kind, **options)), expected)


def test_a_palette_with_transparency() -> None:
    image = Image.fromarray(smooth()).convert("P", palette=Image.Palette.ADAPTIVE)
    encoded = encode(image, "PNG", transparency=bytes(range(256)))
    np.testing.assert_array_equal(decode_picture(encoded), np.asarray(image.convert("RGB")))


def test_a_cmyk_jpeg() -> None:
    encoded = encode(Image.fromarray(smooth()).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(decode_picture(encoded).astype(int) - smooth()).mean() < 6


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_pictures_stand_upright(kind: str, orientation: int) -> None:
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    image = Image.fromarray(smooth())
    stored = image if undo is None else image.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"quality": 95} if kind != "PNG" else {}
    pixels = decode_picture(encode(stored, kind, exif=exif, **options))
    assert pixels.shape == smooth().shape
    assert np.abs(pixels.astype(int) - smooth()).mean() < 4


def test_deep_grey_is_refused_and_deep_colour_loses_its_low_bits() -> None:
    deep = (np.arange(24).reshape(2, 12) * 2700).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    with pytest.raises(PictureError, match="more than 8 bits per channel"):
        decode_picture(png(12, 2, rows, bits=16, colours=0))
    colours = decode_picture(png(4, 2, rows, bits=16, colours=2))
    np.testing.assert_array_equal(colours, (deep >> 8).reshape(2, 4, 3))


def test_an_animation_gives_its_first_frame() -> None:
    first, second = (Image.new("RGB", (8, 6), colour) for colour in ("red", "blue"))
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True})):
        pixels = decode_picture(
            encode(first, kind, save_all=True, append_images=[second], **options)
        )
        assert pixels[0, 0].tolist() == [255, 0, 0]


def check_refused_at_once(encoded: bytes, message: str, *, max_pixels: int = 50_000_000) -> None:
    """PictureError, with hardly any memory taken on the way."""
    tracemalloc.start()
    try:
        with pytest.raises(PictureError, match=message):
            decode_picture(encoded, max_pixels=max_pixels)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_a_bomb_of_200_megapixels(monkeypatch: pytest.MonkeyPatch) -> None:
    jpeg, bmp = bytearray(rgb("JPEG")), bytearray(rgb("BMP"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 10_000, 20_000)
    bmp[18:26] = struct.pack("<ii", 20_000, 10_000)

    def load(image: ImageFile.ImageFile) -> None:
        raise AssertionError("a pixel was asked for")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    bomb = png(20_000, 10_000, bytes(1 << 20))
    check_refused_at_once(bomb, r"20000x10000 is 200\.0 megapixels; at most 50\.0 are accepted")
    check_refused_at_once(png(2**31 - 1, 2**31 - 1, b""), "megapixels")
    check_refused_at_once(bytes(bmp), r"200\.0 megapixels")
    check_refused_at_once(bytes(jpeg), r"200\.0 megapixels")
    with pytest.raises(AssertionError, match="a pixel was asked for"):
        decode_picture(png(20_000, 10_000, b""), max_pixels=200_000_000)


def test_the_limit_itself_is_allowed() -> None:
    assert decode_picture(rgb("PNG"), max_pixels=24 * 36).shape == (24, 36, 3)
    check_refused_at_once(rgb("PNG"), "at most 0.0 are", max_pixels=24 * 36 - 1)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_truncated_pictures(kind: str) -> None:
    encoded = rgb(kind)
    tail = 20 if kind == "PNG" else 2  # what only ends a file may be missing
    for kept in {*range(0, len(encoded) - tail, 11), len(encoded) // 2}:
        with pytest.raises(PictureError):
            decode_picture(encoded[:kept])


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (b"", "no bytes at all; accepted: JPEG, PNG"),
        (b"not a picture", r"13 bytes that are no picture \(they begin with b'not a pi'\)"),
        (b"\x89PNG\r\n\x1a\n", "picture"),
        (b"\xff\xd8\xff\xe0", "picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture"),
        (png(0, 5, b""), "picture"),
    ],
)
def test_what_is_no_picture(encoded: bytes, message: str) -> None:
    with pytest.raises(PictureError, match=message):
        decode_picture(encoded)


def test_formats_nobody_asked_for() -> None:
    for kind in ("GIF", "TIFF", "ICO", "PPM"):
        with pytest.raises(PictureError, match="no picture"):
            decode_picture(rgb(kind))
    with pytest.raises(PictureError, match="accepted: PNG"):
        decode_picture(rgb("JPEG"), formats=("PNG",))


def _mutated(seed: bytes, rng: random.Random) -> bytes:
    """Some bytes changed or lost, mostly near the start, where headers and metadata are."""
    changed = bytearray(seed)
    for _ in range(rng.choice((1, 1, 2, 4, 10))):
        at = rng.randrange(min(len(changed), rng.choice((250, len(changed)))))
        if rng.random() < 0.8:
            changed[at] = rng.choice((0, 255, 128, rng.randrange(256)))
        else:
            del changed[at : at + rng.randrange(1, 9)]
    return bytes(changed)


def test_damage_is_never_anything_but_a_picture_error() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif[0x10E] = "a description" * 3
    seeds = [rgb(kind, exif=exif) for kind in ("JPEG", "PNG", "WEBP")] + [rgb("BMP")]
    seeds += [encode(Image.fromarray(smooth()).convert("P"), "PNG")]
    seeds += [encode(Image.fromarray(smooth()).convert("CMYK"), "JPEG")]
    rng, refused = random.Random(1), 0
    for _ in range(4000):
        damaged = _mutated(rng.choice(seeds), rng)
        try:
            pixels = decode_picture(damaged, max_pixels=1_000_000)
        except PictureError:
            refused += 1
        else:
            assert pixels.dtype == np.uint8
            assert pixels.shape[2:] == (3,)
    assert 0 < refused < 4000


def test_odd_metadata_costs_no_picture() -> None:
    # Found by the test above: a width of type BYTE, which Pillow reads and cannot write again.
    entries = struct.pack("<HHIIHHII", ORIENTATION, 3, 1, 6, 0x100, 1, 1, 97)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4)
    assert decode_picture(rgb("JPEG", exif=exif)).shape == (36, 24, 3)


@pytest.mark.parametrize("encoded", [b"", b"x" * 50, b"\x89PNG\r\n\x1a\n" + b"\0" * 4])
def test_the_size_of_no_picture(encoded: bytes) -> None:
    with pytest.raises(PictureError, match=r"that are no picture|no bytes at all"):
        picture_size(encoded)
