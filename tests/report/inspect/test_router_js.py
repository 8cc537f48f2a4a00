"""The page's rule is the router's: both run on the same cases, in a real JavaScript engine."""

from __future__ import annotations

import json
import random
from importlib.resources import files
from math import inf, isfinite
from typing import Any

import pytest
import quickjs

from hybridge.edge.duration import Duration
from hybridge.edge.question import Question
from hybridge.edge.router import Option, Part, choose, explain
from hybridge.report.inspect.data import cloud_times, device_times, plans_data
from hybridge.report.inspect.facts import Inspection
from hybridge.report.inspect.machines import Link, options_on
from hybridge.report.inspect.whatif import Answer, ladder, verdict
from hybridge.report.words import ms_words
from hybridge.shared.manifest import Rate
from hybridge.shared.plan import Plan

ANSWER = """
function answer({plans, device_ms, cloud_ms, link, left_ms}) {
  const options = optionsOn(plans, device_ms, cloud_ms, link);
  const found = verdict(options, left_ms);
  const why = explain(options, left_ms).map(({option, why}) => [option.plan, why]);
  const figures = ({plan, agreement, network_ms, total_ms, layers}) =>
    [plan, agreement, finite(network_ms), finite(total_ms), layers];
  const rungs = ladder(options).map(({from_ms, answer}) => [from_ms, ...figures(answer)]);
  const answers = options.map((option) => figures(answered(option, left_ms)));
  return {
    taken: choose(options, left_ms).option.plan, fits: found.fits, words: found.words,
    second: found.second && found.second.plan, why, rungs, answers,
    answer: figures(found.taken),
  };
}
const finite = (ms) => (ms === Infinity ? null : ms);
"""


@pytest.fixture(scope="module")
def engine() -> quickjs.Context:
    source = files("hybridge.report").joinpath("templates", "router.js").read_text("utf-8")
    context = quickjs.Context()
    context.eval(source + ANSWER)
    return context


def run(engine: quickjs.Context, call: str, *arguments: Any) -> Any:
    written = ", ".join(json.dumps(each) for each in arguments)
    return json.loads(engine.eval(f"JSON.stringify({call}({written}))"))


def figures(answer: Answer) -> list[Any]:
    times = (ms if isfinite(ms) else None for ms in (answer.network_ms, answer.total_ms))
    return [str(answer.option.plan), answer.agreement, *times, answer.layers or 0]


def python_answer(options: list[Option], left_ms: float) -> dict[str, Any]:
    found, asked = verdict(options, left_ms=left_ms), Question(left_ms=left_ms)
    return {
        "taken": str(choose(options, asked).option.plan),
        "fits": found.decision.fits,
        "words": found.words,
        "second": str(found.runner_up.plan) if found.runner_up else None,
        "why": [[str(option.plan), why] for option, why in explain(options, asked)],
        "rungs": [[rung.from_ms, *figures(rung.answer)] for rung in ladder(options)],
        "answers": [figures(Answer.of(each, left_ms=left_ms)) for each in options],
        "answer": figures(found.answer),
    }


def random_case(rng: random.Random) -> tuple[dict[str, Any], list[Option], float]:
    """A table, times and a link, full of ties; what JavaScript gets, and what Python does."""
    plans = [Plan.local()]
    plans += [Plan.cloud(f"jpeg-{quality}") for quality in rng.sample(range(1, 100), 3)]
    plans += [
        Plan.split(f"c{rng.randrange(9):02d}", head=rng.choice(["int8", "float32"]), codec=f"a{at}")
        for at in range(rng.randrange(6))
    ]
    rng.shuffle(plans)
    order = sorted(plans)
    link = Link(
        rng.choice([0.0, 8.5, 51.0, 151.3]), rng.choice([0.7, 11.4, 940.0, rng.uniform(0.1, 100.0)])
    )
    speed = rng.choice([0.5, 1.0, 3.0])
    whole = rng.random() < 0.5  # whole figures make ties, of times too

    def time() -> float:
        if rng.random() < 0.08:
            return inf
        return float(rng.randrange(0, 40)) if whole else rng.uniform(0.0, 1200.0)

    options, rows, device, cloud = [], [], [], []
    for plan in plans:
        local = plan == Plan.local()
        agreement = Rate(
            value=rng.choice([0.8, 0.9, 0.953333, 0.96, 1.0]),
            standard_error=rng.choice([0.0, 0.007, 0.01, 0.04]),
            samples=150,
        )
        size, device_ms, cloud_ms = (
            (0 if local else rng.choice([400, 9000, 120_000, rng.randrange(1_000_000)])),
            time(),
            time(),
        )
        least_ms = device_ms + (0.0 if local else cloud_ms / speed)
        layers = [] if local else random_layers(rng, agreement.value, size)
        options.append(
            Option(
                plan=plan,
                agreement=agreement,
                size_bytes=size,
                device_ms=device_ms,
                network_ms=0.0 if local else link.transfer_ms(size),
                cloud_ms=0.0 if local else cloud_ms / speed,
                parts=tuple(
                    Part(count, value, Duration(link.transfer_ms(part)).then(Duration(least_ms)))
                    for count, value, part in layers
                ),
            )
        )
        rows.append(
            {
                "plan": str(plan),
                "agreement": agreement.value,
                "error": agreement.standard_error,
                "bytes": size,
                "layers": layers,
                "rank": order.index(plan),
                "local": local,
            }
        )
        device.append(device_ms if isfinite(device_ms) else None)
        cloud.append(cloud_ms if isfinite(cloud_ms) else None)
    finite = [option.total_ms for option in options if isfinite(option.total_ms)]
    finite += [p.total.mean_ms for o in options for p in o.parts if isfinite(p.total.mean_ms)]
    left_ms = rng.choice([*finite, rng.uniform(0, 400), 2000.0])
    case = {
        "plans": rows,
        "device_ms": device,
        "cloud_ms": cloud,
        "link": {"rtt_ms": link.rtt_ms, "mbps": link.mbps, "cloud_speed": speed},
        "left_ms": left_ms,
    }
    return case, options, left_ms


