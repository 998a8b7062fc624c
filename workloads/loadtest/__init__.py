"""Load tests of inference servers that prove their own load."""
