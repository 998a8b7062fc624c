"""What the verbs of migrations share: a suite's run as a bundle, the way back, the checklist."""
