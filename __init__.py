"""Hybridge: one model across a device and the cloud, every answer within its latency budget."""

__version__ = "0.1.0"
