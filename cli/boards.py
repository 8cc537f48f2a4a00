"""Boards on the command line: which there are, and what a bundle may take on one."""

from typing import TYPE_CHECKING

import msgspec

from ..shared.bundle import Bundle
from ..shared.errors import ConfigError
from .console import console, print_json, table

if TYPE_CHECKING:
    from ..devices.boards import Board
    from ..devices.profile import Profile


def print_boards(*, as_json: bool) -> int:
    """Lists the boards; the exit code."""
    from ..devices.boards import Kind, board_names, read_board, read_reference

    boards = [read_board(name) for name in board_names()]
    reference = read_reference()
    if as_json:
        print_json(
            {
                "reference": msgspec.to_builtins(reference),
                "boards": [
                    {
                        **msgspec.to_builtins(board),
                        "origin": "estimated",
                        "factors": {kind.value: round(board.factor(kind), 2) for kind in Kind},
                    }
                    for board in boards
                ],
            }
        )
        return 0
    rows = [
        (board.name, *(f"{board.factor(kind):.1f}" for kind in Kind), board.processor)
        for board in boards
    ]
    title = "ESTIMATED: times the reference machine's time, by kind of work"
    console.print(table(title, ("board", *(kind.value for kind in Kind), "processor"), rows))
    console.print(f"reference, measured: {reference.processor}")
    return 0


def estimated(bundle: Bundle, board: "Board") -> "Profile":
    """What a bundle may take on a board, from whichever measured profile it has."""
    from ..devices.estimate import basis, estimate
    from ..devices.profile import load_profiles

    measured = basis(load_profiles(bundle.profiles, bundle_sha256=bundle.sha256))
    if measured is None:
        raise ConfigError(
            "no machine has measured this bundle so that boards can be estimated from it; "
            f"run `hybridge profile {bundle.path}`"
        )
    return estimate(measured, board)
