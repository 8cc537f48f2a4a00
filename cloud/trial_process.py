"""The process in which a new version is tried: `python -m hybridge.cloud.trial_process`.

It stands back behind whatever serves, by its priority and as the first to go when memory is short,
and only then imports what it needs.
"""

import os
import pickle
import sys
from contextlib import suppress
from pathlib import Path

GOOD, BAD = 0, 65
_NICE = 10
_FIRST_TO_GO = "1000"


def main() -> int:
    """Opens what stdin names; what speaks against it is the last line on stderr."""
    os.nice(_NICE)
    with suppress(OSError):  # where that is not ours to say
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO)
    shelf, found = pickle.load(sys.stdin.buffer)  # noqa: S301  our parent wrote it
    from ..shared.errors import BundleError, ModelFault

    try:
        for tail in shelf.open(found, load=True).stages[1:]:
            tail.load()
            tail.unload()
    except (BundleError, ModelFault) as error:
        sys.stderr.write("\n" + " ".join(str(error).split()) + "\n")
        return BAD
    return GOOD


if __name__ == "__main__":
    sys.exit(main())
