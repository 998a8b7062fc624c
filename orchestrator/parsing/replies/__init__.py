"""What nodes and ranks answer. Nothing of it is trusted."""
