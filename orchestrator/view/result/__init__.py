"""A run when it is over."""
