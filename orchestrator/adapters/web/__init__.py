"""The web page of all runs: what it shows comes from run folders and the history alone."""
