"""One module a benchmark, each with its `COMMAND`."""
