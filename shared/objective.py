"""What may be wanted of an answer, beside that it comes in time."""

from enum import StrEnum


class Objective(StrEnum):
    """What is to be best. All but `accuracy` keep to a least agreement and save something else."""

    ACCURACY = "accuracy"
    LATENCY = "latency"
    BYTES = "bytes"
    ENERGY = "energy"
    COST = "cost"
