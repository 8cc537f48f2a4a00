"""Checks what `import hybridge.edge`, with all modules of the room, costs on a device."""

import argparse
import subprocess
import sys

# Every module, not only the package: a lazy __init__ must not hide what the agent loads.
PROGRAM = """
import importlib, pkgutil, sys, time
start = time.perf_counter()
import hybridge.edge
for module in pkgutil.walk_packages(hybridge.edge.__path__, "hybridge.edge."):
    importlib.import_module(module.name)
seconds = time.perf_counter() - start
heavy = {"torch", "tensorflow", "onnxruntime", "onnx", "tritonclient"} & set(sys.modules)
print(seconds, *sorted(heavy))
"""
RUNS = 3  # the first compiles; the best is what a device sees at each start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-seconds", type=float, default=1.0)
    max_seconds: float = parser.parse_args().max_seconds

    seconds, heavy = [], set[str]()
    for _ in range(RUNS):
        run = subprocess.run(
            [sys.executable, "-I", "-c", PROGRAM], capture_output=True, text=True, check=False
        )
        if run.returncode != 0:
            print(run.stderr, file=sys.stderr)
            return 1
        took, *loaded = run.stdout.split()
        seconds.append(float(took))
        heavy.update(loaded)
    print(f"import hybridge.edge: {min(seconds):.2f} s (at most {max_seconds})")
    if heavy:
        print(f"import hybridge.edge loads {', '.join(sorted(heavy))}", file=sys.stderr)
    return 1 if heavy or min(seconds) > max_seconds else 0


if __name__ == "__main__":
    sys.exit(main())
