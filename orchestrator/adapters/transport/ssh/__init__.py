"""What both SSH libraries share: where a node is, which keys count, what failures mean."""
