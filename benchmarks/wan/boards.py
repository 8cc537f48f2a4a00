"""The simulated world, made from what was measured: a profile, and a laboratory if there is one."""

import asyncio
import json
import math
import random
import statistics
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hybridge.devices.models import LIGHT, RESIZE_LIGHT, stage_names
from hybridge.devices.profile import Runs, StageTime, load_profiles, summarize, tail_stage
from hybridge.edge.outlook import device_stages
from hybridge.shared.bundle import Bundle
from hybridge.shared.errors import ConfigError
from hybridge.shared.picture import decode_picture
from hybridge.shared.plan import Plan, PlanKind

from .answers import Answers
from .laboratory import Calibration
from .pairs import Pair
from .processor import FOREGROUND, Processor
from .records import Measured, Record
from .replays import LOCAL
from .simulated import Board
from .simulator import World
from .virtual import run_virtually

_RUNS = 20
_DECODED = 10
_ENOUGH = 10
"""Fewer samples say nothing of a median."""
_MEDIAN_OF_QUARTILE = math.exp(0.6745 * Board.spread)
"""The median of a time that waits for nothing, over its lower quartile."""
_OFTEN, _RARE = 0.3, 0.02
"""Shares of the requests that were sent to the cloud, and of those that the device answered."""


def world_of(pair: Pair, answers: Answers, *, share: float, kept: Path) -> World:
    """A board with a share of this machine's processor, and this machine as its cloud.

    How long decoding takes is measured once and kept in a file, so that a run can be had again.
    """
    bundle = pair.bundle
    work_ms = work_ms_of(_measured(bundle, bundle.profiles, stage_names(bundle.manifest)))
    if not kept.exists():
        times_ms = [_decode_ms(file) for file in pair.pictures[:_DECODED]]
        kept.write_text(json.dumps({"decode_ms": statistics.median(times_ms)}))
    decode_ms = float(json.loads(kept.read_text())["decode_ms"])
    board = Board(known={}, work_ms=work_ms, decode_ms=decode_ms, share=share)
    return World(
        bundle=bundle,
        answers=answers,
        board=replace(board, known=profiled(board)),
        tails_ms=_tails_ms(bundle),
    )


@dataclass(frozen=True)
class Finished:
    """What a laboratory left in its folder."""

    calibration: Calibration
    known: dict[str, StageTime]
    """What its edge measured of itself."""
    cells: Sequence[Measured]

    @classmethod
    def read(cls, folder: Path, pair: Pair, *, share: float) -> "Finished":
        """ConfigError where something is missing."""
        kept = folder / f"calibration_{pair.name}_{share:g}.json"
        if not kept.exists():
            raise ConfigError(f"no laboratory of {pair.name} with a share of {share:g} in {folder}")
        cells = [Measured.read(file) for file in sorted(folder.glob(f"{pair.name}_*hz_seed*.json"))]
        if not cells:
            raise ConfigError(f"no finished cell of {pair.name} in {folder}")
        known = measured_by(folder, pair.bundle, share=share)
        return cls(Calibration(**json.loads(kept.read_text())), known, cells)

    def world(self, bundle: Bundle, answers: Answers) -> World:
        """The laboratory's board and cloud, as the medians of its records say.

        What a request takes beside its stages is what is left of the processor's time for one when
        the board answered alone; half of it is taken to lie within the agent's clock.
        """
        work_ms = self._work_ms()
        records = [record for cell in self.cells for record in cell.records if record.answered]
        decode_ms = statistics.median(r.steps_ms["decode"] for r in records)
        used_ms = self._used_ms()
        beside_ms = max(used_ms - decode_ms - work_ms[RESIZE_LIGHT] - work_ms[LIGHT], 0.0)
        board = Board(
            known=self.known,
            work_ms=work_ms,
            decode_ms=decode_ms,
            outside_ms=beside_ms / 2,
            inside_ms=beside_ms / 2,
            exchange_ms=self._exchange_ms(decode_ms, work_ms),
            share=self.calibration.cpu_share,
        )
        tails_ms = _tails_ms(bundle) | self._tails_ms(bundle)
        return World(bundle=bundle, answers=answers, board=board, tails_ms=tails_ms)

    def _work_ms(self) -> dict[str, float]:
        """The processor's time for each stage: the profile's, or less where it was seen to be.

        The profile is of one moment, and of runs one after another that used up the quota. Of what
        was seen the quicker quarter waited for nothing. Stages that hardly ran are taken to be as
        much quicker as the others were in the median.
        """
        seen: dict[str, list[float]] = {}
        for record in (record for cell in self.cells for record in cell.records):
            for stage, ms in _stages_ms(record).items():
                seen.setdefault(stage, []).append(ms)
        work_ms = work_ms_of(self.known)
        quicker = {
            stage: min(
                _MEDIAN_OF_QUARTILE * statistics.quantiles(times_ms)[0] / work_ms[stage], 1.0
            )
            for stage, times_ms in seen.items()
            if len(times_ms) >= _ENOUGH
        }
        usual = statistics.median(quicker.values()) if quicker else 1.0
        return {stage: ms * quicker.get(stage, usual) for stage, ms in work_ms.items()}

    def _used_ms(self) -> float:
        """The processor's time for a request; the least, as whatever else the edge did is in it."""
        return float(
            min(
                1e3 * self.calibration.cpu_share / self.calibration.capacity_hz,
                *(
                    1e3 * each.circumstances["edge_cpu_share"] / each.cell.rate_hz
                    for each in self.cells
                    if each.cell.policy == LOCAL
                ),
                math.inf,
            )
        )

    def _exchange_ms(self, decode_ms: float, work_ms: Mapping[str, float]) -> float:
        """What asking the cloud takes of the processor beside the stages.

        From cells in which hardly any answer was called off, since only there it is known what ran:
        how much more was used in those that asked than in those that did not.
        """
        alone_ms, asking = [], []
        for each in self.cells:
            records = each.records
            share = statistics.fmean(record.sent_bytes > 0 for record in records)
            if statistics.fmean(bool(record.fallback) for record in records) > _RARE:
                continue
            ran_ms = statistics.fmean(_ran_ms(record, decode_ms, work_ms) for record in records)
            used_ms = 1e3 * each.circumstances["edge_cpu_share"] / each.cell.rate_hz
            if share > _OFTEN:
                asking.append((used_ms - ran_ms, share))
            elif share < _RARE:
                alone_ms.append(used_ms - ran_ms)
        if not alone_ms or not asking:
            return Board.exchange_ms
        least_ms = statistics.median(alone_ms)
        more_ms = float(statistics.median((ms - least_ms) / share for ms, share in asking))
        return max(more_ms, 0.0)

    def _tails_ms(self, bundle: Bundle) -> dict[str, float]:
        """Of the contracts that were answered often enough to tell."""
        plans = {str(plan): plan for row in bundle.manifest.table for plan in [row.parsed()]}
        seen: dict[str, list[float]] = {}
        for record in (record for cell in self.cells for record in cell.records):
            if "cloud_compute" in record.steps_ms and plans[record.plan].kind is not PlanKind.LOCAL:
                contract = bundle.manifest.contract(plans[record.plan]).id
                seen.setdefault(contract, []).append(record.steps_ms["cloud_compute"])
        return {
            each: statistics.median(times_ms)
            for each, times_ms in seen.items()
            if len(times_ms) >= _ENOUGH
        }


