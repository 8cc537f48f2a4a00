"""The serving benchmark's own reckoning, and its client against a real server."""

import asyncio
import sys
from pathlib import Path

import pytest
from serving import __main__ as main
from serving import fairness, overload, soak, throughput
from serving.client import Arrival, HttpCaller, Outcome, closed_loop, open_loop, poisson
from serving.findings import Findings
from serving.processes import server
from serving.rivals import RIVALS, given, left_out

from hybridge.shared.errors import ConfigError
from hybridge.shared.security import Address


def test_poisson_arrivals_are_as_many_as_asked_and_have_all_budgets() -> None:
    arrivals = poisson(100.0, seconds=50.0, budgets_s=(0.1, 0.2), seed=1)
    times = [each.at_s for each in arrivals]
    assert times == sorted(times)
    assert 4_500 < len(arrivals) < 5_500
    assert {each.budget_s for each in arrivals} == {0.1, 0.2}


@pytest.mark.parametrize(
    ("took_s", "fault", "in_time"), [(0.05, "", True), (0.15, "", False), (0.05, "LATE", False)]
)
def test_in_time_is_answered_within_the_budget(took_s: float, fault: str, in_time: bool) -> None:
    arrival = Arrival(at_s=0.0, budget_s=0.1)
    assert Outcome(arrival=arrival, took_s=took_s, fault=fault).in_time is in_time


def test_what_was_computed_for_nobody() -> None:
    arrival = Arrival(at_s=0.0, budget_s=0.1)
    outcomes = [Outcome(arrival=arrival, took_s=took_s) for took_s in (0.05, 0.05, 0.05, 0.2)]
    refused = [Outcome(arrival=arrival, took_s=0.001, fault="DEADLINE_EXCEEDED")]
    cell = overload._cell("x", 1.5, 4.0, 1.0, [*outcomes, *refused], executed=4)
    assert cell.wasted == 0.25
    assert cell.goodput == 3.0
    assert cell.met == 0.6
    assert cell.faults == {"late": 1, "DEADLINE_EXCEEDED": 1}


def cell(*rps: float, p95_ms: float) -> throughput._Cell:
    return throughput._Cell(list(rps), [p95_ms] * len(rps), [1.0] * len(rps))


def test_throughput_is_compared_round_by_round_and_with_the_best_of_each_kind() -> None:
    cells = {
        ("m", 8, "hybridge"): cell(90.0, 200.0, 95.0, p95_ms=11.0),
        ("m", 8, "bare"): cell(100.0, 200.0, 100.0, p95_ms=9.0),
        ("m", 8, "mosec"): cell(80.0, 80.0, p95_ms=20.0),
        ("m", 8, "kserve"): cell(60.0, 60.0, p95_ms=10.0),
    }
    of_bare, most, soonest = throughput._targets(cells)
    assert (of_bare.value, of_bare.holds) == (0.95, True)
    assert (most.bound, most.holds) == (80.0, True)
    assert (soonest.bound, soonest.holds) == (10.0, False)
    assert "mosec" in most.name
    assert "kserve" in soonest.name


def test_every_figure_that_is_asked_for_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = {
        (model, at_once, name): cell(100.0, p95_ms=10.0)
        for model in ("mobile_float", "mobile_uint8")
        for at_once in throughput.CONCURRENCIES
        for name in ("hybridge", "bare")
    }
    found = Findings(targets=throughput._targets(cells), figures={}, why_not="no peer")
    told = {
        each.name: each for each in main._report({"throughput": found}, load_before=0.0).targets
    }
    asked = [each for part in main.PARTS.values() for each in part.ASKED]
    assert {*told} == {each.name for each in (*asked, main.ON_A_GPU)}
    assert told["throughput: mobile_float, 8 at a time, of bare"].holds
    unpaired = told["throughput: mobile_float, 8 at a time, best peer"]
    assert (unpaired.value, unpaired.note) == (None, "no peer")
    flat = told["soak: resident memory grows by"]
    assert (flat.value, flat.bound, flat.note) == (None, soak.FLAT, "soak was not run")


def test_a_peers_goodput_is_ours_to_reach() -> None:
    arrival = Arrival(at_s=0.0, budget_s=0.1)
    made = [
        overload._cell(
            name, load, 10.0, 1.0, [Outcome(arrival=arrival, took_s=0.05)] * answered, executed=9
        )
        for name, answered in (("hybridge", 9), ("triton", 4))
        for load in overload.LOADS
    ]
    *_, beside = overload._targets(made)
    assert beside.name == "overload: goodput at 150 %, beside triton"
    assert (beside.value, beside.bound, beside.holds) == (0.9, 0.4, True)


def test_a_peer_without_an_interpreter_is_left_out_by_name() -> None:
    options = type("Options", (), {"peer": [f"mosec={sys.executable}"]})()
    rivals = given(options)
    assert [rival.name for rival in rivals] == ["mosec"]
    assert len(left_out(rivals)) == len(RIVALS) - 1
    options.peer = ["nobody=/bin/sh"]
    with pytest.raises(ConfigError, match="nobody"):
        given(options)


ECHO = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200 if body != b"bad" else 500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass
made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(made.server_address[1], flush=True)
made.serve_forever()
"""


async def use(address: Address) -> None:
    good = HttpCaller(address, "/", b"picture", "text/plain")
    bad = HttpCaller(address, "/", b"bad", "text/plain")
    assert await good.call() == b"picture"
    with pytest.raises(ConnectionError, match="500"):
        await bad.call()
    seen = await closed_loop(good, concurrency=2, seconds=0.2)
    assert all(took_ms > 0 for took_ms in seen.latencies_ms)
    arrivals = [Arrival(at_s=0.0, budget_s=60.0)] * 3
    outcomes = await open_loop(bad, arrivals) + await open_loop(good, arrivals)
    assert [each.fault for each in outcomes] == ["ConnectionError"] * 3 + [""] * 3
    await good.close()
    await bad.close()


def test_one_client_for_a_server_in_a_process(tmp_path: Path) -> None:
    with server([sys.executable, "-c", ECHO], log=tmp_path / "log") as running:
        asyncio.run(use(running.address))
        running.pause()
        running.resume()
        assert running.cpu_s >= 0
        assert running.resident_bytes > 0
        assert running.files > 0
        assert running.threads > 0


def test_a_server_that_does_not_start_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="did not start"),
        server([sys.executable, "-c", "raise SystemExit(3)"], log=tmp_path / "log"),
    ):
        pass


def test_what_two_floods_had_is_held_against_their_weights() -> None:
    arrival = Arrival(at_s=0.0, budget_s=0.1)

    def cell(case: str, model: str, run_time: float, *, answered: int) -> fairness.Cell:
        outcomes = [
            Outcome(arrival=arrival, took_s=0.05 if at < answered else 0.2) for at in range(10)
        ]
        served = next(each for each in fairness._PAIR if each.name == model)
        return fairness._cell(case, served, 3.0, outcomes, 10.0, run_time)

    cells = [
        cell("modest alone", "modest", 1.0, answered=10),
        cell("one flooded", "modest", 0.2, answered=8),
        cell("both", "flooded", 0.58, answered=5),
        cell("both", "modest", 0.42, answered=4),
        cell("both, 1 to 3", "modest", 0.72, answered=4),
    ]
    found = fairness._targets({(each.case, each.model): each for each in cells})
    assert [each.value for each in found] == pytest.approx([0.8, 0.9, 0.08, 0.03])
    assert [each.holds for each in found] == [False, True, False, True]
