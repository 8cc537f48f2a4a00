"""What somebody measured of a bundle's frames, made up where a test needs to know it."""

from collections.abc import Mapping

from hybridge.shared.manifest import Manifest
from hybridge.shared.plan import Plan
from hybridge.shared.privacy import Attack, Exposed, Learned, Likeness, Privacy


def likeness(p95: float, *, distance: float | None = 0.25) -> Likeness:
    return Likeness(
        pictures=40, ssim=round(p95 - 0.1, 4), ssim_error=0.01, ssim_p95=p95, distance=distance
    )


def attack(
    manifest: Manifest, p95: Mapping[Plan, float], *, victims: str = "d" * 64, contract: str = ""
) -> Attack:
    """One that went so far with each split, under the bundle's contracts or another."""
    return Attack(
        method="inversion net",
        size_px=16,
        learned=Learned(sha256="b" * 64, learned=90, held_out=10, views=2),
        victims=victims,
        settings={"epochs": 3.0},
        layers=("early",),
        guess=likeness(0.2),
        pictures={"cloud:raw": likeness(1.0, distance=0.0)},
        splits=tuple(
            Exposed(
                plan=str(plan),
                contract=contract or manifest.contract(plan).id,
                likeness=likeness(value),
            )
            for plan, value in p95.items()
        ),
        tools={"torch": "2"},
    )


def privacy(manifest: Manifest, p95: Mapping[Plan, float]) -> Privacy:
    return Privacy(model=manifest.large.sha256, attacks=(attack(manifest, p95),))
