"""The contracts on the wire: Open Inference Protocol and fleet service, with generated code."""
