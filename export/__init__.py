"""From a torch module to an ONNX file that is known to compute the same."""
