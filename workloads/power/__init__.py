"""Efficiency baselines of a decoder: throughput, power and price by batch size and precision."""
