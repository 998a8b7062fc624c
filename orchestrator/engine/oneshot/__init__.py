"""One question or task on all nodes, without a run."""
