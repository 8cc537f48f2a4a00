"""The bundle's manifest: what is in it, what fits what, and what was measured.

Read and written as JSON by msgspec, which refuses unknown fields and wrong types. Nothing in it
depends on when or where it was made.
"""

from enum import StrEnum
from typing import Annotated

import msgspec

from .codec import codec_by_name
from .contract import Contract
from .errors import BundleError
from .objective import Objective
from .plan import Plan, PlanKind
from .preprocess import PreprocessSpec
from .tensor import TensorSpec

FORMAT = 2
_READABLE = (1, 2)

Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Name = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Version = Annotated[str, msgspec.Meta(pattern="^[1-9][0-9]{0,8}$")]


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Blob(_Record, frozen=True):
    """A file under `blobs/`, named by its own hash."""

    sha256: Sha256
    bytes: Annotated[int, msgspec.Meta(ge=0)]


class OutputKind(StrEnum):
    """What a classifier's last tensor holds."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"


class Precision(StrEnum):
    """The arithmetic of a head (int8 or float32), or of the cloud's part."""

    INT8 = "int8"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    FLOAT32 = "float32"


class Runtime(StrEnum):
    """What computes the cloud's part."""

    ONNXRUNTIME = "onnxruntime"
    TORCH = "torch"


class Preprocessing(_Record, frozen=True):
    """A TFLite file with the signatures `resize` and `normalize`, and what they compute."""

    spec: PreprocessSpec
    blob: Blob


class Light(_Record, frozen=True):
    """The device's own model: int8 inside, float32 [1, S, S, 3] to float32 [1, classes].

    `temperature` divides its logits, so that its confidence is how often the large model agrees;
    `calibration` (shared/calibration.py) is how often that was so, on pictures that it never saw.
    """

    preprocessing: Preprocessing
    blob: Blob
    output: OutputKind
    temperature: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    calibration: Blob | None = None


class Cut(_Record, frozen=True):
    """A place where the large model may be split.

    `heads` gives, per precision, the signature in that precision's head file.
    """

    name: Name
    contract: Contract
    heads: dict[Precision, str]
    tail: Blob


class Variant(_Record, frozen=True):
    """The cloud's graphs in one precision, and the weights they share; `tails` is by cut.

    ONNX Runtime's are stored as they run. Torch's are the float32 ones, which it converts as it
    loads them: such a variant names blobs that are there already.
    """

    whole: Blob
    weights: Blob
    weights_index: Blob
    tails: dict[Name, Blob]
    runtime: Runtime = Runtime.ONNXRUNTIME


class Large(_Record, frozen=True):
    """The large model: whole and in parts, all graphs sharing one file of weights.

    `inputs` are what callers send beside the picture, `outputs` what they get beside the answer;
    every graph takes all the inputs and gives all the outputs, by these names.
    """

    preprocessing: Preprocessing
    sha256: Sha256
    pixels: Contract
    whole: Blob
    weights: Blob
    weights_index: Blob
    head_files: dict[Precision, Blob]
    cuts: tuple[Cut, ...]
    output: OutputKind
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    variants: dict[Precision, Variant] = {}

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Those in which a cloud can serve the model."""
        return (Precision.FLOAT32, *sorted(self.variants))

    def variant(self, precision: Precision) -> Variant:
        """The cloud's graphs in a precision; BundleError if they were not built."""
        if precision is Precision.FLOAT32:
            return Variant(
                whole=self.whole,
                weights=self.weights,
                weights_index=self.weights_index,
                tails={cut.name: cut.tail for cut in self.cuts},
            )
        if precision not in self.variants:
            raise BundleError(
                f"the model was not built in {precision}; it is there in "
                f"{', '.join(self.precisions)} (`tails` under [large] in the recipe adds more)"
            )
        return self.variants[precision]


