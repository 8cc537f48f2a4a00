from dataclasses import replace

import pytest

from hybridge.cloud.compiler.build import build
from hybridge.cloud.compiler.cache import StepCache
from hybridge.cloud.compiler.cloud_side import CloudSide
from hybridge.cloud.compiler.transform_fit import has_transform
from hybridge.devices.models import DeviceModels
from hybridge.shared.bundle import Bundle, open_bundle
from hybridge.shared.codec import codec_by_name
from hybridge.shared.codec.grids import Grids
from hybridge.shared.codec.transform import Transform
from hybridge.shared.frame import decode_payload, encode_frame, read_header
from hybridge.shared.plan import PlanKind
from hybridge.shared.signing import SigningKey, TrustStore

from ...bundles import compiler_version, picture, small_recipe

CODECS = ("rans-30", "rans-15", "klt-20", "klt-30")


@pytest.fixture(scope="module")
def bundle(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config, key: SigningKey
) -> Bundle:
    """The small models with codecs that learn; conversions come from the cache."""
    folder = tmp_path_factory.mktemp("rates")
    assert pytestconfig.cache is not None
    built = build(
        replace(small_recipe(folder), name="rates", tensor_codecs=CODECS),
        root=folder / "built",
        key=key,
        cache=StepCache(pytestconfig.cache.mkdir("bundle") / compiler_version()),
        progress=lambda step, done, total: None,
    )
    return open_bundle(built, trust=TrustStore(frozenset({key.public_hex})))


def test_every_cut_knows_its_rates(bundle: Bundle) -> None:
    assert bundle.manifest.large.cuts
    for cut in bundle.manifest.large.cuts:
        steps = [
            Grids.parse(str(cut.contract.codecs[name]["grids"])).step
            for name in ("rans-30", "rans-15")
        ]
        assert (steps[0] <= steps[1]).all()
        assert (steps[0] < steps[1]).any()


def test_every_picture_of_channels_has_a_transform_and_nothing_else_has(bundle: Bundle) -> None:
    shapes = set()
    for cut in bundle.manifest.large.cuts:
        contract = cut.contract
        codecs = {
            row.parsed().codec for row in bundle.manifest.table if row.parsed().cut == cut.name
        }
        assert codecs <= {*CODECS}
        assert ("klt" in contract.codecs) == has_transform(contract.shape)
        if "klt" not in contract.codecs:
            assert not any(codec.startswith("klt") for codec in codecs)
            continue
        shapes.add(contract.shape)
        made = Transform.parse(str(contract.codecs["klt"]["transform"]))
        assert made.shape == contract.shape
        assert len({*codecs} & {"klt-20", "klt-30"})
    assert shapes


def test_the_table_says_what_frames_take_and_answer(bundle: Bundle) -> None:
    models, cloud = DeviceModels(bundle), CloudSide.open(bundle)
    splits = [row for row in bundle.manifest.table if row.parsed().kind is PlanKind.SPLIT]
    assert splits
    pixels = models.resize_large(picture(100))
    for row in splits:
        plan = row.parsed()
        contract = bundle.manifest.contract(plan)
        tensor = models.tensor(plan, pixels)
        frame = encode_frame(tensor, contract=contract, codec=codec_by_name(plan.codec, contract))
        decoded = decode_payload(frame, read_header(frame), contract=contract)
        assert decoded.shape == tensor.shape
        assert 0 <= cloud.answer(plan, decoded) < bundle.manifest.classes
        assert row.bytes_p50 < contract.elements + 100
