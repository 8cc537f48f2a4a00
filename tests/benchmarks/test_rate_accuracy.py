import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rate_accuracy import __main__ as rates
from rate_accuracy import bottleneck, jpeg_ls
from rate_accuracy.chart import write_chart
from rate_accuracy.curves import PICTURE, Curve, Point, cheapest, curves_of, family_of
from rate_accuracy.outcomes import Kept, Key, Outcome, measure_picture, points
from rate_accuracy.pairs import Pair, evenly, held_out, labels_of, pictures_below
from rate_accuracy.probe import learned

from hybridge.shared.errors import ConfigError
from hybridge.shared.plan import Plan

from ..bundles import SPLIT, Small, picture


def point(codec: str, size: int, agreed: int) -> Point:
    return Point(codec, size, agreed, 100, encode_ms=1.0, decode_ms=1.0)


def curve(*points: Point, where: str = PICTURE) -> Curve:
    return Curve(where, "jpeg", points)


def test_one_lucky_point_does_not_reach_an_agreement() -> None:
    lucky = curve(point("a", 10, 99), point("b", 20, 98), point("c", 30, 99), point("d", 40, 100))
    found = lucky.reaching(0.99)
    assert found is not None
    assert found.codec == "c"
    assert curve(point("a", 10, 99), point("b", 20, 98)).reaching(0.99) is None


def test_a_fit_lets_neighbouring_rates_speak_for_each_other() -> None:
    noisy = curve(point("a", 10, 97), point("b", 20, 100), point("c", 30, 98), point("d", 40, 100))
    assert noisy.isotonic() == pytest.approx((0.97, 0.99, 0.99, 1.0))
    found = noisy.reaching_by_fit(0.99)
    assert found is not None
    assert found.codec == "b"
    assert cheapest([noisy], 0.99, by_fit=True) == (noisy, found)
    assert cheapest([noisy], 0.99) == (noisy, noisy.points[3])
    falling = curve(point("a", 10, 99), point("b", 20, 96), point("c", 30, 90))
    assert falling.isotonic() == pytest.approx((0.95, 0.95, 0.95))
    assert falling.reaching_by_fit(0.99) is None


def test_the_cheapest_of_those_that_reach_it() -> None:
    rivals = [curve(point("a", 30, 99)), curve(point("b", 20, 99)), curve(point("c", 10, 90))]
    found = cheapest(rivals, 0.99)
    assert found is not None
    assert found[1].codec == "b"
    assert cheapest(rivals, 1.0) is None


@pytest.mark.parametrize(
    ("codec", "family"),
    [
        ("jpeg-90", "jpeg"),
        ("affine4", "affine"),
        ("rans-25", "rans"),
        ("png", "png"),
        ("raw", "raw"),
    ],
)
def test_families(codec: str, family: str) -> None:
    assert family_of(codec) == family


def outcome(where: str, codec: str, size: int, *, agreed: bool = True) -> Outcome:
    return Outcome(where, codec, size, agreed, right=None if codec == "jpeg-50" else agreed)


def test_outcomes_become_curves_by_bytes() -> None:
    outcomes = [
        outcome("c1/int8", "rans-30", 300),
        outcome("c1/int8", "rans-30", 340),
        outcome("c1/int8", "rans-20", 200, agreed=False),
        outcome("c1/int8", "rans-20", 260),
        outcome(PICTURE, "jpeg-50", 900),
    ]
    times = {each.key: (1.0, 2.0) for each in outcomes}
    split, cloud = curves_of(points(outcomes, times), work={"c1": 0.4}, spatial={"c1": True})
    assert (split.where, split.work, split.spatial) == ("c1/int8", 0.4, True)
    assert [each.bytes_p50 for each in split.points] == [230, 320]
    assert (cloud.where, cloud.work, cloud.spatial) == (PICTURE, 0.0, False)
    low, high = split.points
    assert (low.agreed, low.pictures, low.accuracy) == (1, 2, 0.5)
    assert (high.agreement, high.accuracy) == (1.0, 1.0)
    assert cloud.points[0].accuracy is None


def test_outcomes_are_kept_and_an_unfinished_line_is_not(tmp_path: Path) -> None:
    file = tmp_path / "new" / "kept.jsonl"
    kept = Kept(file)
    assert kept.of("a.jpg") == {}
    first, second = outcome("c1/int8", "rans-30", 300), outcome(PICTURE, "png", 900)
    kept.add("a.jpg", [first])
    kept.add("b.jpg", [second])
    kept.add("a.jpg", [second])
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    assert Kept(file).of("a.jpg") == {first.key: first}
    again = Kept(file)
    again.add("a.jpg", [second])
    assert file.read_bytes() == whole
    assert again.of("a.jpg") == {first.key: first, second.key: second}
    assert again.of("b.jpg") == {second.key: second}


