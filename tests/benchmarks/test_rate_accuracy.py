import argparse
from pathlib import Path

import pytest
from rate_accuracy import bottleneck
from rate_accuracy.chart import write_chart
from rate_accuracy.curves import PICTURE, Curve, Point, cheapest, curves_of, family_of, point_of
from rate_accuracy.pairs import evenly, pictures_below

from hybridge.shared.errors import ConfigError
from hybridge.shared.manifest import PlanRow, Rate


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


def test_rows_of_a_table_become_curves_by_bytes() -> None:
    rows = [
        PlanRow(
            plan=plan,
            agreement=Rate(value=0.5, standard_error=0.1, samples=10),
            accuracy=None,
            bytes_p50=size,
            bytes_p95=size,
        )
        for plan, size in (
            ("split:c1/int8/rans-30", 300),
            ("split:c1/int8/rans-20", 200),
            ("cloud:jpeg-50", 900),
        )
    ]
    points = [point_of(row, encode_ms=0.0, decode_ms=0.0) for row in rows]
    split, cloud = curves_of(points, work={"c1": 0.4}, spatial={"c1": True})
    assert (split.where, split.work, split.spatial) == ("c1/int8", 0.4, True)
    assert [each.bytes_p50 for each in split.points] == [200, 300]
    assert (cloud.where, cloud.work, cloud.spatial) == (PICTURE, 0.0, False)
    assert split.points[0].agreed == 5


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
    assert bottleneck.targets("vgg16", [picture]) == []
    narrow = curve(point("rans-8", 900, 98), point("rans-12", 1200, 99), where="b01-15x15x24/int8")
    *_, share = bottleneck.targets("vgg16", [picture, narrow])
    assert share.value == pytest.approx(1200 / 3000)
    assert share.holds
    never = curve(point("rans-8", 900, 98), where="b01-15x15x24/int8")
    assert not bottleneck.targets("vgg16", [picture, never])[0].holds


def test_a_bottleneck_belongs_to_a_model() -> None:
    assert bottleneck.of_a_model("vgg16=a/b.onnx") == ("vgg16", Path("a/b.onnx"))
    for wrong in ("b.onnx", "vgg16=", "other=b.onnx"):
        with pytest.raises(argparse.ArgumentTypeError, match="MODEL=FILE"):
            bottleneck.of_a_model(wrong)
