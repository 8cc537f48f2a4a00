"""The cloud's figures as Prometheus reads them, on a port of their own."""

import asyncio
import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from aiohttp import web
from prometheus_client import GCCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from .executors.executor import Staff
from .front import Front
from .residence import Residence
from .room import Room
from .statistics import BOUNDS_S, BatchFigures, Statistics
from .web import application

BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128)

_MODEL = ("model", "version")
_TICKS, _PAGE_BYTES = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


def metrics_app(statistics: Statistics, front: Front) -> web.Application:
    """Answers GET /metrics, in the format a scraper asks for."""
    process = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=process)
    GCCollector(registry=process)

    async def metrics(request: web.Request) -> web.Response:
        # Read here, where nothing changes meanwhile; written in a thread, which takes milliseconds.
        families = list(_families(statistics, front))
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        text = await asyncio.to_thread(lambda: encode(_Families(families, process)))
        return web.Response(body=text, headers={"Content-Type": content_type})

    app = application(front.room)
    app.router.add_get("/metrics", metrics)
    return app


class _Families(Collector):
    """What was read from the cloud, and what is read from the process as it is asked for."""

    def __init__(self, families: Sequence[Metric], process: Collector) -> None:
        self._families = families
        self._process = process

    def collect(self) -> Iterable[Metric]:
        yield from self._families
        yield from self._process.collect()


def _families(statistics: Statistics, front: Front) -> Iterator[Metric]:
    served = front.now
    yield from _counters(statistics)
    yield from _doors(statistics, front.room)
    yield from _histograms(statistics)
    flying = GaugeMetricFamily(
        "hybridge_requests_in_flight", "Inference requests that came and are not answered yet."
    )
    flying.add_metric((), statistics.in_flight)
    growth = GaugeMetricFamily(
        "hybridge_resident_growth_bytes",
        "By how much memory has grown window by window while nothing was loaded; 0 if it has not.",
    )
    grown = statistics.growth.growth
    growth.add_metric((), 0 if grown is None else grown.grown_bytes)
    yield from (flying, growth)
    if served is None:
        return
    yield from _resident(served.inference.loader.residence)
    worker, models = served.inference.worker, {m.name for m in served.inference.repository}
    yield from _staff(worker.executor.staff)
    running = GaugeMetricFamily("hybridge_batches_running", "Batches that are being computed.")
    running.add_metric((), worker.running)
    yield running
    queue = GaugeMetricFamily(
        "hybridge_queue_length", "Requests that wait for an instance, by model.", labels=("model",)
    )
    for name in sorted(models):
        queue.add_metric((name,), worker.queued(name))
    yield queue
    forecast = GaugeMetricFamily(
        "hybridge_queue_forecast_seconds",
        "How long the queue would hold a request that arrived now.",
    )
    forecast.add_metric((), worker.forecast_ms() / 1e3)
    yield forecast


def _doors(statistics: Statistics, room: Room) -> Iterator[Metric]:
    taken = GaugeMetricFamily(
        "hybridge_request_memory_bytes", "What requests take until their answers are sent."
    )
    taken.add_metric((), room.taken_bytes)
    limit = GaugeMetricFamily(
        "hybridge_request_memory_limit_bytes", "What they may take; more are refused."
    )
    limit.add_metric((), room.limit_bytes)
    opened = GaugeMetricFamily(
        "hybridge_http_connections", "Open connections, by what a port is for.", labels=("port",)
    )
    refused = CounterMetricFamily(
        "hybridge_http_connections_refused",
        "Connections that were let go because as many as allowed were open.",
        labels=("port",),
    )
    for name, port in statistics.ports.items():
        opened.add_metric((name,), port.connections())
        refused.add_metric((name,), port.refused)
    yield from (taken, limit, opened, refused)


def _staff(staff: Staff | None) -> Iterator[Metric]:
    if staff is None:
        return
    workers = GaugeMetricFamily(
        "hybridge_workers", "Processes or actors that compute for this cloud.", labels=("state",)
    )
    workers.add_metric(("ready",), staff.ready)
    workers.add_metric(("starting",), staff.starting)
    deaths = CounterMetricFamily(
        "hybridge_worker_deaths", "Workers that ended without being asked to."
    )
    deaths.add_metric((), staff.deaths)
    yield from (workers, deaths)
    memory = GaugeMetricFamily(
        "hybridge_worker_resident_bytes", "Memory of a worker on this machine.", labels=("worker",)
    )
    cpu = CounterMetricFamily(
        "hybridge_worker_cpu_seconds", "Processor time of a worker here.", labels=("worker",)
    )
    for name, pid in staff.processes.items():
        try:
            resident = Path(f"/proc/{pid}/statm").read_text().split()[1]
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        memory.add_metric((name,), int(resident) * _PAGE_BYTES)
        cpu.add_metric((name,), (int(stat[11]) + int(stat[12])) / _TICKS)
    yield from (memory, cpu)


