"""Loads of experts as inference engines and the workload ``moe`` write them. Nothing is trusted."""
