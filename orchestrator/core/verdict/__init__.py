"""How a run ended, why, and how each node stands."""
