"""Fused fine-tuning: a transformers model's own tensors, with forward and backward of our own.

`engine.py` is the way in. What it saves against the usual path: the adapter's low-rank products
ride in the frozen ones (`fused_projection.py`), nothing is computed twice but norms and activations
(`layer.py`), logits never exist as a whole (`head.py`), and rows are laid end to end without
padding.
"""
