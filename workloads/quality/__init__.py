"""Perplexity and accuracy of a model on lines of JSON, with their statistical error."""