def _stages_ms(record: Record) -> dict[str, float]:
    """What is known of the stages that a request ran: of a plan that came to nothing, nothing."""
    plan = Plan.parse(record.plan) if record.plan else Plan.local()
    stages = (RESIZE_LIGHT, LIGHT, *device_stages(plan))
    names = {stage.partition(":")[0]: stage for stage in stages}
    return {names[step]: ms for step, ms in record.steps_ms.items() if step in names}


def _ran_ms(record: Record, decode_ms: float, work_ms: Mapping[str, float]) -> float:
    """The processor's time for the stages of a request."""
    stages = device_stages(Plan.parse(record.plan)) if record.plan else ()
    light = (RESIZE_LIGHT, LIGHT) if LIGHT in record.steps_ms else ()
    return decode_ms + sum(work_ms[stage] for stage in {*stages, *light})


def profiled(board: Board) -> dict[str, StageTime]:
    """What the board would find if it measured itself: each stage some times, one after another."""
    return run_virtually(_measure(board))


async def _measure(board: Board) -> dict[str, StageTime]:
    clock, chance = asyncio.get_running_loop().time, random.Random(0)
    processor = Processor(share=board.share)
    found = {}
    for name, work_ms in board.work_ms.items():
        runs = Runs()
        for _ in range(_RUNS):
            began_s, drawn_ms = clock(), board.draw(work_ms, chance)
            await processor.run(drawn_ms, FOREGROUND)
            runs.clock_ms.append((clock() - began_s) * 1e3)
            runs.cpu_ms.append(drawn_ms)
        found[name] = summarize(runs)
    return found


def measured_by(folder: Path, bundle: Bundle, *, share: float) -> dict[str, StageTime]:
    """What a laboratory's edge measured of itself; ConfigError if there is nothing of it."""
    manifest = bundle.manifest
    copy = folder / f"bundles-{share:g}" / manifest.name / manifest.version
    return _measured(bundle, copy / "profiles", stage_names(manifest))


def _measured(bundle: Bundle, folder: Path, names: Collection[str]) -> dict[str, StageTime]:
    """These stages, of the first profile that has them all."""
    for profile in load_profiles(folder, bundle_sha256=bundle.sha256):
        if profile.stages.keys() >= set(names):
            return {name: profile.stages[name] for name in names}
    raise ConfigError(f"no whole profile of {bundle.manifest.name} in {folder}")


def work_ms_of(stages: Mapping[str, StageTime]) -> dict[str, float]:
    """The processor's time for each."""
    return {name: each.cpu_ms or each.p50_ms for name, each in stages.items()}


def _tails_ms(bundle: Bundle) -> dict[str, float]:
    """The cloud's part behind every cut, by contract."""
    plans = [plan for row in bundle.manifest.table for plan in [row.parsed()]]
    tails = {
        bundle.manifest.contract(plan).id: tail_stage(plan.cut)
        for plan in plans
        if plan.kind is not PlanKind.LOCAL
    }
    times_ms = work_ms_of(_measured(bundle, bundle.profiles, set(tails.values())))
    return {contract: times_ms[stage] for contract, stage in tails.items()}


def _decode_ms(file: Path) -> float:
    encoded = file.read_bytes()
    began_ns = time.thread_time_ns()
    decode_picture(encoded)
    return (time.thread_time_ns() - began_ns) / 1e6
