"""What a request wants of its answer, beside that it comes in time."""

from dataclasses import asdict, dataclass

from ..shared import oip as messages
from ..shared.objective import Objective


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Left out, each of these is as the agent and its bundle have it.

    `objective` is what is to be best; all but accuracy keep to `min_agreement`, how often answers
    shall be the large model's own. `stay_local`: nothing leaves the device. `only_cuts`: no picture
    does. `max_similarity`: nothing from which pictures were rebuilt that are more alike to the
    original, in SSIM from 0 to 1; what nobody tried to rebuild pictures from does not leave it
    either. `bytes_per_hour`: what may leave it within an hour, all requests together.
    """

    objective: Objective | None = None
    min_agreement: float | None = None
    stay_local: bool | None = None
    only_cuts: bool | None = None
    max_similarity: float | None = None
    bytes_per_hour: float | None = None

    def parameters(self) -> dict[str, messages.Value]:
        """As they travel with the request."""
        return {
            name: str(value) if isinstance(value, Objective) else value
            for name, value in asdict(self).items()
            if value is not None
        }


ANYTHING = Wish()
