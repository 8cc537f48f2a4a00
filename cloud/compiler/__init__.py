"""The compiler: it turns a light and a large model into a bundle."""

import contextlib

# Torch for CUDA brings triton. Loaded after TensorFlow it crashes the process (triton 3.7.1 and
# tensorflow-cpu 2.21, each with an LLVM of its own); loaded first it does not.
with contextlib.suppress(ImportError):
    import triton  # noqa: F401
