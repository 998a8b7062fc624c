"""Files that captures leave on nodes, validated once."""
