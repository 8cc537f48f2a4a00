"""How far the light model's own answers can be relied on. Pure."""


class Assurance:
    """What a confidence means. Without calibration it means nothing: the table's average holds."""

    def __init__(self, average: float) -> None:
        self._average = average

    def agrees(self, confidence: float) -> float:
        """The probability that the large model would have said the same."""
        return self._average

    def enough(self, confidence: float, min_agreement: float | None) -> bool:
        """Whether answers as sure as this agree at least so often, with the guarantee."""
        return False
