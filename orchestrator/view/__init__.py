"""What people and scripts see: live and plain progress, JSON lines, logs, failures, plans."""
