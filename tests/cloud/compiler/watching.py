"""Who watches work in tests: what it told, and whether it counted as it should."""

from collections import defaultdict


class Watch:
    """Takes what `Progress` and `Count` tell."""

    def __init__(self) -> None:
        self._told: dict[str, list[tuple[int, int]]] = defaultdict(list)

    def __call__(self, step: str, done: int, total: int) -> None:
        if total:
            self._told[step].append((done, total))

    def count(self, done: int, total: int) -> None:
        self("", done, total)

    @property
    def finished(self) -> dict[str, int]:
        """How much each step that counts did; each did all it promised, one after the other.

        One that is done several times counts from the beginning each time.
        """
        for step, told in self._told.items():
            assert told[0][0] == 0, step
            for (done, total), (then, out_of) in zip(told, [*told[1:], (0, 0)], strict=True):
                assert (then, out_of) == (done + 1, total) or (then == 0 and done == total), step
        return {step: told[-1][1] for step, told in self._told.items()}
