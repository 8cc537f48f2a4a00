"""How far the light model's own answers can be relied on. Pure."""


class Assurance:
    """What a confidence means; without calibration it is taken at its word, and never enough."""

    def agrees(self, confidence: float) -> float:
        """The probability that the large model would have said the same."""
        return confidence

    def enough(self, confidence: float, min_agreement: float | None) -> bool:
        """Whether answers as sure as this agree at least so often, with the guarantee."""
        return False
