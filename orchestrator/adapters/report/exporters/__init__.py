"""Finished runs for other programs: MLflow, Prometheus."""
