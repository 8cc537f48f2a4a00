from pathlib import Path

import pytest

from hybridge.shared.paths import Paths


@pytest.mark.parametrize(
    ("environment", "root"),
    [
        ({"HYBRIDGE_HOME": "/srv/h", "XDG_DATA_HOME": "/data"}, Path("/srv/h")),
        ({"HYBRIDGE_HOME": "", "XDG_DATA_HOME": "/data"}, Path("/data/hybridge")),
        ({"HYBRIDGE_HOME": "~/h"}, Path.home() / "h"),
        ({}, Path.home() / ".local" / "share" / "hybridge"),
    ],
)
def test_where_things_are_kept(environment: dict[str, str], root: Path) -> None:
    paths = Paths.from_environment(environment)
    assert paths.root == root
    folders = (paths.bundles, paths.signing_key, paths.trusted, paths.build_cache)
    assert len(set(folders)) == len(folders)
    assert all(root in folder.parents for folder in folders)
