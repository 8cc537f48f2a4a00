"""Triton, as nvidia-pytriton brings it: its Python backend, an instance per core, gRPC."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

_CONFIG = """
backend: "python"
max_batch_size: 0
input {{ name: "pixels" data_type: TYPE_{kind} dims: [{dims}] }}
output {{ name: "logits" data_type: TYPE_FP32 dims: [-1, -1] }}
instance_group {{ count: {count} kind: KIND_CPU }}
"""
_MODEL = """
import sys
sys.path.insert(0, {here!r})
import triton_python_backend_utils as pb_utils
from session import Session

class TritonPythonModel:
    def initialize(self, args):
        self.session = Session({model!r})

    def execute(self, requests):
        answers = []
        for request in requests:
            array = pb_utils.get_input_tensor_by_name(request, "pixels").as_numpy()
            output = pb_utils.Tensor("logits", self.session.run(array))
            answers.append(pb_utils.InferenceResponse(output_tensors=[output]))
        return answers
"""


def main() -> None:
    import pytriton
    from session import CORES, Arguments, announce, free_port

    arguments = Arguments.read()
    home = Path(pytriton.__file__).parent / "tritonserver"
    root = Path(tempfile.mkdtemp(prefix="triton-peer-"))
    name = Path(arguments.model).stem
    version = root / name / "1"
    version.mkdir(parents=True)
    kind, dims = arguments.datatype, ",".join(map(str, arguments.shape))
    (root / name / "config.pbtxt").write_text(_CONFIG.format(kind=kind, dims=dims, count=CORES))
    here = str(Path(__file__).parent.resolve())
    (version / "model.py").write_text(_MODEL.format(here=here, model=arguments.model))
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = home / "python_backend_stubs" / python / "triton_python_backend_stub"
    # Beside the backend is where it is looked for; the installed one is left as it is.
    backends = Path(tempfile.mkdtemp(prefix="triton-backends-")) / "backends"
    shutil.copytree(home / "backends", backends)
    shutil.copy(stub, backends / "python" / "triton_python_backend_stub")
    site = Path(pytriton.__file__).parents[1]
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(site / "nvidia_pytriton.libs"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # whose modules it finds
    }
    port = free_port()
    announce(port)
    binary = str(home / "bin" / "tritonserver")
    command = [
        binary,
        f"--model-repository={root}",
        f"--backend-directory={backends}",
        f"--grpc-port={port}",
        "--grpc-address=127.0.0.1",
        "--allow-http=false",
        "--allow-metrics=false",
        "--disable-auto-complete-config",
    ]
    os.execve(binary, command, environment)  # noqa: S606


if __name__ == "__main__":
    main()
