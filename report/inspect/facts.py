"""What a report says of a bundle, gathered from its manifest, its graph and its profiles."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ...devices.models import LIGHT, head_stage
from ...devices.profile import tail_stage
from ...shared.bundle import Bundle
from ...shared.manifest import BuildRecord, Cut, CutRecord, PlanRow
from ...shared.plan import Plan, PlanKind
from ...shared.privacy import Privacy
from ..words import count_words
from .graph import Graph
from .machines import Machine, machines_of

KEPT = "kept"


@dataclass(frozen=True, slots=True)
class CutFacts:
    """A place where the large model can be split, kept or not; None is what nobody recorded.

    `shapes` are per item, as they travel; `work` is the share of the model's multiply-adds before.
    """

    name: str
    tensors: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    fate: str
    work: float | None
    error: float | None = None
    int8_snr_db: float | None = None
    int8_agreement: float | None = None
    heads: tuple[str, ...] = ()

    @property
    def kept(self) -> bool:
        return self.fate == KEPT

    @property
    def elements(self) -> int:
        """The bytes of its tensors in int8, before any coding."""
        return sum(math.prod(shape) for shape in self.shapes)


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """A row of the measured table; `code` is its short name in charts."""

    row: PlanRow
    plan: Plan
    code: str


@dataclass(frozen=True)
class Inspection:
    """A bundle as it is shown."""

    bundle: Bundle
    graph: Graph | None
    machines: tuple[Machine, ...]
    privacy: Privacy | None = None

    @cached_property
    def plans(self) -> tuple[PlanFacts, ...]:
        """The table: the device alone, splits by depth and bytes, whole pictures by bytes."""
        depth = {cut.name: at for at, cut in enumerate(self.cuts)}
        rows = [(row, row.parsed()) for row in self.bundle.manifest.table]
        kinds = list(PlanKind)
        rows.sort(key=lambda r: (kinds.index(r[1].kind), depth.get(r[1].cut, 0), r[0].bytes_p50))
        letters = {PlanKind.LOCAL: "D", PlanKind.SPLIT: "S", PlanKind.CLOUD: "C"}
        counts = dict.fromkeys(PlanKind, 0)
        facts = []
        for row, plan in rows:
            counts[plan.kind] += 1
            count = "" if plan.kind is PlanKind.LOCAL else str(counts[plan.kind])
            facts.append(PlanFacts(row, plan, letters[plan.kind] + count))
        return tuple(facts)

    @cached_property
    def cuts(self) -> tuple[CutFacts, ...]:
        """All recorded cuts from the input on; those kept alone where the bundle is an old one."""
        large = self.bundle.manifest.large
        recorded = {record.name: record for record in self.build.cuts}
        kept = {cut.name: cut for cut in large.cuts}
        facts = [self._recorded(each, kept.get(each.name)) for each in recorded.values()]
        facts += [self._unrecorded(cut) for cut in large.cuts if cut.name not in recorded]
        return tuple(sorted(facts, key=self._place))

    @property
    def measured_on(self) -> str:
        """How many pictures the table is about; of those, how many the accuracy is about."""
        rows = [each.row for each in self.plans]
        count = max((row.agreement.samples for row in rows), default=0)
        labelled = max((row.accuracy.samples for row in rows if row.accuracy), default=count)
        words = count_words(count, "picture")
        return words if labelled == count else f"{words}, {labelled:,} of them labelled"

    @property
    def kept_cuts(self) -> list[CutFacts]:
        return [cut for cut in self.cuts if cut.kept]

    @property
    def build(self) -> BuildRecord:
        return self.bundle.manifest.build

    @cached_property
    def total_bytes(self) -> int:
        """Of everything the manifest names, each once."""
        return sum(blob.bytes for blob in self.bundle.manifest.blobs())

    def gives_away(self, each: PlanFacts) -> float | None:
        """The SSIM on which limits decide, as the router takes it; None for what nobody tried."""
        match each.plan.kind:
            case PlanKind.LOCAL:
                return 0.0
            case PlanKind.CLOUD:
                return 1.0
            case PlanKind.SPLIT:
                known, manifest = self.privacy, self.bundle.manifest
                return known.alike(each.plan, manifest) if known else None

    def plans_at(self, cut: str) -> list[PlanFacts]:
        return [each for each in self.plans if each.plan.cut == cut and cut]

    def head_ms(self, machine: Machine, cut: CutFacts, head: str) -> float:
        """The p95 of a head; inf where it was never measured."""
        return machine.times.p95_ms(head_stage(cut.name, head))

    def model_ms(self, machine: Machine) -> dict[str, float]:
        """The p95 of the two models as a whole, where they were measured."""
        return {"light": machine.times.p95_ms(LIGHT), "large": machine.times.p95_ms(tail_stage(""))}

    def _recorded(self, record: CutRecord, cut: Cut | None) -> CutFacts:
        fate = record.fate if cut is None else KEPT
        if cut is None and fate == KEPT:
            fate = "not in the bundle"
        return CutFacts(
            name=record.name,
            tensors=record.tensors,
            shapes=record.shapes,
            fate=fate,
            work=record.work,
            error=record.error,
            int8_snr_db=record.int8_snr_db,
            int8_agreement=record.int8_agreement,
            heads=_heads(cut),
        )

    def _unrecorded(self, cut: Cut) -> CutFacts:
        contract = cut.contract
        tensors = tuple(part.tensor for part in contract.parts) or (contract.tensor,)
        return CutFacts(
            name=cut.name,
            tensors=tensors,
            shapes=tuple(part.shape for part in contract.parts) or (contract.shape,),
            fate=KEPT,
            work=self.graph.work_before(tensors) if self.graph else None,
            heads=_heads(cut),
        )

    def _place(self, cut: CutFacts) -> tuple[float, float, str]:
        position = self.graph.position(cut.tensors) if self.graph else None
        return (-1 if position is None else position, cut.work or 0.0, cut.name)


def inspect_bundle(
    bundle: Bundle,
    *,
    graph: Graph | None = None,
    here: str = "",
    more: Sequence[Machine] = (),
    privacy: Privacy | None = None,
) -> Inspection:
    """A bundle with its profiles; `here` is this machine's fingerprint, which comes first."""
    return Inspection(bundle, graph, (*machines_of(bundle, here=here), *more), privacy)


def _heads(cut: Cut | None) -> tuple[str, ...]:
    return tuple(sorted(cut.heads)) if cut else ()
