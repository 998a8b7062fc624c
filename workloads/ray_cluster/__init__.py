"""A Ray cluster over all nodes, up until the run is stopped."""
