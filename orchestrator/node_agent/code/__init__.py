"""Code snapshots and Python environments kept on this node."""
