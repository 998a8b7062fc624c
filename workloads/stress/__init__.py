"""Load on every GPU and every link for a time, with each result checked."""
