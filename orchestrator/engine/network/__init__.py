"""The network between nodes: proven before the launch, watched after it."""
