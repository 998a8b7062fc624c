"""A process that has imported the command already and forks it for those who ask."""
