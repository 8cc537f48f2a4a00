"""What edge and cloud must agree on: tensors, codecs, bundles, deadlines, errors."""
