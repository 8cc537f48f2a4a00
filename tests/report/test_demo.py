"""The demo's page: everything of the run is on it, and nothing of the run can break it."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from hybridge.client import Answer
from hybridge.devices.probe import Device
from hybridge.report.demo import DemoAnswer, DemoRun, render
from hybridge.shared.manifest import PlanRow, Rate

VOID = {"meta", "br", "wbr", "link", "img", "hr", "input"}
HOSTILE = """<script>alert(1)</script>"'><b>&amp;{{ 7 * 7 }}"""
SPLIT = "split:block8/int8/affine4"

LOCAL_STEPS = {"decode": 4.0, "resize_light": 1.0, "light": 10.0}
CLOUD_STEPS = {
    "decode": 4.0,
    "resize_large": 2.0,
    "encode": 1.0,
    "network": 60.0,
    "cloud_queue": 1.0,
    "cloud_compute": 12.0,
}


class Page(HTMLParser):
    """A strict reader: every element closed by its own tag, ids unique, texts and tags kept."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == [], f"never closed: {self._open}"
        ids = [values["id"] for _, values in self.tags if "id" in values]
        assert len(ids) == len(set(ids))
        links = [v["href"] for _, v in self.tags if (v.get("href") or "").startswith("#")]
        assert {link.removeprefix("#") for link in links if link} <= set(ids)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute twice: {attrs}"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"{tag} closes nothing"
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.texts))

    def count(self, tag: str) -> int:
        return sum(found == tag for found, _ in self.tags)


def make_answer(*, plan: str = "local", label: str = "tabby", total_ms: float = 16.0) -> Answer:
    return Answer(
        request_id="1",
        labels=(label, "other"),
        probabilities=np.array([0.8, 0.2], np.float32),
        plan=plan,
        confidence=0.83,
        provisional=False,
        fallback="",
        sent_bytes=0 if plan == "local" else 12_345,
        total_ms=total_ms,
        budget_ms=100.0,
        within_budget=total_ms <= 100,
        steps_ms=dict(LOCAL_STEPS if plan == "local" else CLOUD_STEPS),
        round_trip_ms=total_ms + 1,
    )


def make_request(
    answer: Answer | None, *, picture: str = "cat.jpg", condition: str = "wifi", fault: str = ""
) -> DemoAnswer:
    return DemoAnswer(picture, b"\xff\xd8" + picture.encode(), condition, 100.0, answer, fault)


def make_run(*answers: DemoAnswer, samples: int = 24) -> DemoRun:
    def row(plan: str, hits: int, size: int) -> PlanRow:
        rate = Rate.of(hits, samples)
        return PlanRow(plan=plan, agreement=rate, accuracy=None, bytes_p50=size, bytes_p95=size * 2)

    return DemoRun(
        bundle="lite",
        version="7",
        table=[row("cloud:raw", samples, 202_800), row("local", samples - 3, 0)],
        device=Device(
            processor="Test CPU",
            architecture="x86_64",
            cores=2,
            memory_bytes=4 * 2**30,
            features=(),
            system="Linux 6",
            runtime="litert 2",
        ),
        links={"wifi": (4.0, 80.0)},
        answers=answers,
    )


def test_every_answer_is_there() -> None:
    requests = [
        make_request(
            make_answer(plan=plan, label=f"label-{picture}-{condition}-{plan[:5]}"),
            picture=f"{picture}.jpg",
            condition=condition,
        )
        for picture in ("cat", "dog", "owl")
        for condition in ("wifi", "cloud killed")
        for plan in ("local", "cloud:raw", SPLIT)
    ]
    text = render(make_run(*requests))
    page = Page(text)
    for request in requests:
        assert request.answer is not None
        assert page.text.count(request.answer.label) == 1
    assert page.count("article") == 6
    assert "18 requests, each answered within its budget" in page.text
    assert page.text.count("12.3 kB sent") == 12
    assert page.text.count("nothing sent") == 6
    assert "4 ms RTT, 80 Mbit/s" in page.text
    assert text.count("data:image/jpeg;base64,") == 3, "each picture once, however often shown"
    assert page.count("use") == 6


def test_the_page_needs_no_network() -> None:
    page = Page(render(make_run(make_request(make_answer(plan="cloud:raw")))))
    for tag, values in page.tags:
        assert tag not in {"script", "link", "iframe", "object"}
        for name in ("src", "href", "action", "srcset"):
            assert (values.get(name) or "#").startswith(("#", "data:"))
        assert not [name for name in values if name.startswith("on")]
    style = " ".join(page.texts)
    assert "url(" not in style
    assert "@import" not in style


@pytest.mark.parametrize("place", ["label", "plan", "fallback", "picture", "condition", "fault"])
def test_hostile_text_is_only_text(place: str) -> None:
    honest = make_request(make_answer())
    assert honest.answer is not None
    run = make_run(
        {
            "label": replace(honest, answer=replace(honest.answer, labels=(HOSTILE,))),
            "plan": replace(honest, answer=replace(honest.answer, plan=HOSTILE)),
            "fallback": replace(honest, answer=replace(honest.answer, fallback=HOSTILE)),
            "picture": replace(honest, picture=HOSTILE),
            "condition": replace(honest, condition=HOSTILE),
            "fault": replace(honest, answer=None, fault=HOSTILE),
        }[place]
    )
    page, plain = Page(render(run)), Page(render(make_run(honest)))
    assert HOSTILE in page.text
    assert page.count("script") == 0
    assert page.count("b") <= plain.count("b")


def test_hostile_bundle_and_device_are_only_text() -> None:
    run = make_run(make_request(make_answer()))
    run = replace(run, bundle=HOSTILE, links={HOSTILE: (1.0, 2.0)})
    page = Page(render(run))
    assert page.text.count(HOSTILE) == 2
    assert page.count("script") == 0


def test_without_any_cloud() -> None:
    page = Page(render(make_run(*[make_request(make_answer()) for _ in range(5)])))
    assert "The cloud took part in none of 5 answers" in page.text
    assert "no time went to network or cloud" in page.text
    colours = {(values.get("class") or "") for tag, values in page.tags if tag == "rect"}
    assert "fill light" in colours
    assert not colours & {"fill network", "fill cloud_compute", "fill cloud_queue"}


def test_without_any_request() -> None:
    assert "No request was made" in Page(render(make_run())).text


def test_what_went_wrong_is_said() -> None:
    late = make_answer(plan="cloud:raw", total_ms=130.0)
    page = Page(
        render(
            make_run(
                make_request(make_answer()),
                make_request(late),
                make_request(replace(make_answer(), provisional=True, fallback="cloud late")),
                make_request(None, fault="the agent is gone"),
            )
        )
    )
    assert "2 of 4 requests answered within budget, 1 late, 1 not at all" in page.text
    assert "the agent is gone" in page.text
    chips = [values["class"] for _, values in page.tags if "chip" in (values.get("class") or "")]
    assert sorted(chips, key=str) == ["chip bad", "chip bad", "chip warn", "chip warn"]
    assert "50\u00a0% within budget" in "".join(page.texts)


def test_times_that_are_no_numbers_do_not_break_the_drawing() -> None:
    odd = replace(
        make_answer(plan="cloud:raw"),
        total_ms=float("inf"),
        confidence=float("nan"),
        steps_ms={"network": float("nan"), "decode": -4.0, "cloud_compute": float("inf")},
    )
    page = Page(render(make_run(make_request(odd))))
    drawn = [v for tag, values in page.tags if tag in {"rect", "line"} for v in values.values()]
    assert drawn
    assert not [value for value in drawn if value and re.search(r"nan|inf", value.lower())]


@pytest.mark.parametrize(("samples", "warned"), [(24, True), (20_000, False)])
def test_the_table_says_how_sure_it_is(samples: int, warned: bool) -> None:
    page = Page(render(make_run(make_request(make_answer()), samples=samples)))
    assert f"measured on {samples:,} pictures" in page.text
    assert ("That is few" in page.text) is warned


def test_the_same_run_gives_the_same_page() -> None:
    run = make_run(make_request(make_answer()), make_request(make_answer(plan=SPLIT)))
    assert render(run) == render(run)
