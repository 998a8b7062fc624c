"""Throughput of a mixture of experts, and how evenly its router uses them."""
