"""ONNX graphs run by torch: operators, programs, weights that graphs of one model share."""
