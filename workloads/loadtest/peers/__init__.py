"""Other load-testing tools, run against the same server: what both say, side by side."""
