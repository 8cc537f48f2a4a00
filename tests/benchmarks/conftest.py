"""Benchmarks are scripts beside the package: they find each other by the folder they lie in."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
