"""What the nightly verbs share: the options of a schedule, a night's run, the status file."""
