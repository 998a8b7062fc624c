"""From records to figures, and whether they may be trusted: pure."""
