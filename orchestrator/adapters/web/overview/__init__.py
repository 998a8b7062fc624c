"""What is put together from many runs: nodes, nights, trends, comparisons."""
