"""Options for pods, of runs and of exports, and the inventory whose nodes are pods."""
