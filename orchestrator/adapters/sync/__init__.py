"""Code on its way to the nodes: which files travel, one digest for them, only what is missing."""
