"""The list of runs, and one run as it is followed."""
