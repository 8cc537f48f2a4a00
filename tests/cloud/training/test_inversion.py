"""The whole way, from a bundle and pictures to what was rebuilt of others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from hybridge.cloud.compiler.pictures import PictureSet, open_pictures
from hybridge.cloud.training.inversion import Rebuilt, Task, invert, keep_apart
from hybridge.cloud.training.settings import InversionSettings
from hybridge.cloud.training.similarity import ssim
from hybridge.cloud.training.trainer import Standing
from hybridge.shared.codec import codec_by_name
from hybridge.shared.errors import BuildError
from hybridge.shared.privacy import Attack

from ... import bundles
from ...bundles import CLOUD, CUT, SPLIT

if TYPE_CHECKING:
    from pathlib import Path

    from ...bundles import Small

SETTINGS = InversionSettings(
    size_px=16, width=8, epochs=12, batch=8, views=1, held_out=0.2, patience=20, learning_rate=5e-3
)


class Stopped(Exception):
    """In place of a signal, at a known moment."""


class Audience:
    """Remembers the steps that were told, and how the training went; may stop it in an epoch."""

    def __init__(self, *, stops_in: int = 0) -> None:
        self.steps: list[str] = []
        self.standings: list[Standing] = []
        self._stops_in = stops_in

    def __call__(self, step: str, done: int, total: int) -> None:
        self.steps.append(step)

    def watch(self, cut: str, standing: Standing) -> None:
        assert cut == CUT
        self.standings.append(standing)
        if standing.epoch == self._stops_in:
            raise Stopped


def pictures(folder: Path, seeds: range) -> PictureSet:
    folder.mkdir()
    for seed in seeds:
        Image.fromarray(bundles.picture(seed)).save(folder / f"{seed}.png")
    return open_pictures(folder, labels=None, classes=bundles.CLASSES, minimum=1)


def run(task: Task, audience: Audience) -> tuple[Attack, Rebuilt]:
    """One thread: sums are then added in the same order each time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return invert(task, device=torch.device("cpu"), progress=audience, watch=audience.watch)
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="module")
def task(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Task:
    folder = tmp_path_factory.mktemp("inversion")
    return Task(
        bundle=small.bundle,
        public=pictures(folder / "public", range(1000, 1120)),
        victims=pictures(folder / "victims", range(2000, 2012)),
        settings=SETTINGS,
        folder=folder / "kept",
    )


@pytest.fixture(scope="module")
def first(task: Task) -> tuple[Attack, Rebuilt]:
    return run(task, Audience())


def test_the_attack_says_what_was_done(task: Task, first: tuple[Attack, Rebuilt]) -> None:
    attack, rebuilt = first
    assert (attack.size_px, attack.victims) == (16, task.victims.sha256)
    assert attack.learned.sha256 == task.public.sha256
    assert attack.learned.learned + attack.learned.held_out == 120
    assert attack.settings["epochs"] == 12
    (split,) = attack.splits
    assert (split.plan, split.contract) == (
        str(SPLIT),
        task.bundle.manifest.contract(SPLIT).id,
    )
    assert split.likeness.pictures == len(rebuilt.originals) == 12
    assert rebuilt.by_plan.keys() == {SPLIT, CLOUD}


def test_a_picture_sent_as_it_is_is_the_same(first: tuple[Attack, Rebuilt]) -> None:
    attack, rebuilt = first
    found = attack.pictures[str(CLOUD)]
    assert (found.ssim, found.ssim_p95, found.distance) == (1.0, 1.0, 0.0)
    assert np.array_equal(rebuilt.by_plan[CLOUD], rebuilt.originals)


def test_figures_are_those_of_the_pictures_that_are_shown(first: tuple[Attack, Rebuilt]) -> None:
    attack, rebuilt = first
    made, wanted = (
        torch.from_numpy(np.array(each)).permute(0, 3, 1, 2).double() / 255
        for each in (rebuilt.by_plan[SPLIT], rebuilt.originals)
    )
    values = ssim(made, wanted).numpy()
    likeness = attack.splits[0].likeness
    assert rebuilt.ssim[SPLIT] == pytest.approx(values, abs=1e-4)
    assert likeness.ssim == pytest.approx(values.mean(), abs=2e-4)
    assert likeness.ssim_p95 == pytest.approx(np.quantile(values, 0.95), abs=2e-4)
    assert likeness.ssim_error == pytest.approx(values.std(ddof=1) / 12**0.5, abs=2e-4)
    assert likeness.distance is not None
    assert likeness.distance > 0


def test_frames_tell_which_picture_it_was(first: tuple[Attack, Rebuilt]) -> None:
    _, rebuilt = first
    wanted, made = (each.astype(float) for each in (rebuilt.originals, rebuilt.by_plan[SPLIT]))
    own = np.abs(made - wanted).mean()
    others = np.mean([np.abs(made - np.roll(wanted, at, axis=0)).mean() for at in range(1, 12)])
    assert own < 0.95 * others


def test_nothing_is_done_twice(task: Task, first: tuple[Attack, Rebuilt]) -> None:
    again = Audience()
    attack, rebuilt = run(task, again)
    assert attack == first[0]
    assert np.array_equal(rebuilt.by_plan[SPLIT], first[1].by_plan[SPLIT])
    assert again.standings == []
    assert "pictures to rebuild" not in again.steps
    assert f"frames of {CUT}" not in again.steps


def test_one_that_was_stopped_comes_to_the_very_same(
    task: Task, first: tuple[Attack, Rebuilt], tmp_path: Path
) -> None:
    moved = replace(task, folder=tmp_path / "kept")
    with pytest.raises(Stopped):
        run(moved, Audience(stops_in=3))
    rest = Audience()
    assert run(moved, rest)[0] == first[0]
    assert rest.standings[0].epoch == 3  # not from the start


def test_the_net_learns_from_what_a_frame_holds(task: Task, first: tuple[Attack, Rebuilt]) -> None:
    """Not from the head's own tensor: the codec of four bits has left its mark on every value."""
    (file,) = (each for each in task.folder.iterdir() if each.name.startswith("crossed-")
               and each.stat().st_size == 120 * 48)  # fmt: skip
    kept = np.frombuffer(file.read_bytes(), np.int8).reshape(120, 1, 2, 2, 12)
    contract = task.bundle.manifest.contract(SPLIT)
    codec = codec_by_name(SPLIT.codec, contract)
    again = codec.decode(codec.encode(kept[0, 0]), shape=contract.shape, dtype=contract.dtype)
    assert np.array_equal(again, kept[0, 0])
    assert len(np.unique(kept)) <= 16


def test_a_picture_that_was_learned_from_is_not_rebuilt(task: Task, tmp_path: Path) -> None:
    copy = tmp_path / "another name.png"
    copy.write_bytes(task.public.files[5].read_bytes())
    victims = replace(task.victims, files=(*task.victims.files[1:], copy))
    with pytest.raises(BuildError, match=r"1 pictures are both learned from .*another name\.png"):
        run(replace(task, victims=victims), Audience())


def test_a_bundle_without_splits_has_nothing_to_rebuild_from(task: Task) -> None:
    import msgspec

    manifest = task.bundle.manifest
    table = tuple(row for row in manifest.table if not row.parsed().cut)
    bundle = replace(task.bundle, manifest=msgspec.structs.replace(manifest, table=table))
    with pytest.raises(BuildError, match="nothing but pictures leaves its device"):
        run(replace(task, bundle=bundle), Audience())


def test_pictures_are_kept_apart_by_their_content(task: Task, tmp_path: Path) -> None:
    public, victims = keep_apart(task.public, share=0.2)
    assert set(public.files) | set(victims.files) == set(task.public.files)
    assert len(public) + len(victims) == 120
    assert public.sha256 != victims.sha256
    # Of what is learned from, some is still there to be held out.
    attack, _ = run(
        replace(
            task,
            public=public,
            victims=victims,
            folder=tmp_path,
            settings=replace(SETTINGS, epochs=1),
        ),
        Audience(),
    )
    assert attack.learned.held_out >= 16
    with pytest.raises(BuildError, match=r"leave \d to rebuild.*--victims"):
        keep_apart(task.public, share=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: replace(s, size_px=8), "size 8: 11 to 1024"),
        (lambda s: replace(s, epochs=0), "epochs 0"),
        (lambda s: replace(s, learning_rate=float("nan")), "learning rate nan"),
        (lambda s: replace(s, views=17), "views 17"),
    ],
)
def test_settings_that_cannot_work(
    change: Callable[[InversionSettings], InversionSettings], message: str
) -> None:
    with pytest.raises(BuildError, match=message):
        change(SETTINGS)
