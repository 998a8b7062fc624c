"""What people write for runs of every night: schedules, acknowledgements, notices."""
