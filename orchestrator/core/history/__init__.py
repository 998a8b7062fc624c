"""What runs of before say of a run: keys, records, statistics, comparison, gates. Pure."""