class Rate(_Record, frozen=True):
    """A share of pictures, with its standard error (Agresti-Coull, so that 100 % has one too)."""

    value: float
    standard_error: float
    samples: int

    @classmethod
    def of(cls, hits: float, samples: int) -> "Rate":
        """Agresti and Coull, The American Statistician 52(2), 1998: two hits and two misses added.

        `hits` may be a sum of shares where a sample was looked at more than once.

        >>> Rate.of(20, 20).standard_error
        0.056
        """
        if not 0 <= hits <= samples or samples < 1:
            raise ValueError(f"{hits} of {samples} is no rate")
        shrunk = (hits + 2) / (samples + 4)
        error = (shrunk * (1 - shrunk) / (samples + 4)) ** 0.5
        return cls(value=round(hits / samples, 6), standard_error=round(error, 3), samples=samples)


class Rates(_Record, frozen=True):
    """How often answers are the uncompressed float32 large model's, how often they are right."""

    agreement: Rate
    accuracy: Rate | None = None


class Prefix(_Record, frozen=True):
    """What the first `layers` of a plan's frames give and take, whatever came after them.

    `variants` has the agreement where the cloud computes in another precision than float32.
    """

    layers: Annotated[int, msgspec.Meta(ge=1)]
    agreement: Rate
    bytes_p50: int
    bytes_p95: int
    variants: dict[Precision, Rate] = {}

    def rate(self, precision: Precision = Precision.FLOAT32) -> Rate:
        return self.variants.get(precision, self.agreement)


class PlanRow(_Record, frozen=True):
    """What one plan gives and costs, on pictures kept out of calibration.

    `variants` has the rates where the cloud computes in another precision than float32. Of frames
    in layers, `prefixes` has every part that can be answered from, the whole left out.
    """

    plan: str
    agreement: Rate
    accuracy: Rate | None
    bytes_p50: int
    bytes_p95: int
    variants: dict[Precision, Rates] = {}
    prefixes: tuple[Prefix, ...] = ()

    def rates(self, precision: Precision = Precision.FLOAT32) -> Rates:
        """With a cloud of this precision; float32's where it makes no difference."""
        return self.variants.get(precision, Rates(agreement=self.agreement, accuracy=self.accuracy))

    def parsed(self) -> Plan:
        return Plan.parse(self.plan)


class Conversion(_Record, frozen=True):
    """By which route a model came to the device, and how far it is off the original there.

    `error` is the largest absolute difference on real pictures over the largest absolute value.
    `ended_by` names the operator that no device runs, at which the list of cuts ends. `failed`
    holds, by route, why it was not taken, in one line.
    """

    route: str
    error: float
    pictures: int
    ended_by: str = ""
    failed: dict[str, str] = {}


class Quantized(_Record, frozen=True):
    """One way of quantizing that was tried, and what it gave.

    `part` is `light`, `large` (its heads), `whole` or `tail:CUT`; `method` names the scheme and how
    the ranges were found, such as `static/min_max`; `kept_float` the operators that stayed in
    float. `agreement` is with the same part in float, on calibration pictures that calibrated
    nothing, `snr_db` the power of the float answers over that of their error, in decibels.
    `accuracy` is with the labels of the pictures that the table is about, of what was chosen;
    `float_bytes` and `float_accuracy` are the part's as it was. Times are in the profile of the
    machine that built it.
    """

    part: str
    precision: Precision
    method: str
    bytes: int
    agreement: Rate
    accuracy: Rate | None = None
    snr_db: float | None = None
    kept_float: tuple[str, ...] = ()
    chosen: bool = False
    float_bytes: int | None = None
    float_accuracy: Rate | None = None


class CutRecord(_Record, frozen=True):
    """A place where the large model could be split, and what became of it.

    `tensors` are ONNX names; `work` is the share of the model's multiply-adds before the cut,
    `error` that of float head and float tail together against the whole model (none where no head
    could be made). `fate` is `kept` or says why not.
    """

    name: str
    tensors: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    work: float
    error: float | None
    fate: str
    int8_snr_db: float | None = None
    int8_agreement: float | None = None


class BuildRecord(_Record, frozen=True):
    """What the compiler tried and found, for reports; nothing at run time depends on it.

    `conversions` is by model: `light` and `large`.
    """

    conversions: dict[str, Conversion] = {}
    quantized: tuple[Quantized, ...] = ()
    cuts: tuple[CutRecord, ...] = ()


class Golden(_Record, frozen=True):
    """Inputs and outputs (an .npz) by which a machine tests a bundle before it uses it.

    `tolerance` bounds the largest absolute difference per output, relative to the largest
    absolute expected value: kernels round differently from one processor to the next.
    """

    blob: Blob
    tolerance: dict[str, float]


