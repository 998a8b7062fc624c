"""Training without collectives between nodes: what they exchange over SSH."""
