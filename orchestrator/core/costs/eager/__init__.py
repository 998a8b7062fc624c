"""Inference by a library's own forward pass: each kernel is launched by itself, from Python."""
