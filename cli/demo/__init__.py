"""`hybridge demo`: one real model across two real processes, on pictures that packages ship."""

from .command import register, run

__all__ = ["register", "run"]
