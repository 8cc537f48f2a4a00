"""Quantization: heads and light models for devices (TFLite), tails for clouds (ONNX)."""
