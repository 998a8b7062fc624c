"""Evidence as one file."""
