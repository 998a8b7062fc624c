"""What the coordinator keeps on disk: run folders, journals, history."""