def random_layers(rng: random.Random, agreement: float, size: int) -> list[tuple[int, float, int]]:
    """Parts of a frame, none better than the next, the whole among them."""
    values = [value for value in (0.82, 0.9, 0.945, 0.953333, 0.96) if value <= agreement]
    counts = sorted(rng.sample(range(1, 5), rng.choice([0, 0, 1, 3])))
    worth = sorted(rng.choices(values, k=len(counts))) if values else []
    return [(n, value, size * n // 5) for n, value in zip(counts, worth, strict=False)]


def test_it_decides_and_explains_as_the_router_does(engine: quickjs.Context) -> None:
    rng = random.Random(20)
    cases = [random_case(rng) for _ in range(2000)]
    asked = [case for case, _, _ in cases]
    answers = run(engine, "(cases => cases.map(answer))", asked)
    for case, answer, (_, options, left_ms) in zip(asked, answers, cases, strict=True):
        assert answer == python_answer(options, left_ms), case
    taken = {answer["taken"].partition(":")[0] for answer in answers}
    assert taken == {"local", "split", "cloud"}
    assert {answer["fits"] for answer in answers} == {True, False}
    assert sum("tie" in answer["words"] for answer in answers) > 200
    assert sum(answer["answer"][-1] > 0 for answer in answers) > 50


def test_a_page_asks_it_what_the_command_line_asks_the_router(
    engine: quickjs.Context, layered: Inspection
) -> None:
    report, answered = layered, set()
    manifest, machine = report.bundle.manifest, report.machines[0]
    for rtt_ms, mbps in ((1.0, 940.0), (51.0, 11.4), (151.0, 0.01)):
        link = Link(rtt_ms, mbps)
        made = options_on(manifest, machine, cloud=machine, link=link, cloud_speed=2.0)
        by_plan = {str(option.plan): option for option in made}
        options = [by_plan[each.row.plan] for each in report.plans]
        for left_ms in (0.05, 20.0, 100.0, 235.0, 280.0, 3000.0):
            case = {
                "plans": plans_data(report, {}),
                "device_ms": device_times(report, machine),
                "cloud_ms": cloud_times(report, machine),
                "link": {"rtt_ms": rtt_ms, "mbps": mbps, "cloud_speed": 2.0},
                "left_ms": left_ms,
            }
            answer = run(engine, "answer", case)
            assert answer == python_answer(options, left_ms)
            answered.add(answer["answer"][-1])
    assert answered == {0, 2, 3}


def test_figures_are_written_as_python_writes_them(engine: quickjs.Context) -> None:
    rng = random.Random(3)
    values = [0.5, 1.5, 2.5, 0.25, 0.75, 12.5, 9.95, 999.5, 1234.5, 12345678.0]
    values += [rng.uniform(0, 3000) for _ in range(500)]
    fixed = "(values => values.map((value) => [fixed(value, 0), fixed(value, 1), msWords(value)]))"
    wanted = [[f"{value:.0f}", f"{value:.1f}", ms_words(value)] for value in values]
    assert run(engine, fixed, values) == wanted
