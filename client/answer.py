"""An answer as an app gets it."""

from dataclasses import dataclass, field
from typing import cast

import numpy as np
import numpy.typing as npt

from ..protos import open_inference_pb2 as pb
from ..shared import oip as messages
from ..shared.came import Came
from ..shared.errors import RemoteRefused, RequestError
from ..shared.side import Tensors


@dataclass(frozen=True)
class Answer:
    """One answer. Times are the agent's, but for `round_trip_ms`, which is the app's own.

    `provisional`: the deadline came before the cloud's answer. `fallback`: why the device answered
    in the cloud's place; else empty. `final`: the one that came after the deadline, to a request
    that was to be followed; with a `fallback`, no better one came, and it says why.

    `outputs` are what the large model gives beside its answer, [1, ...] each. An answer of the
    device's own has none of them, and `missing_outputs` names those that were wanted. `came`: of a
    plan whose frame is in layers, how much of it the cloud had when it answered.
    """

    request_id: str
    labels: tuple[str, ...]
    probabilities: npt.NDArray[np.float32]
    plan: str
    confidence: float
    provisional: bool
    fallback: str
    sent_bytes: int
    total_ms: float
    budget_ms: float
    within_budget: bool
    steps_ms: dict[str, float]
    round_trip_ms: float
    outputs: Tensors = field(default_factory=dict)
    missing_outputs: tuple[str, ...] = ()
    final: bool = False
    results_epoch: str = ""
    follow_ms: float = 0.0
    """Where a final answer will follow: in which log of the edge, and how long it may take."""
    came: Came | None = None
    remarks: str = ""
    """What of the wishes cannot be kept, such as an agreement that the bundle does not support."""

    @property
    def final_follows(self) -> bool:
        """Whether a final answer will come: ask `client.finals` for it."""
        return bool(self.results_epoch)

    @property
    def label(self) -> str:
        return self.labels[0]


def read_answer(response: pb.ModelInferResponse, *, round_trip_ms: float) -> Answer:
    """What a response says; RemoteRefused if it cannot be read."""
    try:
        return _read(response, round_trip_ms=round_trip_ms)
    except (RequestError, IndexError, ValueError) as error:
        raise RemoteRefused(f"its answer cannot be read ({error})") from error


def _read(response: pb.ModelInferResponse, *, round_trip_ms: float) -> Answer:
    values = messages.get_parameters(response.parameters)
    steps = {
        name.removeprefix("step_").removesuffix("_ms"): float(value)
        for name, value in values.items()
        if name.startswith("step_")
    }
    probabilities = messages.output_array(response, "probabilities")[0]
    labels = messages.output_elements(response, "labels")
    if not labels:
        raise ValueError("no labels")
    own = (messages.PROBABILITIES, messages.LABELS)
    missing = str(values.get(messages.MISSING_OUTPUTS, ""))
    return Answer(
        request_id=response.id,
        labels=tuple(label.decode() for label in labels),
        probabilities=cast(npt.NDArray[np.float32], probabilities),
        plan=str(values.get(messages.PLAN, "")),
        confidence=messages.number(values, messages.CONFIDENCE) or 0.0,
        provisional=bool(values.get(messages.PROVISIONAL, False)),
        fallback=str(values.get("fallback", "")),
        sent_bytes=int(messages.number(values, "sent_bytes") or 0),
        total_ms=messages.number(values, "total_ms") or 0.0,
        budget_ms=messages.number(values, "budget_ms") or 0.0,
        within_budget=bool(values.get("within_budget", False)),
        steps_ms=steps,
        round_trip_ms=round_trip_ms,
        outputs={
            each.name: messages.output_array(response, each.name)
            for each in response.outputs
            if each.name not in own
        },
        missing_outputs=tuple(missing.split(",")) if missing else (),
        final=bool(values.get(messages.FINAL, False)),
        results_epoch=str(values.get(messages.RESULTS_EPOCH, "")),
        follow_ms=messages.number(values, messages.FOLLOW_MS) or 0.0,
        came=Came.of(values),
        remarks=str(values.get(messages.REMARKS, "")),
    )