def test_only_what_is_not_known_is_measured(small: Small, tmp_path: Path) -> None:
    file = tmp_path / "0.png"
    Image.fromarray(picture(3)).save(file)
    pixels = small.models.resize_large(picture(3))

    def measured(known: Mapping[Key, Outcome]) -> dict[Key, Outcome]:
        found = measure_picture(
            small.models,
            small.cloud,
            file,
            small.cloud.answer(Plan.cloud("raw"), pixels),
            plans=[Plan.local(), SPLIT, Plan.cloud("png"), Plan.cloud("jxl")],
            known=known,
        )
        return {each.key: each for each in found}

    split, png, jxl = Key.of(SPLIT), Key(PICTURE, "png"), Key(PICTURE, "jxl")
    found = measured({})
    assert found.keys() == {split, png, jxl}
    for key in (png, jxl):
        assert found[key].agreed
        assert found[key].right
    assert measured(found) == {}
    del found[split]
    assert measured(found).keys() == {split}


def test_jpeg_ls_loses_nothing_and_is_a_rival() -> None:
    ramp = np.arange(48 * 48 * 3, dtype=np.uint32).reshape(48, 48, 3)
    smooth = np.asarray(ramp // 60 % 256, np.uint8)
    ((where, found),) = jpeg_ls.points([smooth] * 2 + [smooth[::-1]], header_bytes=60)
    assert (where, found.codec, found.agreed, found.pictures) == (PICTURE, "jpegls", 3, 3)
    assert 60 < found.bytes_p50 < smooth.size / 2
    ((_, longer),) = jpeg_ls.points([smooth], header_bytes=1060)
    assert longer.bytes_p50 == found.bytes_p50 + 1000


def test_pictures_are_labelled_by_their_folder_or_a_table(tmp_path: Path) -> None:
    files = [tmp_path / each for each in ("cat/1.jpg", "dog/2.jpg", "many/3.jpg", "many/4.jpg")]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.touch()
    (tmp_path / "many" / "labels.tsv").write_text("file\tclass_index\n3.jpg\t2\n")
    assert labels_of(files, ["dog", "cat", "bird"]) == (1, 0, 2, None)


def test_the_first_pictures_of_those_held_out_lie_evenly(tmp_path: Path) -> None:
    for at in range(64):
        (tmp_path / f"{at:02}.jpg").touch()
    pair = Pair("none", (), (".",), 1)
    order = [int(file.stem) for file in held_out(pair, tmp_path, most=None)]
    assert sorted(order) == list(range(64))
    assert sorted(order[:4]) == [0, 16, 32, 48]
    assert [int(file.stem) for file in held_out(pair, tmp_path, most=8)] == order[:8]


def test_a_probe_learns_what_its_features_say() -> None:
    random = np.random.default_rng(2)
    labels = np.arange(60) % 3
    features = random.normal(size=(60, 5)).astype(np.float32)
    features[:, 1] = features[:, 1] + 300 * labels
    weight, bias = learned(features, labels, classes=3)
    assert ((features @ weight + bias).argmax(axis=1) == labels).all()


def test_the_chart_names_every_point(tmp_path: Path) -> None:
    file = tmp_path / "chart.svg"
    write_chart([curve(point("jpeg-90", 1000, 99), point("jpeg-95", 3000, 100))], file, title="t")
    text = file.read_text()
    assert text.startswith("<svg")
    assert "jpeg-90: 1000 bytes, 99.0%" in text
    assert "jpeg-95: 3000 bytes, 100.0%" in text


def test_pictures_are_taken_evenly(tmp_path: Path) -> None:
    for at in range(10):
        (tmp_path / f"{at}.jpg").touch()
    assert [file.stem for file in evenly(pictures_below(tmp_path), 3)] == ["0", "3", "6"]
    with pytest.raises(ConfigError, match="no pictures"):
        pictures_below(tmp_path / "nothing")


def test_a_bottleneck_is_held_against_the_best_picture_codec() -> None:
    picture = curve(point("webp-50", 3000, 99), point("webp-75", 5000, 100))
    where = "b01-15x15x24/int8"
    narrow = Curve(where, "rans", (point("rans-8", 900, 98), point("rans-12", 1200, 99)), work=0.03)
    other = curve(point("rans-8", 1300, 100), where="b01-15x15x24/float32")
    times_ms = {where: 2.5, "b01-15x15x24/float32": 6.0}
    made = bottleneck.targets("vgg16", [picture, narrow, other], times_ms)
    assert [each.value for each in made] == [0.99, 0.03, 2.5, pytest.approx(1200 / 3000)]
    assert [each.holds for each in made] == [True] * 4
    assert [each.bound for each in made] == [0.99, 0.1, 5.0, 0.5]
    slow = bottleneck.targets("vgg16", [picture, narrow], {where: 5.5})
    assert [each.holds for each in slow] == [True, True, False, True]


def test_a_bottleneck_that_falls_short_has_every_figure() -> None:
    picture = curve(point("webp-50", 3000, 99))
    never = curve(point("rans-8", 900, 97), point("rans-12", 950, 98), where="b01-15x15x24/int8")
    agreement, _, encoder, share = bottleneck.targets("vgg16", [picture, never], {never.where: 1.0})
    assert (agreement.value, agreement.holds, encoder.holds) == (0.98, False, True)
    assert (share.value, share.holds, share.bound) == (None, False, 0.5)
    assert "98.0%" in share.note
    assert "webp-50 with 3,000" in share.note
    *_, share = bottleneck.targets("vgg16", [never], {never.where: 1.0})
    assert (share.value, share.holds) == (None, None)


def test_what_needs_a_bottleneck_is_named_without_one() -> None:
    picture = curve(point("webp-50", 3000, 99))
    made = bottleneck.targets("vgg16", [picture], {})
    assert [(each.value, each.holds) for each in made] == [(None, None)] * 4
    assert all("--bottleneck vgg16=FILE" in each.note for each in made)
    given = bottleneck.targets(
        "vgg16", [picture, curve(point("a", 1, 99), where="b01/int8")], {"b01/int8": 1.0}
    )
    assert [each.name for each in made] == [each.name for each in given]


def test_the_encoder_of_a_bottleneck_is_timed(
    monkeypatch: pytest.MonkeyPatch, small: Small
) -> None:
    pixels = small.models.resize_large(picture(3))
    assert bottleneck.encoder_ms(small.bundle, pixels) == {}
    monkeypatch.setattr(bottleneck, "_CUTS", SPLIT.cut)
    found = bottleneck.encoder_ms(small.bundle, pixels)
    assert found.keys() == {
        f"{SPLIT.cut}/{head}" for head in small.bundle.manifest.cut(SPLIT.cut).heads
    }
    assert all(ms > 0 for ms in found.values())


def test_the_cuts_of_lite2_are_held_against_the_best_picture_codec() -> None:
    picture = curve(point("jxl-98", 10_000, 99))
    early = Curve("c1/float32", "klt", (point("klt-30", 1500, 99),), work=0.4, spatial=True)
    late = Curve("c2/float32", "klt", (point("klt-30", 1400, 98),), work=0.7, spatial=True)
    fifth, eighth = rates._targets([picture, early, late])
    assert (fifth.value, fifth.holds) == (0.15, True)
    assert (eighth.value, eighth.holds) == (0.15, False)
    fifth, eighth = rates._targets([picture, late])
    assert (fifth.value, fifth.holds) == (None, None)
    assert (eighth.value, eighth.holds) == (None, False)
    for each in rates._targets(None):
        assert (each.value, each.holds) == (None, None)
        assert "--models lite2" in each.note


def test_a_bottleneck_belongs_to_a_model() -> None:
    assert bottleneck.of_a_model("vgg16=a/b.onnx") == ("vgg16", Path("a/b.onnx"))
    for wrong in ("b.onnx", "vgg16=", "other=b.onnx"):
        with pytest.raises(argparse.ArgumentTypeError, match="MODEL=FILE"):
            bottleneck.of_a_model(wrong)


@pytest.mark.parametrize("option", [("--pictures", "0"), ("--threads", "-1"), ("--models",)])
def test_options_that_measure_nothing_are_refused(
    option: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        rates.main(["--data", str(tmp_path), *option])
    assert option[0] in capsys.readouterr().err


def test_cuts_and_codecs_that_are_none_are_told(
    small: Small,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "shown").mkdir()
    Image.fromarray(picture(3)).save(tmp_path / "shown" / "a.png")
    monkeypatch.setattr(rates, "PAIRS", {"vgg16": Pair("vgg16", (), ("shown",), 1)})
    monkeypatch.setattr(rates, "bundle_of", lambda pair, data, *, bottleneck: small.bundle)
    asked = ("--data", str(tmp_path), "--models", "vgg16")
    assert rates.main([*asked, "--codecs", "jpeg", "zip"]) == 78
    assert "--codecs zip: known are affine, avif, jpeg, " in capsys.readouterr().err
    assert rates.main([*asked, "--cuts", SPLIT.cut, "nowhere"]) == 78
    assert (
        f"--cuts nowhere: {small.bundle.manifest.name} has {SPLIT.cut}" in capsys.readouterr().err
    )


def test_a_bundle_that_quick_does_not_build_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HYBRIDGE_HOME", str(tmp_path))
    assert rates.main(["--data", str(tmp_path), "--models", "lite2", "--quick"]) == 0
    out = capsys.readouterr().out
    assert "lite2 is left out" in out
    assert out.count("not measured") == 6  # two of lite2, four of a bottleneck
