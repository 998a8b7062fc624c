"""Schedules on disk and in the host's own scheduler: cron or systemd."""
