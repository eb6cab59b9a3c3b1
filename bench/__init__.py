"""Measurement in ONNX Runtime: latency, memory, size, accuracy, and the report.

Imports neither torch nor the pruning toolkit, so it runs on a device.
"""
