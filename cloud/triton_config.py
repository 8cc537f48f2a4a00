"""config.pbtxt: what Triton's model repositories say of a model, and what becomes of it here.

Protobuf's text format of the ModelConfig message. A field that changes what is computed is kept or
refused; one that only tunes Triton's own machinery is left aside with a word in the log.
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from google.protobuf import text_format

from ..protos import model_config_pb2 as pb
from ..shared.errors import BundleError
from .priorities import Priorities

log = logging.getLogger(__name__)

FILE_NAME = "config.pbtxt"
DEFAULT_BATCH = 4
"""Triton's own for a model that it completes by itself and that can batch."""
ONNX, REMOTE = "onnxruntime", "hybridge_remote"

_REFUSED = {
    "sequence_batching": "models that keep state between requests are not served",
    "ensemble_scheduling": "ensembles are not served; send the steps one after the other",
    "model_operations": "libraries of operators are code, and none is loaded",
    "model_repository_agents": "agents are code, and none is run",
    "batch_input": "inputs that a server makes of a batch are not served",
    "batch_output": "outputs that a server makes of a batch are not served",
}
_ASIDE = {
    "optimization": "graphs run as the runtime optimises them by itself",
    "model_warmup": "every model is warmed up with zeros before it is switched to",
    "response_cache": "answers are not kept",
    "cc_model_filenames": "default_model_filename alone is read",
    "metric_tags": "metrics are told by model and version",
    "model_metrics": "metrics are told by model and version",
    "runtime": "the backend decides",
}
_KNOWN = frozenset(
    (
        *("name", "platform", "backend", "version_policy", "max_batch_size", "input", "output"),
        *("instance_group", "dynamic_batching", "default_model_filename", "parameters"),
        "model_transaction_policy",
    )
)
_TENSOR_REFUSED = {
    "reshape": "tensors reach the model as they are sent",
    "is_shape_tensor": "shape tensors are TensorRT's",
    "allow_ragged_batch": "requests of different shapes are not batched",
    "optional": "every input has to come",
    "is_non_linear_format_io": "tensors are row-major",
}
_PLATFORMS = {"onnxruntime_onnx": ONNX}

DATATYPES: dict[int, str] = {
    getattr(pb, f"TYPE_{name}"): name
    for name in (
        *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
        *("FP16", "FP32", "FP64"),
    )
}
"""Triton's types by the protocol's names; strings and bfloat16 are not served."""
TYPES = {name: number for number, name in DATATYPES.items()}


def read_config(folder: Path) -> pb.ModelConfig:
    """What a model's folder says, or nothing if it has no config.pbtxt; BundleError if it errs."""
    file = folder / FILE_NAME
    config = pb.ModelConfig()
    try:
        text_format.Parse(file.read_bytes(), config)
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        why = str(error).strip() or "it is no text"
        raise BundleError(f"{file} cannot be read: {why}") from error
    if config.name not in ("", folder.name):
        raise BundleError(f"{file} is of {config.name!r}, and its folder is {folder.name!r}")
    config.name = folder.name
    return config


def check_config(config: pb.ModelConfig) -> None:
    """BundleError if a field asks for what is not done here; what is left aside is logged."""
    for field, _ in config.ListFields():
        if field.name in _REFUSED:
            raise BundleError(f"config.pbtxt: {field.name}: {_REFUSED[field.name]}")
        if field.name not in _KNOWN:
            log.warning("%s: config.pbtxt: %s is left aside: %s", config.name, field.name,
                        _ASIDE.get(field.name, "it means nothing here"))  # fmt: skip
    if config.max_batch_size < 0:
        raise BundleError(f"config.pbtxt: max_batch_size is {config.max_batch_size}")
    if config.model_transaction_policy.decoupled:
        raise BundleError("config.pbtxt: decoupled models are not served: one answer per request")
    tensors: tuple[pb.ModelInput | pb.ModelOutput, ...] = (*config.input, *config.output)
    for tensor in tensors:
        _check_tensor(tensor)
    priorities_of(config)
    for aside in _tuning(config):
        log.warning("%s: config.pbtxt: %s", config.name, aside)


def backend_of(config: pb.ModelConfig) -> str:
    """Who computes: ONNX Runtime unless another is named; BundleError for those there are not."""
    named = config.backend or _PLATFORMS.get(config.platform, config.platform) or ONNX
    if named not in (ONNX, REMOTE):
        raise BundleError(
            f"config.pbtxt: backend {named!r} is not there; {ONNX} and {REMOTE} are. "
            "A PyTorch or TensorFlow model can be exported to ONNX"
        )
    return named


def served_versions(config: pb.ModelConfig, there: Sequence[int]) -> list[int]:
    """Those of the versions on disk that the policy wants, oldest first; the newest by default."""
    policy = config.version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            return sorted(there)
        case "specific":
            return sorted(set(there) & set(policy.specific.versions))
        case _:
            most = policy.latest.num_versions or 1
            return sorted(there)[-most:]


def priorities_of(config: pb.ModelConfig) -> Priorities:
    """The levels of its requests, or those of every model; BundleError if they make no sense."""
    batching = config.dynamic_batching
    if not batching.priority_levels:
        return Priorities()
    try:
        return Priorities(levels=batching.priority_levels, default=batching.default_priority_level)
    except ValueError as error:
        raise BundleError(f"config.pbtxt: dynamic_batching: priority_levels: {error}") from error


def _check_tensor(tensor: pb.ModelInput | pb.ModelOutput) -> None:
    for field, _ in tensor.ListFields():
        if field.name in _TENSOR_REFUSED:
            raise BundleError(
                f"config.pbtxt: {tensor.name}: {field.name}: {_TENSOR_REFUSED[field.name]}"
            )
    if tensor.data_type not in DATATYPES:
        kind = pb.DataType.Name(tensor.data_type)
        raise BundleError(f"config.pbtxt: {tensor.name} is {kind}, which is not served")


def _tuning(config: pb.ModelConfig) -> Iterable[str]:
    batching = config.dynamic_batching
    if config.instance_group:
        yield "instance_group is left aside: all models share the cloud's --instances"
    if config.parameters and backend_of(config) != REMOTE:
        yield f"parameters {', '.join(sorted(config.parameters))} are left aside"
    if batching.priority_queue_policy:
        yield "dynamic_batching.priority_queue_policy is left aside: all levels are queued alike"
    if batching.preserve_ordering:
        yield "dynamic_batching.preserve_ordering is left aside: answers go out as they come"
    if batching.default_queue_policy.max_queue_size:
        yield "max_queue_size is left aside: --queue bounds the queue of every model"
    if batching.default_queue_policy.timeout_action == pb.ModelQueuePolicy.DELAY:
        yield "timeout_action DELAY is left aside: what cannot be in time is refused"
