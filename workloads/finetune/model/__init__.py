"""The base model, its adapter, and what computes losses and gradients."""
