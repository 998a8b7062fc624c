"""One node's part of a load test, from prompts to records."""