def _resident(residence: Residence) -> Iterator[Metric]:
    there = list(residence.resident())
    count = GaugeMetricFamily("hybridge_resident_models", "Models that are in memory.")
    count.add_metric((), len(there))
    size = GaugeMetricFamily(
        "hybridge_resident_bytes", "What a model in memory takes, as measured.", labels=_MODEL
    )
    for model, taken in there:
        size.add_metric(model, taken)
    yield from (count, size)
    if (budget_bytes := residence.limits.budget_bytes) is not None:
        budget = GaugeMetricFamily(
            "hybridge_resident_limit_bytes", "What all models in memory may take together."
        )
        budget.add_metric((), budget_bytes)
        yield budget


def _counters(statistics: Statistics) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "hybridge_requests",
        "Inference requests that ended, by gRPC status, whichever protocol they came by. "
        "Without a model: those that name none that is served.",
        labels=(*_MODEL, "code"),
    )
    refusals = CounterMetricFamily(
        "hybridge_refusals",
        "Requests that were not accepted, by reason; deadline: it was forecast to be missed.",
        labels=(*_MODEL, "reason"),
    )
    missed = CounterMetricFamily(
        "hybridge_deadline_misses",
        "Accepted requests that were not answered by their deadline.",
        labels=_MODEL,
    )
    items = CounterMetricFamily(
        "hybridge_inferences", "Answered items: a request with n pictures counts n.", labels=_MODEL
    )
    failed = CounterMetricFamily(
        "hybridge_load_failures", "Graphs that could not be loaded.", labels=_MODEL
    )
    evictions = CounterMetricFamily(
        "hybridge_evictions",
        "Models unloaded because nobody called them, or to make room for another.",
        labels=(*_MODEL, "reason"),
    )
    for name, version, figures in statistics:
        model = (name, version)
        failed.add_metric(model, figures.failed_loads)
        for why, count in sorted(figures.evictions.items()):
            evictions.add_metric((*model, why), count)
        for code, count in sorted(figures.codes.items()):
            requests.add_metric((*model, code), count)
        for reason, count in sorted(figures.refusals.items()):
            refusals.add_metric((*model, reason), count)
        missed.add_metric(model, figures.missed)
        items.add_metric(model, figures.items)
    yield from (requests, refusals, missed, items, failed, evictions)


def _histograms(statistics: Statistics) -> Iterator[Metric]:
    steps = HistogramMetricFamily(
        "hybridge_request_duration_seconds",
        "Where the time of answered requests went, from their arrival to their response.",
        labels=(*_MODEL, "step"),
    )
    sizes = HistogramMetricFamily(
        "hybridge_batch_items", "Items in each batch that was computed.", labels=_MODEL
    )
    loads = HistogramMetricFamily(
        "hybridge_load_duration_seconds",
        "How long a graph took to be loaded, from when it was its turn.",
        labels=_MODEL,
    )
    for name, version, figures in statistics:
        if not name:
            continue  # what has no model is never computed
        loads.add_metric(
            (name, version), _buckets(BOUNDS_S, figures.loads.counts), figures.loads.sum_s
        )
        for step, durations in figures.steps.items():
            buckets = _buckets(BOUNDS_S, durations.counts)
            steps.add_metric((name, version, step), buckets, durations.sum_s)
        sizes.add_metric((name, version), *_sizes(figures.batches))
    yield from (steps, sizes, loads)


def _sizes(batches: dict[int, BatchFigures]) -> tuple[list[tuple[str, float]], float]:
    counts = [0] * (len(BATCH_BOUNDS) + 1)
    for size, batch in batches.items():
        counts[bisect_left(BATCH_BOUNDS, size)] += batch.count
    return _buckets(BATCH_BOUNDS, counts), sum(size * each.count for size, each in batches.items())


def _buckets(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Cumulative, as the exposition format wants them."""
    names = [*(str(float(bound)) for bound in bounds), "+Inf"]
    return list(zip(names, accumulate(counts), strict=True))
