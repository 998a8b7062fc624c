"""From what was measured to figures with limits, gates and verdicts. Pure."""
