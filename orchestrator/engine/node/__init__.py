"""One node: its link, its agent, its logs and outputs."""
