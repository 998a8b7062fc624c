"""MLPerf's LoadGen, in a process of its own."""
