"""ONNX Runtime sessions of many graphs of one model, whose weights are in memory once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnxruntime
from onnx import ModelProto, TensorProto, helper
from onnx.numpy_helper import to_array

from .external import without_weights
from .onnx_source import copy_of

_INLINE_BYTES = 1024  # smaller tensors stay in the graph, where shape inference sees them
_SHARED = "shared"


@dataclass(frozen=True)
class BareModel:
    """A model without its larger weights: what is cut out of it is small, and so are its copies."""

    model: ModelProto
    weights: Mapping[str, onnxruntime.OrtValue] = field(repr=False)

    @classmethod
    def of(cls, model: ModelProto) -> "BareModel":
        bare = without_weights(model)
        weights: dict[str, onnxruntime.OrtValue] = {}
        for tensor in model.graph.initializer:
            array = to_array(tensor)
            if array.nbytes < _INLINE_BYTES or tensor.data_type == TensorProto.STRING:
                bare.graph.initializer.append(tensor)
                continue
            made = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            made.data_location = TensorProto.EXTERNAL
            made.external_data.add(key="location", value=_SHARED)
            bare.graph.initializer.append(made)
            weights[tensor.name] = onnxruntime.OrtValue.ortvalue_from_numpy(
                np.ascontiguousarray(array)
            )
        return cls(model=bare, weights=weights)

    def session(
        self, graph: ModelProto, *, outputs: Iterable[str] = ()
    ) -> onnxruntime.InferenceSession:
        """A session to measure values with, of this model or a graph cut out of it.

        `outputs` come after the graph's own. Optimized little and packed not at all, because it
        runs a handful of times.
        """
        own = {value.name for value in graph.graph.output}
        if more := [name for name in outputs if name not in own]:
            graph = copy_of(graph)
            graph.graph.output.extend(
                helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in more
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.add_session_config_entry("session.disable_prepacking", "1")
        names = [t.name for t in graph.graph.initializer if t.name in self.weights]
        options.add_external_initializers(names, [self.weights[name] for name in names])
        return onnxruntime.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
