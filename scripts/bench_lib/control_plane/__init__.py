"""Commands on many hosts beside the tools that people use for that."""
