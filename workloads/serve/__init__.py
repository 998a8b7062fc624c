"""Inference servers on every node, up until the run is stopped."""
