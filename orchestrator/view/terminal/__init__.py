"""The terminal itself, and log lines on it."""
