"""The page of an attack: all figures and examples are on it, and it needs no network."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from PIL import Image

from hybridge.cloud.training.inversion import Rebuilt
from hybridge.report.privacy.page import render
from hybridge.report.privacy.tables import rows, title
from hybridge.report.privacy.view import examples
from hybridge.shared.bundle import Bundle, open_bundle
from hybridge.shared.plan import Plan
from hybridge.shared.privacy import Attack

from ... import exposed
from ...inspected import COARSE, FINE, RAW, write_inspected
from ..test_demo import HOSTILE, Page

if TYPE_CHECKING:
    from pathlib import Path

    from hybridge.shared.signing import SigningKey, TrustStore

SIDE, COUNT = 16, 9


@pytest.fixture
def bundle(tmp_path: Path, key: SigningKey, trust: TrustStore) -> Bundle:
    return open_bundle(write_inspected(tmp_path, key), trust=trust)


@pytest.fixture
def attack(bundle: Bundle) -> Attack:
    return exposed.attack(bundle.manifest, {COARSE: 0.4, FINE: 0.7})


def rebuilt(plans: tuple[Plan, ...] = (COARSE, FINE, RAW)) -> Rebuilt:
    """Even greys, a shade for each picture; the later ones are rebuilt better."""
    shades = np.arange(COUNT, dtype=np.uint8) * 20
    pictures = np.broadcast_to(shades[:, None, None, None], (COUNT, SIDE, SIDE, 3))
    ssim = np.linspace(0.1, 0.9, COUNT)
    return Rebuilt(
        pictures,
        {plan: pictures + np.uint8(at + 1) for at, plan in enumerate(plans)},
        dict.fromkeys(plans, ssim),
    )


def test_everything_is_on_it(bundle: Bundle, attack: Attack) -> None:
    page = Page(render(bundle, attack, rebuilt()))
    for words in (
        "What the frames of tiny 1 give away",
        "Pictures were rebuilt to an SSIM of 0.30 to 0.60; a mere guess reaches 0.10",
        "A lower bound",
        "not anonymous",
        str(COARSE),
        str(FINE),
        str(RAW),
        "0.30 ± 0.01",
        "90 public pictures",
        "16 px a side",
        bundle.sha256[:16],
    ):
        assert words in page.text, words
    assert page.count("h1") == 1
    assert page.count("img") == 6 * (1 + 3)


def test_examples_go_from_the_worst_to_the_best(bundle: Bundle, attack: Attack) -> None:
    page = Page(render(bundle, attack, rebuilt()))
    images = [values["src"] or "" for tag, values in page.tags if tag == "img"]
    shades = [
        int(np.asarray(Image.open(io.BytesIO(base64.b64decode(each.partition(",")[2]))))[0, 0, 0])
        for each in images
    ]
    originals = [0, 40, 60, 100, 120, 160]
    assert shades[:6] == originals
    for row in (1, 2, 3):  # what was made of the very same pictures
        assert shades[6 * row : 6 * row + 6] == [shade + row for shade in originals]


def test_few_pictures_are_all_shown() -> None:
    assert examples([np.array([0.5, 0.4])]) == [1, 0]
    assert examples([np.array([0.5])]) == [0]


def test_it_needs_no_network(bundle: Bundle, attack: Attack) -> None:
    text = render(bundle, attack, rebuilt())
    page = Page(text)
    for _, values in page.tags:
        assert (values.get("src") or "data:").startswith("data:")
        assert "href" not in values
    assert "@import" not in text
    assert "url(" not in text
    assert "http" not in text.replace("http-equiv", "")
    (policy,) = [v["content"] for _, v in page.tags if v.get("http-equiv")]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_nothing_of_an_attack_breaks_it(bundle: Bundle, attack: Attack) -> None:
    hostile = msgspec.structs.replace(attack, method=HOSTILE, layers=(HOSTILE,))
    page = Page(render(bundle, hostile, rebuilt()))
    assert page.count("script") == 0
    assert HOSTILE in page.text


def test_the_table_goes_from_a_guess_to_the_picture_itself(attack: Attack) -> None:
    assert title(attack) == (
        "40 pictures rebuilt at 16\u00a0px, by nets trained on 100 public pictures"
    )
    names = [row[0] for row in rows(attack)]
    assert names == ["nothing (the mean public picture)", str(COARSE), str(FINE), "cloud:raw"]
    assert rows(attack)[1] == (str(COARSE), "0.30 ±\u00a00.01", "0.40", "0.250")


def test_what_was_not_measured_is_not_made_up(bundle: Bundle, attack: Attack) -> None:
    unknown = msgspec.structs.replace(attack, guess=exposed.likeness(0.2, distance=None), layers=())
    assert rows(unknown)[0][-1] == "\u2013"
    assert "distance\n" not in Page(render(bundle, unknown, rebuilt())).text
