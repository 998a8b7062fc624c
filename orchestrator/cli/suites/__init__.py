"""What the verbs of suites share: what can run here, the run itself, what is left of it."""
