"""Evidence of ranks that make no progress."""