class Manifest(_Record, frozen=True):
    """The root of a bundle."""

    format: int
    name: Name
    version: Version
    task: str
    labels: Blob
    classes: int
    default_budget_ms: float
    light: Light
    large: Large
    table: tuple[PlanRow, ...]
    golden: Golden
    provenance: dict[str, str]
    build: BuildRecord = BuildRecord()
    objective: Objective = Objective.ACCURACY
    min_agreement: Annotated[float, msgspec.Meta(gt=0, lt=1)] | None = None

    def cut(self, name: str) -> Cut:
        """The cut of that name; KeyError if there is none."""
        for cut in self.large.cuts:
            if cut.name == name:
                return cut
        raise KeyError(name)

    def contract(self, plan: Plan) -> Contract:
        """The contract under which a remote plan's frame travels."""
        if plan.kind is PlanKind.CLOUD:
            return self.large.pixels
        return self.cut(plan.cut).contract

    def blobs(self) -> list[Blob]:
        """Every blob the bundle needs, each once."""
        large = self.large
        blobs = [
            self.labels,
            self.light.preprocessing.blob,
            self.light.blob,
            *([self.light.calibration] if self.light.calibration else []),
            large.preprocessing.blob,
            large.whole,
            large.weights,
            large.weights_index,
            *large.head_files.values(),
            *(cut.tail for cut in large.cuts),
            *(
                blob
                for each in large.variants.values()
                for blob in (each.whole, each.weights, each.weights_index, *each.tails.values())
            ),
            self.golden.blob,
        ]
        return list(dict.fromkeys(blobs))


class _AnyFormat(msgspec.Struct):
    format: int


def encode_manifest(manifest: Manifest) -> bytes:
    """Canonical bytes: sorted keys, two spaces."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="deterministic")) + b"\n"


def decode_manifest(encoded: bytes) -> Manifest:
    """The manifest of a `manifest.json`; BundleError if it is not one this version reads."""
    try:
        # First of all: what another format holds, this version cannot judge.
        found = msgspec.json.decode(encoded, type=_AnyFormat).format
        if found not in _READABLE:
            known = " and ".join(map(str, _READABLE))
            raise BundleError(f"bundle format {found}; this version reads {known}")
        manifest = msgspec.json.decode(encoded, type=Manifest)
        _check_names(manifest.large)
        _check_variants(manifest.large)
        _check_table(manifest)
    except (msgspec.DecodeError, ValueError, KeyError) as error:
        raise BundleError(f"manifest.json: {error}") from error
    return manifest


def _check_names(large: Large) -> None:
    """ValueError unless a tensor beside the picture or the answer is known by its name."""
    for specs in (large.inputs, large.outputs):
        names = [spec.name for spec in specs]
        if len(set(names)) != len(names):
            raise ValueError(f"tensors {', '.join(names)} do not have names of their own")


def _check_variants(large: Large) -> None:
    """ValueError unless every further precision has a tail for every cut."""
    if Precision.FLOAT32 in large.variants:
        raise ValueError("float32 is no further precision")
    for precision, variant in large.variants.items():
        if variant.tails.keys() != {cut.name for cut in large.cuts}:
            raise ValueError(f"the {precision} tails are not those of the cuts")


def _check_table(manifest: Manifest) -> None:
    """ValueError or KeyError unless every plan can be carried out, and one needs no cloud."""
    plans = [row.parsed() for row in manifest.table]
    if Plan.local() not in plans:
        raise ValueError("the table lacks the local plan, which every bundle has")
    for row, plan in zip(manifest.table, plans, strict=True):
        if plan.kind is PlanKind.SPLIT and plan.head not in manifest.cut(plan.cut).heads:
            raise ValueError(f"{plan}: the cut has no such head")
        layers = 1
        if plan.kind is not PlanKind.LOCAL:
            layers = codec_by_name(plan.codec, manifest.contract(plan)).layer_count
        numbers = [each.layers for each in row.prefixes]
        if numbers and numbers != list(range(1, layers)):
            raise ValueError(f"{plan}: prefixes of {numbers} layers of {layers}")
