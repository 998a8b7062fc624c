"""What every other part knows: the settings, and the ranks of this run."""
