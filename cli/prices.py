"""What things cost, as commands are told."""

import argparse

from ..edge.prices import Prices


def add_prices(group: "argparse._ArgumentGroup") -> None:
    """Adds an option for each price."""
    known = Prices()
    for option, value, words in (
        ("--device-watts", known.device_w, "of the busy processor, above idle"),
        ("--joules-per-mb", known.joules_per_mb, "of the uplink"),
        ("--price-per-gb", known.per_gb, "of what is sent"),
        ("--price-per-cloud-hour", known.per_cloud_hour, "of computing"),
    ):
        help_words = f"{words} (default %(default)g)"
        group.add_argument(option, type=float, default=value, metavar="N", help=help_words)


def prices_of(options: argparse.Namespace) -> Prices:
    """What was given; ConfigError for a negative price."""
    return Prices(
        device_w=options.device_watts,
        joules_per_mb=options.joules_per_mb,
        per_gb=options.price_per_gb,
        per_cloud_hour=options.price_per_cloud_hour,
    )
