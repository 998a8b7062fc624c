"""What all benchmarks need: hosts, commands and their cost, rounds, statistics, tables."""
